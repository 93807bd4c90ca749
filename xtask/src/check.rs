//! `cargo xtask test` and `cargo xtask check`: what a change must pass; and `cargo xtask bench`.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::workspace::{cargo, run};
use crate::{Workspace, nats_server};

/// Runs every test: unit, integration, end to end, and the examples in the documentation. `only` goes to the test runner:
/// names of tests to run.
pub fn test(workspace: &Workspace, only: &[String]) -> Result<()> {
    let nats_server = nats_server::find_or_fetch(workspace)?;
    let run = |arguments: &[&str], only: &[String]| {
        run(cargo().args(arguments).args(only).env("NATS_SERVER", &nats_server).current_dir(&workspace.root))
    };
    // The end-to-end tests start the services' binaries, which a test run alone does not build.
    run(&["build", "--workspace", "--all-features", "--bins", "--tests"], &[])?;
    if has_subcommand("nextest") {
        run(&["nextest", "run", "--workspace", "--all-features", "--no-tests=pass"], only)?;
        run(&["test", "--workspace", "--all-features", "--doc", "--quiet", "--"], only)
    } else {
        run(&["test", "--workspace", "--all-features", "--"], only)
    }
}

/// Runs the benchmark, on release builds; `arguments` go to it.
pub fn bench(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let nats_server = nats_server::find_or_fetch(workspace)?;
    run(cargo()
        .args(["build", "--release", "--package", "bench", "--package", "consumer-email"])
        .current_dir(&workspace.root))?;
    run(cargo()
        .args(["run", "--quiet", "--release", "--package", "bench", "--"])
        .args(arguments)
        .env("NATS_SERVER", &nats_server)
        .current_dir(&workspace.root))
}

/// Runs everything that CI runs: formatting, lints, documentation, dependencies, tests.
pub fn check(workspace: &Workspace) -> Result<()> {
    step("formatting");
    run(cargo().args(["fmt", "--all", "--check"]).current_dir(&workspace.root))?;
    step("lints");
    let clippy = ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    run(cargo().args(clippy).current_dir(&workspace.root))?;
    step("documentation");
    let doc = ["doc", "--workspace", "--all-features", "--no-deps", "--document-private-items"];
    run(cargo().args(doc).env("RUSTDOCFLAGS", "-D warnings").current_dir(&workspace.root))?;
    if has_subcommand("deny") {
        step("dependencies");
        run(cargo().args(["deny", "--log-level", "error", "check"]).current_dir(&workspace.root))?;
    } else {
        println!("cargo-deny is not installed: licences and advisories are not checked");
    }
    step("tests");
    test(workspace, &[])
}

fn step(what: &str) {
    println!("\n== {what}");
}

fn has_subcommand(name: &str) -> bool {
    let mut probe = Command::new(format!("cargo-{name}"));
    // Called the way cargo calls it: some refuse to answer otherwise.
    let probe = probe.args([name, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    probe.is_ok_and(|status| status.success())
}
