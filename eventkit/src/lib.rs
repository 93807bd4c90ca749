//! Events, aggregates and consumers on NATS JetStream. (see below)
mod id;
pub use id::{EntityId, EventId, InvalidId};
mod event;
pub mod subject;
pub use event::{Cause, Event, EventSet, Metadata, Recorded, UpcastError};
mod envelope;
pub use envelope::{CONTENT_TYPE, DecodeError, Envelope};
mod catalog;
pub use catalog::{Catalog, EventSpec};
mod aggregate;
pub use aggregate::Aggregate;
mod handler;
pub use handler::{Handler, HandlerError, HandlerResult, OrReject};
mod log;
pub use log::{EventLog, StoreError};
mod publisher;
pub use publisher::{PublishError, Publisher, Receipt, RequestError};
mod store;
pub use store::{EventStore, ExecuteError, Executed, Loaded};
mod dead_letter;
pub use dead_letter::{DLQ, DeadLetter, DeadLetterError, FailureClass, NotADeadLetter, Original};
#[cfg(feature = "testing")]
pub mod testing;
pub use serde_json;
