//! The files of a projection: `orders.v1.sqlite` for each version, and what is being built beside.
//!
//! A database is never opened at a path where another one may still be open: the last to close it would delete the
//! other's `-wal`. So what is built has a name of its own, and gets the final one when nobody has the old one open.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tracing::{info, warn};
use uuid::Uuid;

use super::{FromStream, Projection, integer};
use crate::lock::FileLock;

/// How long a statement waits for another connection's.
const BUSY: Duration = Duration::from_secs(5);

/// How many prepared statements a connection keeps.
const STATEMENTS: usize = 64;

/// Namespace of the marks of table definitions. Changing it rebuilds every read model.
const NAMESPACE: Uuid = Uuid::from_u128(0x3c0e_4b1d_9d5a_4d4b_8f0e_6b1f_2a77_91c5);

/// What the kit keeps in each file, beside the projection's own tables.
const OWN_TABLES: &str = "
CREATE TABLE eventkit_position (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    tables TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    parked INTEGER NOT NULL
);
CREATE TABLE eventkit_parked (
    sequence INTEGER PRIMARY KEY,
    subject TEXT NOT NULL,
    error TEXT NOT NULL,
    parked_at TEXT NOT NULL
);
";

/// A message of the stream: where it stands, and when the server stored it, in nanoseconds since 1970. Another stream, or
/// the same one set back, holds another message there or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) sequence: u64,
    pub(crate) stored_at: i64,
}

/// How far a file has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Position {
    /// The last message that it has taken in or parked.
    pub(crate) last: Mark,
    /// How many were parked.
    pub(crate) parked: u64,
}

/// The files of one projection.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    directory: PathBuf,
    name: &'static str,
    version: u32,
    same_tables_since: u32,
    schema: &'static str,
    stream: &'static str,
}

/// Why a file is of no use.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// It will never be: throw it away.
    Discard(String),
    /// It cannot be opened now.
    Failed(anyhow::Error),
}

impl Files {
    pub(crate) fn of<P: Projection>(directory: PathBuf) -> Self {
        Self {
            directory,
            name: P::NAME,
            version: P::VERSION,
            same_tables_since: P::SAME_TABLES_SINCE,
            schema: P::SCHEMA,
            stream: <P::Event as FromStream>::STREAM,
        }
    }

    /// Takes the files for this process, until the lock is dropped. Two processes would take each event in twice.
    pub(crate) async fn lock(&self) -> anyhow::Result<FileLock> {
        FileLock::take(self.directory.join(format!("{}.lock", self.name))).await
    }

    /// Where this version is kept.
    pub(crate) fn current(&self) -> PathBuf {
        self.path_of(self.version)
    }

    fn path_of(&self, version: u32) -> PathBuf {
        self.directory.join(format!("{}.v{version}.sqlite", self.name))
    }

    /// The files that may serve, the best first: this version's, then older ones with the same tables.
    pub(crate) fn candidates(&self) -> Vec<PathBuf> {
        let versions = (self.same_tables_since..=self.version).rev();
        versions.map(|version| self.path_of(version)).filter(|path| path.exists()).collect()
    }

    /// Removes what a process that was killed has left: builds, and the sidecars of files that are gone.
    pub(crate) fn tidy(&self) -> anyhow::Result<()> {
        for (path, name) in entries(&self.directory)? {
            let Some(rest) = name.strip_prefix(self.name).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            let database = ["-wal", "-shm", "-journal"].iter().find_map(|end| name.strip_suffix(end));
            let orphan = database.is_some_and(|database| !self.directory.join(database).exists());
            if rest.contains(".building") || (orphan && version_of(rest).is_some()) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the files of older versions. (A newer one belongs to a program that may come back.)
    pub(crate) fn remove_older(&self) -> anyhow::Result<()> {
        for (path, name) in entries(&self.directory)? {
            let rest = name.strip_prefix(self.name).and_then(|rest| rest.strip_prefix('.'));
            if rest.is_some_and(|rest| version_of(rest).is_some_and(|version| version < self.version)) {
                info!(
                    projection.name = self.name,
                    file = name,
                    "an older version's file is not needed any more"
                );
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Opens a file that is there, to be written.
    pub(crate) fn open(&self, path: &Path) -> Result<(Connection, Position), Unusable> {
        let open = || -> rusqlite::Result<_> {
            let connection = writable(path)?;
            connection.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 8388608;
                 PRAGMA cache_size = -512;",
            )?;
            let row = connection.query_row(
                "SELECT tables, sequence, stored_at, parked FROM eventkit_position",
                [],
                |row| {
                    let last = Mark { sequence: row.get(1)?, stored_at: row.get(2)? };
                    Ok((row.get::<_, String>(0)?, Position { last, parked: row.get(3)? }))
                },
            )?;
            Ok((connection, row))
        };
        match open() {
            Ok((connection, (tables, position))) if tables == self.tables() => Ok((connection, position)),
            Ok(_) => Err(Unusable::Discard("it has other tables".into())),
            Err(error) if is_no_read_model(&error) => Err(Unusable::Discard(error.to_string())),
            Err(error) => {
                let failed = anyhow::Error::new(error).context(format!("opening {}", path.display()));
                Err(Unusable::Failed(failed))
            }
        }
    }

    /// Makes an empty file, to be built under a name that no other has. It is written without care for crashes, because
    /// nobody opens it again after one.
    pub(crate) fn create(&self) -> anyhow::Result<(Connection, PathBuf)> {
        let build = Uuid::new_v4().simple();
        let name = format!("{}.v{}.{build}.building", self.name, self.version);
        let path = self.directory.join(name);
        let create = || -> anyhow::Result<_> {
            std::fs::create_dir_all(&self.directory)?;
            let connection = writable(&path)?;
            connection.execute_batch(
                "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;
                 PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -8192;",
            )?;
            connection.execute_batch(OWN_TABLES)?;
            connection.execute("INSERT INTO eventkit_position VALUES (1, ?1, 0, 0, 0)", [self.tables()])?;
            connection.execute_batch(self.schema).context("its SCHEMA")?;
            Ok(connection)
        };
        match create() {
            Ok(connection) => Ok((connection, path)),
            Err(error) => {
                // It is tried again under another name. What cannot be removed now is removed at the next start.
                drop(remove_database(&path));
                Err(error.context(format!("creating {}", path.display())))
            }
        }
    }

    /// Tells one definition of the tables from another.
    fn tables(&self) -> String {
        let definition = format!("{}\n{OWN_TABLES}\n{}", self.stream, self.schema);
        Uuid::new_v5(&NAMESPACE, definition.as_bytes()).to_string()
    }
}

/// A connection that writes.
fn writable(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    // What belongs together is a projection's to keep so; its order of writing is the log's.
    connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY;")?;
    prepared(connection)
}

/// A connection that reads.
pub(crate) fn readable(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("PRAGMA cache_size = -256; PRAGMA temp_store = MEMORY;")?;
    prepared(connection)
}

fn prepared(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Writes down how far a file has come; part of the transaction that brought it there.
pub(crate) fn write_position(db: &Connection, position: Position) -> rusqlite::Result<()> {
    let Position { last, parked } = position;
    let mut update = db.prepare_cached(
        "UPDATE eventkit_position SET sequence = ?1, stored_at = ?2, parked = ?3 WHERE only = 1",
    )?;
    update.execute((integer(last.sequence), last.stored_at, integer(parked))).map(|_| ())
}

/// Gives a built and closed file its final name, for good: its content is on the disk before its name is.
pub(crate) fn settle(from: &Path, to: &Path) -> anyhow::Result<()> {
    let move_it = || -> io::Result<()> {
        File::open(from)?.sync_all()?;
        remove_database(to)?;
        std::fs::rename(from, to)?;
        match to.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    move_it().with_context(|| format!("moving {} to {}", from.display(), to.display()))
}

/// Which file stands at a path: another one there has another identity.
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Removes a database that nobody has open, whatever of it is there.
pub(crate) fn remove_database(path: &Path) -> io::Result<()> {
    for sidecar in ["-wal", "-shm", "-journal", ""] {
        let mut file = path.as_os_str().to_owned();
        file.push(sidecar);
        remove_if_there(Path::new(&file))?;
    }
    Ok(())
}

/// Removes the read models of a directory, or the one that is named, so that they are built anew: by the service that
/// runs, which notices, or at its next start. Says which.
pub(crate) fn delete(directory: &Path, name: Option<&str>) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for (path, file) in entries(directory)? {
        let Some((projection, rest)) = file.split_once('.') else { continue };
        if version_of(rest).is_some() && rest.ends_with(".sqlite") {
            found.push((projection.to_owned(), path, file));
        }
    }
    let wanted: Vec<_> =
        found.iter().filter(|(projection, ..)| name.is_none_or(|name| name == projection)).collect();
    if let (Some(name), true) = (name, wanted.is_empty()) {
        let mut names: Vec<&str> = found.iter().map(|(projection, ..)| projection.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let there = if names.is_empty() {
            "there are none".to_owned()
        } else {
            format!("there are: {}", names.join(", "))
        };
        bail!("there is no read model {name} in {}; {there}", directory.display());
    }
    wanted.into_iter().map(|(_, path, file)| remove(path).map(|()| file.clone())).collect()
}

/// The version in `v7.sqlite`, also of its sidecars.
fn version_of(rest: &str) -> Option<u32> {
    let (version, end) = rest.strip_prefix('v')?.split_once('.')?;
    ["sqlite", "sqlite-wal", "sqlite-shm", "sqlite-journal"].contains(&end).then(|| version.parse().ok())?
}

/// The files of a directory, and their names where they are text; none if there is no such directory.
fn entries(directory: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let list = || -> io::Result<Vec<(PathBuf, String)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                files.push((entry.path(), name));
            }
        }
        Ok(files)
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.with_context(|| format!("reading the directory {}", directory.display())),
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    remove_if_there(path).with_context(|| format!("removing {}", path.display()))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a file that was opened turned out to be no read model, or a damaged one.
fn is_no_read_model(error: &rusqlite::Error) -> bool {
    is_damage(error)
        || matches!(error, rusqlite::Error::QueryReturnedNoRows)
        // SQLITE_ERROR: no such table or column.
        || error.sqlite_error().is_some_and(|error| error.extended_code == 1)
}

/// Whether the file itself is at fault.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    let damaged = matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
    if damaged {
        warn!(error = %error, "a read model's file is damaged");
    }
    damaged
}

/// Whether a row holds a value that no reader expects: its bytes were changed, or whoever wrote it meant something else.
pub(crate) fn is_unreadable(error: &rusqlite::Error) -> bool {
    let unreadable = matches!(
        error,
        rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
    );
    if unreadable {
        warn!(error = %error, "a read model's file holds a value that cannot be read");
    }
    unreadable
}

/// Whether it is the machine that fails, and not what was asked: worth trying again.
pub(crate) fn is_machine(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::NoLargeFileSupport
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn files(dir: &TempDir) -> Files {
        let (name, schema, stream) = ("lamps", "", "EVENTS");
        Files { directory: dir.path().into(), name, version: 3, same_tables_since: 2, schema, stream }
    }

    fn touch(dir: &TempDir, names: &[&str]) {
        for name in names {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
    }

    fn left(dir: &TempDir) -> Vec<String> {
        let mut names: Vec<_> = entries(dir.path()).unwrap().into_iter().map(|(_, name)| name).collect();
        names.sort();
        names
    }

    #[test]
    fn the_rebuild_command_deletes_the_one_that_is_named_or_all_and_nothing_else() {
        let dir = TempDir::new().unwrap();
        touch(
            &dir,
            &["a.v1.sqlite", "a.v2.sqlite", "a.v1.sqlite-wal", "b.v1.sqlite", "a.lock", "notes.txt", "mails"],
        );
        assert_eq!(delete(dir.path(), Some("b")).unwrap(), ["b.v1.sqlite"]);
        let unknown = delete(dir.path(), Some("c")).unwrap_err().to_string();
        assert!(unknown.contains("no read model c") && unknown.ends_with("there are: a"), "{unknown}");
        assert_eq!(delete(dir.path(), None).unwrap().len(), 2);
        assert_eq!(left(&dir), ["a.lock", "a.v1.sqlite-wal", "mails", "notes.txt"]);
        assert!(delete(&dir.path().join("nowhere"), None).unwrap().is_empty());
        let unknown = delete(dir.path(), Some("a")).unwrap_err().to_string();
        assert!(unknown.ends_with("there are none"), "{unknown}");
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_in_use_is_not() {
        let dir = TempDir::new().unwrap();
        let kept = ["lamps.v2.sqlite", "lamps.v2.sqlite-wal", "lampshades.v1.sqlite-wal"];
        touch(&dir, &kept);
        touch(
            &dir,
            &[
                "lamps.v3.0a1b.building",
                "lamps.v3.0a1b.building-journal",
                "lamps.v3.sqlite-wal",
                "lamps.v3.sqlite-shm",
            ],
        );
        files(&dir).tidy().unwrap();
        assert_eq!(left(&dir), kept);
    }

    #[test]
    fn a_build_that_cannot_begin_leaves_nothing() {
        let dir = TempDir::new().unwrap();
        let files = Files { schema: "CREATE NONSENSE", ..files(&dir) };
        assert!(format!("{:#}", files.create().unwrap_err()).contains("its SCHEMA"));
        assert_eq!(left(&dir), [""; 0]);
    }

    #[test]
    fn older_versions_go_and_newer_ones_stay() {
        let dir = TempDir::new().unwrap();
        touch(
            &dir,
            &["lamps.v1.sqlite", "lamps.v2.sqlite", "lamps.v3.sqlite", "lamps.v4.sqlite", "other.v1.sqlite"],
        );
        let candidates = files(&dir).candidates();
        assert_eq!(candidates, [dir.path().join("lamps.v3.sqlite"), dir.path().join("lamps.v2.sqlite")]);
        files(&dir).remove_older().unwrap();
        assert_eq!(left(&dir), ["lamps.v3.sqlite", "lamps.v4.sqlite", "other.v1.sqlite"]);
    }
}
