//! What surrounds an event when it is stored: its context, and its place on the log.

use std::ops::Deref;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{EventId, TraceContext};

/// What is known about an event besides its data: the CloudEvents context attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct Metadata {
    /// `id`: with `source` it identifies the event.
    pub id: EventId,
    /// `source`: who produced it, a URI reference such as `/order-service`. An adopted event keeps its producer's.
    pub source: String,
    /// `type`: the wire name, such as `order.placed`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// `time`: when it happened, by its producer's clock.
    pub time: DateTime<Utc>,
    /// `dataversion`: the version of the data as stored.
    #[serde(rename = "dataversion")]
    pub data_version: u32,
    /// `correlationid`: shared by everything that one outside request led to.
    #[serde(rename = "correlationid")]
    pub correlation_id: EventId,
    /// `causationid`: the event or request that directly led to this one.
    #[serde(rename = "causationid")]
    pub causation_id: Option<EventId>,
    /// `userid`: on whose behalf.
    #[serde(rename = "userid")]
    pub user_id: Option<String>,
    /// `priority`, 0 to 9, for readers that sort by it; the system itself does not.
    pub priority: Option<u8>,
    /// The trace that it belongs to, in the headers of its message.
    #[serde(skip)]
    pub trace: Option<TraceContext>,
}

/// An event as it stands on the log. Dereferences to the event.
#[derive(Debug, Clone)]
pub struct Recorded<E> {
    /// The event.
    pub event: E,
    /// Its context.
    pub meta: Metadata,
    /// The entity's version after it, from 1; 0 if it came from outside and stands in no aggregate's history.
    pub version: u64,
    /// Its position on the log.
    pub sequence: u64,
    /// When the server stored it; of a redriven one, its redrive. Two events are compared by this or by their sequences, and
    /// never by [`Metadata::time`], which comes from the clocks of their producers.
    pub stored_at: DateTime<Utc>,
}

impl<E> Recorded<E> {
    /// The same record of another event.
    pub fn map<F>(self, f: impl FnOnce(E) -> F) -> Recorded<F> {
        let Self { event, meta, version, sequence, stored_at } = self;
        Recorded { event: f(event), meta, version, sequence, stored_at }
    }
}

impl<E> Deref for Recorded<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.event
    }
}
