//! Events, aggregates and consumers on NATS JetStream.
//!
//! The event log is one JetStream stream. An aggregate's decision is appended to it under optimistic concurrency, and that
//! write is the publication: there is no outbox and no second write. Consumers read the log through durables, handle
//! each event with one effect, and give up on what cannot be handled without losing it.
//!
//! This page names everything public, in the order in which to read it. The one function to read is
//! `Consumer::process` in `consumer.rs`: the life of one delivery. The kit knows JetStream and has never heard of
//! an order; `ARCHITECTURE.md` tells the rest.

// What an event is: declared once, stored in a CloudEvents envelope, under a computed subject.

mod id;
pub use id::{EntityId, EventId, InvalidId};

mod event;
pub use event::{Cause, Event, EventSet, Metadata, Recorded, UpcastError, Upcaster};

mod trace;
pub use trace::TraceContext;

mod envelope;
pub use envelope::{CONTENT_TYPE, DecodeError, Envelope};

pub mod subject;

mod catalog;
pub use catalog::{Catalog, EventSpec};

// Writing: aggregates decide, the event store appends; a publisher is for events that stand for themselves.

mod aggregate;
pub use aggregate::Aggregate;

mod store;
pub use store::{EventStore, ExecuteError, Executed, Loaded};

mod publisher;
pub use publisher::{PublishError, Publisher, Receipt, RequestError};

mod log;
pub use log::{EventLog, StoreError};

// Reacting: handlers return, the consumer settles; what cannot be handled is a dead letter.

mod handler;
pub use handler::{Handler, HandlerError, HandlerResult, OrReject, RejectRefusal};

mod consumer;
pub use consumer::{Consumer, OrderingKey};

pub mod inbox;

mod timers;
pub use timers::{TIMERS, Timers};

mod dead_letter;
pub use dead_letter::{
    DLQ, DeadLetter, DeadLetterError, FailureClass, NotADeadLetter, Original, RedriveError,
};

// Reading: projections follow the log, read models keep what they make of it.

mod follow;
pub use follow::{Followed, FollowedMessage, Follower};

pub mod projection;
pub use projection::{Behind, Projection, ReadModel, Seen};

// Running: a binary from its command line to its last acknowledged message.

mod service;
pub use service::{NoSettings, Secret, Service, ServiceInfo};

mod health;
pub use health::{Check, CheckHandle, Health, HealthReport};

pub mod http;

pub mod provision;

#[cfg(feature = "testing")]
pub mod testing;

mod failure;
mod jitter;

#[doc(hidden)] // for the macros
pub use serde_json;
