//! Histories: what happened to one entity, as a list.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{Metadata, Recorded};

// A history is documented with `body = HistoryEntry<…>`; `document` makes the list and the live stream of that.
/// One event of a history: the event as the service shows it, with its `type` first, and its metadata beside it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HistoryEntry<T> {
    /// As the service shows it.
    #[serde(flatten)]
    pub event: T,
    /// Where it stands and where it comes from.
    pub metadata: EntryMetadata,
}

/// Where an event stands on the log, and its CloudEvents attributes.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EntryMetadata {
    /// The entity's version after it.
    pub version: u64,
    /// Its position on the log.
    pub sequence: u64,
    /// `id`, `source`, `type`, `time`, …
    #[serde(flatten)]
    pub context: Metadata,
}

impl<E, T: From<E>> From<Recorded<E>> for HistoryEntry<T> {
    fn from(recorded: Recorded<E>) -> Self {
        let Recorded { event, meta, version, sequence, .. } = recorded;
        Self { event: event.into(), metadata: EntryMetadata { version, sequence, context: meta } }
    }
}
