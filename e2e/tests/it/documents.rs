//! Every service does what its OpenAPI document says, whatever is sent: Schemathesis makes the requests.

use e2e::{RunningShop, python_file, python_packages};
use futures::future::join_all;
use tokio::process::Command;

/// How many requests are made up for each operation, besides those that try each limit of its document.
const EXAMPLES: &str = "15";

/// No 5xx, and no answer that the document does not have: status, content type, headers and body. Nothing accepted that
/// the document forbids.
#[tokio::test]
async fn no_service_answers_what_its_document_does_not_say() {
    let packages = python_packages("schemathesis.txt").unwrap();
    let mut running = RunningShop::start().await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let path = std::env::join_paths([packages, python_file("")]).unwrap();
    let examples = std::env::var("SCHEMATHESIS_EXAMPLES").unwrap_or_else(|_| EXAMPLES.to_owned());
    let services = running.system.services().iter().map(|service| service.name.clone());
    let tests = services.map(|service| {
        let document = format!("{}/openapi.json", running.system.url(&service).unwrap());
        let mut command = Command::new("python3");
        command.args(["-m", "schemathesis.cli", "--config-file"]).arg(python_file("schemathesis.toml"));
        command.args(["run", &document, "--phases", "examples,coverage,fuzzing,stateful"]);
        // Rules that no schema tells refuse much of what the schemas allow: an amount with too many decimals, a used key.
        command.args(["--checks", "all", "--exclude-checks", "positive_data_acceptance"]);
        command.args(["--max-examples", &examples, "--seed", "1", "--continue-on-failure"]);
        command.args(["--no-color", "--warnings", "off", "--generation-database", "none"]);
        command.args(["--suppress-health-check", "all"]); // a busy machine is no failure
        command.env("PYTHONPATH", &path).env("PYTHONDONTWRITEBYTECODE", "1").env("NO_COLOR", "1");
        command.current_dir(scratch.path()).kill_on_drop(true); // it leaves notes where it runs
        async move {
            let output = command.output().await.unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success(),
                "{service}:\n{said}\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    });
    join_all(tests).await;
    // Everybody is still there.
    running.system.ready().await.unwrap();
    running.system.stop().await.unwrap();
}
