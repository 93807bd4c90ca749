//! Events, aggregates and consumers on NATS JetStream. (see below)
mod id;
pub use id::{EntityId, EventId, InvalidId};
pub mod subject;
mod event;
pub use event::{Cause, Event, EventSet, Metadata, Recorded, UpcastError};
mod envelope;
pub use envelope::{CONTENT_TYPE, DecodeError, Envelope};
mod catalog;
pub use catalog::{Catalog, EventSpec};
mod aggregate;
pub use aggregate::Aggregate;
mod handler;
pub use handler::{Handler, HandlerError, HandlerResult, OrReject};
pub use serde_json;
