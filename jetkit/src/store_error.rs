//! [`StoreError`]: what can go wrong with the log itself.

use std::fmt;

use crate::{DecodeError, EntityId};

/// What can go wrong with the log itself.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server did not answer in time or refused for now. Try again; after a write, under the same cause.
    #[error("the event log is not available, try again: {0}")]
    Unavailable(String),
    /// The event is larger than the stream takes. Nothing was stored.
    #[error("the event is too large, record less in it: {0}")]
    TooLarge(String),
    /// The server refuses the write for good: permissions, limits, configuration. Nothing was stored.
    #[error("the event log refuses the write; check permissions, limits and configuration: {0}")]
    Refused(String),
    /// An aggregate decided an event of another entity: a mistake in its `decide`. Nothing was stored.
    #[error("an aggregate decided an event of another entity, mend its `decide`: {0}")]
    Misplaced(String),
    /// A stored message is not the event that its subject promises. Needs an operator.
    #[error("{subject} (sequence {sequence}) is corrupt, find out who wrote it: {source}")]
    Corrupt {
        /// Where it is stored.
        subject: String,
        /// Its position on the log.
        sequence: u64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A decision of several events does not have the room that it needs: a message that no aggregate appended stands at one of
    /// their versions. Nothing was stored. Needs an operator.
    #[error(
        "the history of {entity} {id} is blocked: events are to be stored from version {expected} on, and something \
         stands at version {found}; find out who wrote it"
    )]
    Blocked {
        /// The entity's name.
        entity: &'static str,
        /// Its id.
        id: EntityId,
        /// The version of the first event.
        expected: u64,
        /// The version that is taken.
        found: u64,
    },
    /// There is no such entity ([`crate::EventStore::get`]). Ask for another one, or wait for it.
    #[error("there is no {entity} {id}")]
    NotFound {
        /// The entity's name.
        entity: &'static str,
        /// The id that was asked for.
        id: EntityId,
    },
    /// An event could not be written as JSON: a mistake in its type.
    #[error("the event cannot be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
    /// Two different commands were given to one entity for the same cause and step: a client used an idempotency key again
    /// for another request, a producer a source and id for another event, or the program forgot [`crate::Cause::step`].
    /// Nothing was stored.
    #[error(
        "two different commands to {entity} {id} for one cause: another request under the same key, another event under \
         the same source and id, or a second command without a step of its own (Cause::step)"
    )]
    CauseReused {
        /// The entity's name.
        entity: &'static str,
        /// Its id.
        id: EntityId,
    },
}

impl StoreError {
    pub(crate) fn unavailable(reason: impl fmt::Display) -> Self {
        Self::Unavailable(format!("{reason}"))
    }
}
