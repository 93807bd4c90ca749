//! The connections that read a read model: few, lent out for one read each, and taken away when the file changes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::file::{is_damage, is_unreadable, readable};
use super::{ReadError, Tables};
use crate::page::CursorError;

/// How many reads of one read model run at once.
const READERS: u32 = 4;

/// How long a read waits for its turn, and how long it may then take.
const TURN_WITHIN: Duration = Duration::from_secs(5);
const READ_WITHIN: Duration = Duration::from_secs(5);

/// How many steps of SQLite's machine lie between two looks at the clock.
const STEPS: i32 = 10_000;

/// Connections to one file. There is none to lend before [`Pool::open`].
pub(crate) struct Pool {
    permits: Arc<Semaphore>,
    file: Mutex<OpenFile>,
    /// A read has found the file damaged.
    damaged: AtomicBool,
}

#[derive(Default)]
struct OpenFile {
    path: Option<PathBuf>,
    origin: Origin,
    idle: Vec<Connection>,
}

/// Where a file is from: whom to blame for a value in it that cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was there when the process started. Its bytes may have changed since they were written, or the program has.
    #[default]
    Before,
    /// This process has built it. It is the program's mistake, and building again would change nothing.
    BuiltNow,
}

/// While this is kept, nobody reads and no connection is open.
pub(crate) struct Closed(
    #[expect(dead_code, reason = "kept for what dropping it does")] OwnedSemaphorePermit,
);

impl Pool {
    pub(crate) fn new() -> Self {
        let permits = Arc::new(Semaphore::new(READERS as usize));
        Self { permits, file: Mutex::default(), damaged: AtomicBool::new(false) }
    }

    /// Reads in one transaction, on a thread that may block. Also says up to where the file was then.
    pub(crate) async fn read<T, F>(self: &Arc<Self>, read: F) -> Result<(T, u64), ReadError>
    where
        T: Send + 'static,
        F: FnOnce(&Tables<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let turn = tokio::time::timeout(TURN_WITHIN, self.permits.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(ReadError::Busy) };
        let pool = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            pool.read_now(read)
        });
        reading.await.map_err(|panicked| ReadError::Failed(panicked.into()))?
    }

    fn read_now<T>(
        &self,
        read: impl FnOnce(&Tables<'_>) -> rusqlite::Result<T>,
    ) -> Result<(T, u64), ReadError> {
        let mut connection = self.lend()?;
        let seen = see(&mut connection, read);
        self.file().idle.push(connection);
        seen.map_err(|error| self.failure(error))
    }

    /// What the reader is told. A file that is at fault is built anew.
    fn failure(&self, error: rusqlite::Error) -> ReadError {
        if let rusqlite::Error::ToSqlConversionFailure(reason) = &error
            && let Some(reason) = reason.downcast_ref::<CursorError>()
        {
            return ReadError::Cursor(*reason);
        }
        let from_before = self.file().origin == Origin::Before;
        if is_damage(&error) || (from_before && is_unreadable(&error)) {
            self.damaged.store(true, Ordering::Relaxed);
            return ReadError::Starting;
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => ReadError::TooSlow,
            _ => ReadError::Failed(error.into()),
        }
    }

    /// One that is idle. (A new one, where a read has panicked and taken its own along.)
    fn lend(&self) -> Result<Connection, ReadError> {
        let mut file = self.file();
        if let Some(idle) = file.idle.pop() {
            return Ok(idle);
        }
        let path = file.path.as_deref().ok_or(ReadError::Starting)?;
        readable(path).map_err(|error| ReadError::Failed(error.into()))
    }

    /// Waits for the reads that run and closes every connection.
    pub(crate) async fn close(&self) -> Option<Closed> {
        let all = self.permits.clone().acquire_many_owned(READERS).await.ok()?;
        *self.file() = OpenFile::default();
        Some(Closed(all))
    }

    /// Lends connections to this file from now on. To be called while there are none to another.
    ///
    /// All are opened at once, and read from, because later the file may not be there any more.
    pub(crate) fn open(&self, path: &Path, origin: Origin) -> rusqlite::Result<()> {
        let open = |_| {
            let connection = readable(path)?;
            connection.query_row("SELECT sequence FROM eventkit_position", [], |_| Ok(()))?;
            Ok(connection)
        };
        let idle = (0..READERS).map(open).collect::<rusqlite::Result<_>>()?;
        *self.file() = OpenFile { path: Some(path.to_owned()), origin, idle };
        self.damaged.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a read has found the file damaged.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    fn file(&self) -> MutexGuard<'_, OpenFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn see<T>(
    connection: &mut Connection,
    read: impl FnOnce(&Tables<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<(T, u64)> {
    let deadline = Instant::now() + READ_WITHIN;
    connection.progress_handler(STEPS, Some(move || Instant::now() > deadline))?;
    let transaction = connection.transaction()?;
    let position = "SELECT sequence FROM eventkit_position";
    let sequence = transaction.prepare_cached(position)?.query_row([], |row| row.get(0))?;
    Ok((read(&Tables::of(&transaction))?, sequence))
}
