//! What pip fetches: pinned, checked by hash, into a directory of its own.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The ways to call pip, the likeliest first.
const PIPS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];

/// Installs what `requirements` names, with its hashes, and nothing that it needs besides. Fails with what to do if there is
/// no pip, or if it cannot fetch.
pub fn install(requirements: &Path, into: &Path) -> Result<()> {
    let works = |pip: &&&[&str]| {
        let probe = Command::new(pip[0])
            .args(&pip[1..])
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        probe.is_ok_and(|status| status.success())
    };
    let pip = PIPS.iter().find(works).context("there is no pip: install Python's pip")?;
    let status = Command::new(pip[0])
        .args(&pip[1..])
        .args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"])
        .args(["--require-hashes", "--requirement"])
        .arg(requirements)
        .arg("--target")
        .arg(into)
        .status()
        .context("running pip")?;
    ensure!(status.success(), "pip could not fetch {} (see above)", requirements.display());
    Ok(())
}
