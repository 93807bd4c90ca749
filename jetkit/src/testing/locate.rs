//! Which nats-server binary is used.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest nats-server that this kit works with: older ones accept some of its requests and ignore parts of them.
pub const OLDEST_NATS_SERVER: ServerVersion = ServerVersion(2, 12, 0);

/// The version that `cargo xtask` fetches where no nats-server is installed.
pub const PINNED_NATS_SERVER: ServerVersion = ServerVersion(2, 15, 1);

/// A nats-server version: major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion(pub u32, pub u32, pub u32);

impl ServerVersion {
    /// Asks the binary itself. `None` if it does not run or does not answer like a nats-server.
    pub fn of(binary: &Path) -> Option<Self> {
        let output = Command::new(binary).arg("--version").output().ok()?;
        Self::parse(std::str::from_utf8(&output.stdout).ok()?)
    }

    /// Reads `nats-server: v2.15.1`, `2.15.1` or `2.16.0-RC.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let version = text.split_whitespace().last()?.trim_start_matches('v');
        let mut numbers = version.split(['.', '-', '+']).map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self(next()?, next()?, next()?))
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Why there is no nats-server to use.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// `NATS_SERVER` was set on purpose, so nothing else is tried.
    #[error("NATS_SERVER={0} is not a nats-server of version {OLDEST_NATS_SERVER} or newer")]
    Unusable(PathBuf),
    /// None is installed, and none was fetched.
    #[error(
        "no nats-server of version {OLDEST_NATS_SERVER} or newer: set NATS_SERVER, put one on PATH, or let \
         `cargo xtask test` fetch it"
    )]
    Missing,
}

/// The nats-server to use: the environment's `NATS_SERVER`; else the one on `PATH`, if it is new enough; else the one
/// that `cargo xtask` fetched to `target/nats-server/<version>/`.
pub fn locate_nats_server() -> Result<PathBuf, LocateError> {
    let new_enough =
        |binary: &Path| ServerVersion::of(binary).is_some_and(|found| found >= OLDEST_NATS_SERVER);
    if let Some(named) = std::env::var_os("NATS_SERVER").filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        return if new_enough(&named) { Ok(named) } else { Err(LocateError::Unusable(named)) };
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path =
        std::env::split_paths(&on_path).map(|dir| dir.join("nats-server")).find(|file| file.is_file());
    if let Some(found) = on_path.filter(|found| new_enough(found)) {
        return Ok(found);
    }
    fetched().ok_or(LocateError::Missing)
}

/// A test's own executable lies in `target/debug/deps/`, so the fetched server is beside one of its parents.
fn fetched() -> Option<PathBuf> {
    let place = format!("nats-server/{PINNED_NATS_SERVER}/nats-server");
    let executable = std::env::current_exe().ok()?;
    executable.ancestors().map(|dir| dir.join(&place)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_print_them() {
        assert_eq!(ServerVersion::parse("nats-server: v2.15.1\n"), Some(ServerVersion(2, 15, 1)));
        assert_eq!(ServerVersion::parse("nats-server: v2.16.0-RC.1"), Some(ServerVersion(2, 16, 0)));
        assert_eq!(ServerVersion::parse("nats-server: v2.9"), None);
        assert_eq!(ServerVersion::parse(""), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(ServerVersion(2, 9, 10) < OLDEST_NATS_SERVER);
        assert!(PINNED_NATS_SERVER >= OLDEST_NATS_SERVER);
    }
}
