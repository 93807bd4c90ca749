//! Read models: what readers see, kept in SQLite, folded from a stream, followed live, rebuilt whenever that is needed.
//!
//! A service says what it wants to see ([`Projection`]: tables, and what an event does to them) and gets a
//! [`ReadModel`] to read them. Underneath, one file per projection and version is written by one thread, in batches,
//! each with the position on the stream in the same transaction, so that an event has its effect once.
//!
//! Read `keeper.rs` next: the life of a read model, from opening its file to replacing it by a better one.

mod column;
mod file;
mod keeper;
mod model;
mod pool;
mod tables;
mod track;
mod writer;

use rusqlite::types::ToSqlOutput;

pub use self::column::{Json, Word, unreadable_row};
pub use self::model::{Behind, ReadError, ReadModel, Seen};
pub use self::tables::{Conditions, List, Order, Tables};
pub use rusqlite::{self, Row, ToSql, params};

#[cfg(feature = "service")]
pub(crate) use self::file::delete;

use crate::follow::FollowedMessage;
use crate::log::Stored;
use crate::subject::{EVENTS, of_type};
use crate::{EntityId, EventSet, Recorded};

/// What readers see, as tables and as what each event does to them. Named by what a reader sees: `OrderList`.
pub trait Projection: Send + Sync + 'static {
    /// What its files are called: `orders` is kept in `orders.v1.sqlite`. One to 64 of `a-z 0-9 _`. Renaming it builds it
    /// anew.
    const NAME: &'static str;

    /// Raise it with every change of the tables or of what an event does to them. The new version is built beside the old
    /// one's file, which is removed when the new one has caught up.
    const VERSION: u32 = 1;

    /// The oldest version whose tables are the same. Its file may serve while this version is built, so that a mistake in
    /// `apply` is mended without a moment of not being ready.
    const SAME_TABLES_SINCE: u32 = Self::VERSION;

    /// The tables: `CREATE TABLE` and `CREATE INDEX` statements. A file with others is thrown away.
    const SCHEMA: &'static str;

    /// What it folds: `Recorded<…>` for events of the log.
    type Event: FromStream;

    /// Takes one event in. Called in the stream's order, by one thread. May be called again for an event whose transaction
    /// was rolled back; its effect is there once.
    ///
    /// An error (or a panic) leaves the event without effect: it is parked, with the reason, and the rest goes on. So an
    /// error says that this event can never be taken in. Must depend on nothing but the event and the tables.
    fn apply(tables: &Tables<'_>, event: &Self::Event) -> anyhow::Result<()>;
}

/// What a projection folds, and how it stands on its stream.
pub trait FromStream: Sized + Send + 'static {
    /// The stream.
    const STREAM: &'static str;

    /// The types of events among them that this program may write itself: a read includes those that it has written.
    const TYPES: &'static [&'static str] = &[];

    /// The subjects, as filters; all of the stream's if there are none.
    fn filters() -> Vec<String>;

    /// Reads one message. One that cannot be read is parked.
    fn from_stream(message: FollowedMessage) -> anyhow::Result<Self>;
}

/// Events of the log.
impl<E: EventSet> FromStream for Recorded<E> {
    const STREAM: &'static str = EVENTS;
    const TYPES: &'static [&'static str] = E::TYPES;

    fn filters() -> Vec<String> {
        E::TYPES.iter().copied().map(of_type).collect()
    }

    fn from_stream(followed: FollowedMessage) -> anyhow::Result<Self> {
        Ok(Stored::of_follower(followed).decode()?)
    }
}

/// An event of an entity that is not the next one of its history: a projection returns this as an error, to have it
/// parked. Another producer may have written it; no aggregate has.
#[derive(Debug, thiserror::Error)]
#[error("version {version} is not the next one of {id}: no aggregate has appended it")]
pub struct OutOfTurn {
    id: EntityId,
    version: u64,
}

impl OutOfTurn {
    /// An error, unless a statement has changed the entity's row: it looks for the version before the event's.
    pub fn unless_changed<E: EventSet>(rows: usize, event: &Recorded<E>) -> Result<(), Self> {
        if rows > 0 { Ok(()) } else { Err(Self { id: event.entity_id().clone(), version: event.version }) }
    }
}

/// A position is a number of SQLite, which has no unsigned ones; no stream comes near the limit.
fn integer(position: u64) -> ToSqlOutput<'static> {
    ToSqlOutput::from(i64::try_from(position).unwrap_or(i64::MAX))
}
