//! `cargo xtask new-consumer`, from the command to the first event handled.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Options, PortLease, Ports, System, Workspace};
use jetkit::testing::eventually;

/// Nobody's name: the test passes also where consumers have been added.
const NAME: &str = "consumer-trial-run";

const ORDER: &str = include_str!("../../../common/tests/golden/order.placed.v2.json");

#[tokio::test]
async fn a_new_consumer_is_one_command() {
    let original = Workspace::find().unwrap();
    let copy = Copy::of(&original);
    let command = ["new-consumer", "trial-run", "--on", "order.placed,payment.processed"];
    run(&copy.workspace(), env!("CARGO_BIN_EXE_harness"), &command);

    let mut workspace = copy.workspace();
    let last_port = original.services.iter().map(|service| service.port).max().unwrap();
    assert_eq!(workspace.service(NAME).unwrap().port, last_port + 1);
    let main = fs::read_to_string(copy.tree.join(NAME).join("src/main.rs")).unwrap();
    assert!(main.lines().count() <= 20, "main.rs has grown:\n{main}");
    let compose = fs::read_to_string(copy.tree.join("docker-compose.yml")).unwrap();
    assert!(compose.contains(&format!("\n  {NAME}:\n    <<: *service\n")), "{compose}");
    assert!(compose.ends_with(&format!("\n  {NAME}:\n")), "no volume for it:\n{compose}");
    // What was written is formatted, passes the lints, and its own test passes.
    run(&workspace, "cargo", &["fmt", "--package", NAME, "--check"]);
    run(
        &workspace,
        "cargo",
        &["clippy", "--locked", "-p", NAME, "--no-deps", "--all-targets", "--", "-D", "warnings"],
    );
    run(&workspace, "cargo", &["test", "--locked", "-p", NAME]);

    // The same code as `cargo xtask up`, for the new service alone.
    workspace.services.retain(|service| service.name == NAME);
    workspace.build_services().unwrap();
    let lease = PortLease::take(&workspace).unwrap();
    let data_dir = copy.tree.join("data");
    let ports = Ports::from_base(Some(lease.base())).unwrap();
    let options = Options { data_dir, ports, nats: None, show_logs: false, env: Vec::new() };
    let system = System::start(&workspace, options).await.unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(system.nats_url()).await.unwrap());
    jetstream.publish("order.placed.o-1.1", ORDER.into()).await.unwrap().await.unwrap();

    let handled = async || {
        let stream = jetstream.get_stream_no_info("EVENTS").await.ok()?;
        let consumer: async_nats::jetstream::consumer::PullConsumer = stream.get_consumer(NAME).await.ok()?;
        let info = consumer.cached_info();
        (info.ack_floor.stream_sequence == 1 && info.num_pending == 0).then_some(())
    };
    eventually(Duration::from_secs(20), handled).await;
    system.stop().await.unwrap();
    let log = fs::read_to_string(copy.tree.join("data/logs").join(format!("{NAME}.log"))).unwrap();
    assert!(
        log.contains("01890a5d-ac96-774b-bcce-b302099a0004"),
        "the handler did not say what it handled:\n{log}"
    );
}

/// Runs a command in the copy.
fn run(workspace: &Workspace, program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&workspace.root).env("CARGO_MANIFEST_DIR", &workspace.root);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{program} {arguments:?} failed:\n{}", String::from_utf8_lossy(&said));
}

/// A copy of the tree, always in the same place and building to the same target directory as the original, so that a second
/// run compiles next to nothing.
struct Copy {
    tree: PathBuf,
    _lock: File,
}

impl Copy {
    fn of(original: &Workspace) -> Self {
        let dir = original.target.join("new-consumer-test");
        fs::create_dir_all(&dir).unwrap();
        let lock = File::create(dir.join("lock")).unwrap();
        lock.lock().unwrap();
        let tree = dir.join("tree");
        if tree.exists() {
            fs::remove_dir_all(&tree).unwrap();
        }
        copy_tree(&original.root, &tree);
        let config = tree.join(".cargo/config.toml");
        let target = format!("\n[build]\ntarget-dir = \"{}\"\n", original.target.display());
        fs::write(&config, fs::read_to_string(&config).unwrap() + &target).unwrap();
        Self { tree, _lock: lock }
    }

    fn workspace(&self) -> Workspace {
        Workspace::at(&self.tree).unwrap()
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if [".git", "target", "data"].iter().any(|skipped| entry.file_name() == *skipped) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            // What has not changed keeps its time, by which cargo goes.
            let modified = entry.metadata().unwrap().modified().unwrap();
            File::options().append(true).open(&target).unwrap().set_modified(modified).unwrap();
        }
    }
}
