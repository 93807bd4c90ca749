//! `cargo xtask test` and `cargo xtask check`: what a change must pass.

use std::io::{Write, stdout};
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::{cargo, programs, run};

/// Features that compile without the others, each without a warning.
const ALONE: [(&str, &str); 8] = [
    ("jetkit", ""),
    ("jetkit", "jetstream"),
    ("jetkit", "http"),
    ("jetkit", "read-models"),
    ("jetkit", "service"),
    ("jetkit", "testing"),
    ("common", ""),
    ("common", "http"),
];

/// Runs every test: unit, integration, end to end, and the examples in the documentation. All of them run, also after one
/// has failed. `only` goes to the test runner: names of tests to run.
pub fn test(only: &[String]) -> Result<()> {
    // The end-to-end tests start the services' binaries, which a test run alone does not build.
    run(cargo().args(["build", "--workspace", "--all-features", "--bins", "--tests"]))?;
    let nats_server = programs::nats_server()?;
    let cargo = |arguments: &[&str]| {
        let mut cargo = cargo();
        cargo.args(arguments).args(only).env("NATS_SERVER", &nats_server);
        cargo
    };
    if has_subcommand("nextest") {
        let nextest =
            ["nextest", "run", "--workspace", "--all-features", "--no-tests=pass", "--no-fail-fast"];
        let tests = run(&mut cargo(&nextest));
        let examples = run(&mut cargo(&["test", "--workspace", "--all-features", "--doc", "--quiet", "--"]));
        tests.and(examples)
    } else {
        run(&mut cargo(&["test", "--workspace", "--all-features", "--no-fail-fast", "--"]))
    }
}

/// Runs everything that CI runs: formatting, lints, each feature alone, documentation, dependencies, tests.
pub fn check() -> Result<()> {
    step("formatting");
    run(cargo().args(["fmt", "--all", "--check"]))?;
    step("lints");
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]))?;
    for (package, features) in ALONE {
        step(&format!("{package} with {}", if features.is_empty() { "no feature" } else { features }));
        let alone = ["clippy", "--package", package, "--no-default-features", "--features", features];
        run(cargo().args(alone).args(["--", "-D", "warnings"]))?;
    }
    step("documentation");
    let doc = ["doc", "--workspace", "--all-features", "--no-deps", "--document-private-items"];
    run(cargo().args(doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    if has_subcommand("deny") {
        step("dependencies");
        run(cargo().args(["deny", "--log-level", "error", "check"]))?;
    } else {
        say("cargo-deny is not installed: licences and advisories are not checked");
    }
    step("tests");
    test(&[])
}

fn step(what: &str) {
    say(&format!("\n== {what}"));
}

fn say(what: &str) {
    // A reader that has gone is no reason to stop.
    drop(writeln!(stdout(), "{what}"));
}

fn has_subcommand(name: &str) -> bool {
    let mut probe = Command::new(format!("cargo-{name}"));
    // Called the way cargo calls it: some refuse to answer otherwise.
    let probe = probe.args([name, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    probe.is_ok_and(|status| status.success())
}
