//! Locks on files: what one process has, another one waits for, and is refused if it does not get it.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;
use uuid::Uuid;

/// How long to wait for another process to let go: one that is being replaced is on its way out.
const LOCK_WITHIN: Duration = Duration::from_secs(10);
const LOCK_AGAIN: Duration = Duration::from_millis(50);

/// Namespace of the names of locks. Changing it lets an older program and a newer one have one directory at once.
const NAMESPACE: Uuid = Uuid::from_u128(0x77b1_0c1e_5d0f_4d7e_9a55_3c1f_8a64_02de);

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    path: PathBuf,
    file: File,
    _name: Name,
}

impl FileLock {
    /// Takes the lock at `path`, in a directory that is made if it is not there. Waits for another process that has it; an
    /// error if that one does not let go within ten seconds.
    pub(crate) async fn take(path: PathBuf) -> anyhow::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)
            .with_context(|| format!("creating the data directory {}", directory.display()))?;
        let deadline = Instant::now() + LOCK_WITHIN;
        let mut waiting = false;
        loop {
            if let Some(lock) =
                Self::try_take(&path).with_context(|| format!("locking {}", path.display()))?
            {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} is in use by another process: give each replica a data directory of its own (DATA_DIR)",
                    path.display()
                );
            }
            if !std::mem::replace(&mut waiting, true) {
                tracing::info!(file = %path.display(), "in use by another process; waiting for it to end");
            }
            tokio::time::sleep(LOCK_AGAIN).await;
        }
    }

    fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let Some(name) = Name::take(path)? else { return Ok(None) };
        let file = match OpenOptions::new().create(true).truncate(false).write(true).open(path) {
            // Its directory was deleted after it was made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
                return Ok(None);
            }
            opened => opened?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let lock = Self { path: path.to_owned(), file, _name: name };
        // Another process may have deleted the file between the two steps.
        Ok(lock.is_there()?.then_some(lock))
    }

    /// Returns whether the file is still the one at its path: if it was deleted, another process may lock a new one.
    pub(crate) fn is_there(&self) -> io::Result<bool> {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        match std::fs::metadata(&self.path) {
            Ok(metadata) => Ok(identity(metadata) == identity(self.file.metadata()?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A name for a path that no other process on this machine has, and that is not deleted with the file: a socket address of
/// Linux's abstract namespace, on which nobody listens. Where there are none, the lock on the file has to do.
#[derive(Debug)]
struct Name(#[expect(dead_code, reason = "it is held, not used")] Option<std::os::unix::net::UnixListener>);

impl Name {
    /// Takes the name of a path: [`None`] if another process has it, and an empty one where the system gives none.
    #[cfg(target_os = "linux")]
    fn take(path: &Path) -> io::Result<Option<Self>> {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener};

        // Two containers may share the addresses, and have different directories at one path.
        let Ok(mounts) = std::fs::read_link("/proc/self/ns/mnt") else { return Ok(Some(Self(None))) };
        let directory = path.parent().unwrap_or(Path::new("."));
        let directory = match directory.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(directory)?;
                directory.canonicalize()?
            }
            found => found?,
        };
        let file = path.file_name().unwrap_or_default();
        let place = format!("{} {} {}", mounts.display(), directory.display(), file.display());
        let name = Uuid::new_v5(&NAMESPACE, place.as_bytes()).simple().to_string();
        let address = SocketAddr::from_abstract_name(format!("jetkit-{name}"))?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Some(Self(Some(listener)))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            // A sandbox without such sockets.
            Err(_) => Ok(Some(Self(None))),
        }
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unnecessary_wraps, reason = "it may fail on Linux")]
    fn take(_: &Path) -> io::Result<Option<Self>> {
        Ok(Some(Self(None)))
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn two_processes_do_not_have_one_lock() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("deep").join(".lock");
        let first = FileLock::take(path.clone()).await.unwrap();
        let second = tokio::time::timeout(LOCK_AGAIN * 4, FileLock::take(path.clone())).await;
        assert!(second.is_err(), "it waits");
        drop(first);
        FileLock::take(path).await.unwrap();
    }

    #[tokio::test]
    async fn a_lock_whose_directory_is_deleted_is_known_to_be_gone_and_nobody_else_gets_it() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("data").join(".lock");
        let first = FileLock::take(path.clone()).await.unwrap();
        assert!(first.is_there().unwrap());
        std::fs::remove_dir_all(dir.path().join("data")).unwrap();
        assert!(!first.is_there().unwrap());
        let second = tokio::time::timeout(LOCK_AGAIN * 4, FileLock::take(path.clone())).await;
        #[cfg(target_os = "linux")]
        assert!(second.is_err(), "it waits");
        drop((first, second));
        assert!(FileLock::take(path).await.unwrap().is_there().unwrap());
    }
}
