//! The programs that do the work of some commands: built, then run in place of this one.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{cargo, forget_this_crate, run};

/// Builds the harness and becomes it: signals reach it, and its exit code is this command's.
pub fn harness(command: &str, arguments: &[OsString]) -> Result<()> {
    let error = match become_harness(command, arguments) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    Err(error)
}

fn become_harness(command: &str, arguments: &[OsString]) -> Result<Infallible> {
    let mut harness = build_harness()?;
    let error = harness.arg(command).args(arguments).exec();
    Err(error).context("starting the harness")
}

/// Runs the benchmark, on release builds; `arguments` go to it.
pub fn bench(arguments: &[OsString]) -> Result<()> {
    let nats_server = nats_server()?;
    run(cargo().args(["build", "--release", "--package", "bench", "--package", "consumer-email"]))?;
    run(cargo()
        .args(["run", "--quiet", "--release", "--package", "bench", "--"])
        .args(arguments)
        .env("NATS_SERVER", nats_server))
}

/// Returns the path of the nats-server that tests use. The harness looks for one, or fetches it.
pub fn nats_server() -> Result<PathBuf> {
    let output = build_harness()?.arg("nats-server").stderr(Stdio::inherit()).output();
    let output = output.context("starting the harness")?;
    ensure!(output.status.success(), "no nats-server (see above)");
    let printed = String::from_utf8(output.stdout).context("the path of nats-server")?;
    let path = printed.lines().last().context("the harness named no nats-server")?;
    Ok(PathBuf::from(path))
}

/// Builds the harness with the features that tests are built with, so that nothing is compiled twice.
fn build_harness() -> Result<Command> {
    run(cargo().args(["build", "--workspace", "--all-features", "--bin", "harness"]))?;
    let this = std::env::current_exe().context("where this program is")?;
    let mut harness = Command::new(this.with_file_name("harness")); // cargo builds both to the same directory
    forget_this_crate(&mut harness);
    Ok(harness)
}
