//! The data directory of a service: one process has it at a time, from before it serves or pulls until it ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use crate::lock::FileLock;

/// The file in the directory that is locked. Renaming it lets an older program and a newer one have one directory at once.
const LOCK: &str = ".lock";

/// How often to see whether the directory is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The directory, and the lock on it. Cloning gives another handle.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Why there is none, which matters to a service that needs one.
    lock: Result<Arc<FileLock>, String>,
}

impl DataDir {
    /// Takes the directory for this process; makes it if it is not there. Waits for a process that has it, and is an error
    /// if that one does not end.
    pub(crate) async fn take(path: &Path) -> anyhow::Result<Self> {
        let lock = match std::fs::create_dir_all(path) {
            Ok(()) => Ok(Arc::new(FileLock::take(path.join(LOCK)).await?)),
            Err(error) => Err(format!("creating {}: {error}", path.display())),
        };
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Returns where it is.
    pub(crate) fn path(&self) -> anyhow::Result<&Path> {
        match &self.lock {
            Ok(_) => Ok(&self.path),
            Err(error) => bail!("there is no data directory (DATA_DIR): {error}"),
        }
    }

    /// Ends with an error when the directory is deleted or replaced: what is written from then on is lost, and another
    /// process may have a new one there.
    pub(crate) async fn watch(self) -> anyhow::Result<()> {
        let Ok(lock) = self.lock else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // What else can go wrong, a file system that is away for a moment, is told by those who use the files.
            if lock.is_there().is_ok_and(|there| !there) {
                bail!(
                    "the data directory {} was deleted or replaced while this process used it; start the service again",
                    self.path.display()
                );
            }
        }
    }
}
