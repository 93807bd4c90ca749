//! The idempotency set of a consumer: which events it has handled, and who is handling which.
//!
//! The common case is cheap and the rare one careful. A first delivery is only looked up; what was handled is marked
//! done before it is acknowledged. A redelivery has to be claimed first, and the claim counts the attempt before
//! the handler runs, so that a message that kills its process is counted too.

mod claims;
pub(crate) mod jetstream;
mod memory;

use std::fmt;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::id::canonical_uuid;
use crate::{EntityId, Envelope, EventId};

pub use jetstream::{InboxSettings, JetStreamInbox};
pub use memory::MemoryInbox;

/// A consumer's idempotency set, shared by its replicas. Checked by `testing::inbox_conformance`.
pub trait Inbox: Send + Sync + 'static {
    /// May this delivery be handled now?
    fn claim(&self, key: Key, delivery: Turn) -> BoxFuture<'_, Result<Claim, InboxError>>;

    /// Marks events as handled, or given up, for good: many at once, because a mark may cost a write. When this returns,
    /// every replica answers [`Claim::Done`] to a redelivery, also after a crash; to a first delivery of the same event, as
    /// soon as it has heard of the mark. After an error some of them may be marked.
    fn done<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<(), InboxError>>;

    /// Ends an attempt that was not the last, so that the next one need not wait for the claim to run out. Failing to write
    /// it costs time, and an attempt that was to be given back.
    fn release(&self, key: Key, ended: Ended) -> BoxFuture<'_, Result<(), InboxError>>;

    /// Whether an attempt at this event was started and never came to an end. Such events are handled one at a
    /// time, so that one that kills the process does not use up the attempts of its neighbours.
    fn is_suspect(&self, key: Key) -> bool;

    /// Whether a mark is known here. Asked of a mark that was written with, or before, one for which a claim has just been
    /// answered [`Claim::Done`].
    fn is_done(&self, key: Key) -> bool;
}

/// The place of an event in the set: its id, or a hash of it where that is no UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u128);

impl Key {
    /// The key of an event that the kit recorded: its id.
    pub fn of_event(id: &str) -> Self {
        let hash = || Uuid::new_v5(&NAMESPACE, id.as_bytes());
        Self(canonical_uuid(id).unwrap_or_else(hash).as_u128())
    }

    /// The key of one more try of an event that had been given up.
    fn of_redrive(subject: &str, id: &str, redrives: u32) -> Self {
        Self::hashed(&format!("{id} {subject} redrive {redrives}"))
    }

    fn hashed(text: &str) -> Self {
        Self(Uuid::new_v5(&NAMESPACE, text.as_bytes()).as_u128())
    }
}

/// What is marked of an event that is done with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    /// The event.
    pub(crate) event: Key,
    /// What it said, if it is another producer's: the same event does not come with something else to say.
    pub(crate) content: Option<Key>,
}

impl Marks {
    /// The marks of an event that was read, at its position on the log. `as_it_came`: as another producer published it.
    /// What is recorded of it keeps its id, and may come to the same consumer.
    pub(crate) fn of(
        envelope: &Envelope<'_>,
        entity: &EntityId,
        as_it_came: bool,
        (subject, sequence, redrives): (&str, u64, u32),
    ) -> Self {
        let own = !as_it_came && envelope.is_made_here();
        let event = match redrives {
            0 if own => Key::of_event(envelope.id()),
            0 => return Self::of_foreign(envelope, entity, as_it_came),
            _ if own => Key::of_redrive(subject, envelope.id(), redrives),
            _ => Key::hashed(&format!("{} {subject} at {sequence} redrive {redrives}", envelope.id())),
        };
        Self { event, content: None }
    }

    /// Another producer alone answers for its ids: an event of another source, type or entity is another event.
    fn of_foreign(envelope: &Envelope<'_>, entity: &EntityId, as_it_came: bool) -> Self {
        let (id, event_type, source) = (envelope.id(), envelope.event_type(), envelope.source());
        let came = if as_it_came { "published" } else { "recorded" };
        // The source is last: it may be any text.
        let event = Key::hashed(&format!("{id} {event_type} of {entity} {came} by {source}"));
        Self { event, content: Some(Key::hashed(&format!("{event} {}", envelope.content()))) }
    }

    /// All of them, in the order in which they must be written: a process may end between any two writes, and an event
    /// that is marked without what it said would be taken for another one.
    pub(crate) fn keys(self) -> impl Iterator<Item = Key> {
        self.content.into_iter().chain([self.event])
    }
}

impl From<&EventId> for Key {
    fn from(id: &EventId) -> Self {
        Self::of_event(id.as_str())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Uuid::from_u128(self.0).simple())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Namespace of hashed keys. Changing it forgets them.
const NAMESPACE: Uuid = Uuid::from_u128(0x1e3d_7a55_8a0b_4d35_b1c6_20c0_9f6e_53b7);

/// Which delivery of an event this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The first that the server knows of.
    First,
    /// The same, and it has waited here so long that the server may have given it to another replica too.
    Late,
    /// The server, or this process, has tried before.
    Again,
}

/// The answer to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Handle it, then say [`Inbox::done`] or [`Inbox::release`].
    Granted(Grant),
    /// Somebody else is at it. Wait; do not run it.
    Held,
    /// It was handled. Acknowledge it.
    Done,
}

/// Leave to handle an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The attempt before this one never came to an end.
    pub unfinished: bool,
    /// How often it was postponed.
    pub postponed: u32,
    /// When the first attempt failed, if that is known.
    pub first_failed_at: Option<DateTime<Utc>>,
}

impl Grant {
    /// Leave for the first attempt at an event of which nothing is written down.
    pub(crate) fn first() -> Self {
        Self { attempt: 1, unfinished: false, postponed: 0, first_failed_at: None }
    }
}

/// What is to be remembered of an event whose attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How many attempts it has used up: fewer than were begun, where they were given back.
    pub attempts: u32,
    /// How often it was postponed.
    pub postponed: u32,
    /// When the first attempt failed.
    pub first_failed_at: DateTime<Utc>,
}

/// The set cannot be asked or written now. The event is tried again later and never given up for this.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the idempotency set is not available: {0}")]
pub struct InboxError(pub(crate) String);
