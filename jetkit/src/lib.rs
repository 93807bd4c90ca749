//! Events, aggregates and consumers on NATS JetStream.
//!
//! The event log is one JetStream stream. An aggregate's decision is appended to it under optimistic concurrency, and that
//! write is the publication: there is no outbox and no second write. Consumers read the log through durables, handle
//! each event with one effect, and give up on what cannot be handled without losing it.
//!
//! A whole service: an event, the rules that lead to it, what reacts to it, what readers see, and the wiring.
//!
#![cfg_attr(feature = "service", doc = "```no_run")]
#![cfg_attr(not(feature = "service"), doc = "```ignore")]
//! use jetkit::projection::{Tables, params};
//! use jetkit::{
//!     Aggregate, Consumer, EntityId, Event, EventSet as _, Handler, HandlerResult, NoSettings, Projection, Recorded,
//!     Service, about,
//! };
//! use serde::{Deserialize, Serialize};
//!
//! /// A lamp was lit. On the log it stands on `lamp.lit.<lamp_id>.<version>`.
//! #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! struct LampLit {
//!     lamp_id: EntityId,
//! }
//!
//! impl Event for LampLit {
//!     const TYPE: &'static str = "lamp.lit";
//!
//!     fn entity_id(&self) -> &EntityId {
//!         &self.lamp_id
//!     }
//! }
//!
//! jetkit::events! {
//!     /// What can happen to a lamp.
//!     enum LampEvent { Lit(LampLit) }
//! }
//!
//! /// The rules: a lamp is lit at most a thousand times.
//! #[derive(Debug, Clone, Default, Serialize, Deserialize)]
//! struct Lamp {
//!     lit: u32,
//! }
//!
//! struct Light {
//!     lamp_id: EntityId,
//! }
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("the lamp is worn out")]
//! struct WornOut;
//!
//! impl Aggregate for Lamp {
//!     const ENTITY: &'static str = "lamp";
//!     type Event = LampEvent;
//!     type Command = Light;
//!     type Rejection = WornOut;
//!
//!     fn decide(&self, Light { lamp_id }: &Light) -> Result<Vec<LampEvent>, WornOut> {
//!         if self.lit >= 1000 {
//!             return Err(WornOut);
//!         }
//!         Ok(vec![LampLit { lamp_id: lamp_id.clone() }.into()])
//!     }
//!
//!     fn apply(&mut self, event: &LampEvent) {
//!         match event {
//!             LampEvent::Lit(_) => self.lit += 1,
//!         }
//!     }
//! }
//!
//! /// What reacts: somebody is told, at least once for each event, and not again after that.
//! struct Janitor;
//!
//! impl Handler<LampLit> for Janitor {
//!     async fn handle(&self, lit: Recorded<LampLit>) -> HandlerResult {
//!         println!("lamp {} is on; thank you, {}", lit.lamp_id, lit.meta.source);
//!         Ok(())
//!     }
//! }
//!
//! /// What readers see: a table, rebuilt from the log whenever it has to be.
//! struct LampList;
//!
//! impl Projection for LampList {
//!     const NAME: &'static str = "lamps";
//!     const SCHEMA: &'static str = "CREATE TABLE lamps (lamp_id TEXT PRIMARY KEY, lit INTEGER NOT NULL) WITHOUT ROWID;";
//!     type Event = Recorded<LampEvent>;
//!
//!     fn apply(tables: &Tables<'_>, event: &Recorded<LampEvent>) -> anyhow::Result<()> {
//!         tables.run(
//!             "INSERT INTO lamps VALUES (?1, 1) ON CONFLICT (lamp_id) DO UPDATE SET lit = lit + 1",
//!             params![event.entity_id()],
//!         )?;
//!         Ok(())
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     let (mut service, _) = Service::start::<NoSettings>(about!(port = 8090), LampEvent::catalog()).await?;
//!     let lamps = service.log().store::<Lamp>(); // lamps.execute(&lamp_id, &Light { … }, &cause)
//!     let list = service.read_model::<LampList>()?; // list.at(min_sequence).await?.read(|tables| …)
//!     service.consume(Consumer::new("lamp-service").on::<LampLit>(Janitor));
//!     # let _ = (lamps, list);
//!     service.run().await
//! }
//! ```
//!
//! To judge the kit, read `Consumer::process` in `consumer.rs`: the life of one delivery. To test what you build with it,
//! turn on the feature `testing`.
//!
//! | feature | brings |
//! |---|---|
//! | none | what an event is: [`Event`], [`Envelope`], ids, subjects, [`Catalog`], [`Aggregate`]; no I/O |
//! | `jetstream` | the log, the event store, publishers, consumers, inboxes, timers, dead letters, followers, provisioning, health |
//! | `http` | `jetstream`, what every HTTP route has in common, and OpenAPI schemas |
//! | `read-models` | `jetstream`, projections and read models in SQLite |
//! | `service`, the default | all of these, a command line, telemetry and an HTTP server |
//! | `testing` | `jetstream` and what tests need |
//!
//! The kit knows JetStream and has never heard of an order; `ARCHITECTURE.md` tells the rest.

#![cfg_attr(
    not(feature = "service"),
    expect(dead_code, reason = "a part of the kit has functions that only its other parts call")
)]

// What an event is: declared once, stored in a CloudEvents envelope, under a computed subject.

mod id;
pub use id::{EntityId, EventId, InvalidId};

mod cause;
pub use cause::Cause;
mod event;
pub use event::{Event, UpcastError, Upcaster};
mod event_set;
pub use event_set::EventSet;
mod recorded;
pub use recorded::{Metadata, Recorded};

mod trace;
pub use trace::TraceContext;

mod envelope;
pub use envelope::{CONTENT_TYPE, DecodeError, Envelope};

pub mod subject;

pub mod streams;
pub use streams::{DLQ, TIMERS};

mod catalog;
pub use catalog::{Catalog, EventSpec};

// Writing: aggregates decide, the event store appends; a publisher is for events that stand for themselves.

mod aggregate;
pub use aggregate::Aggregate;

#[cfg(feature = "jetstream")]
mod store;
#[cfg(feature = "jetstream")]
pub use store::{EventStore, ExecuteError, Executed, ExpectedVersion, Loaded};

#[cfg(feature = "jetstream")]
mod publisher;
#[cfg(feature = "jetstream")]
pub use publisher::{PublishError, Publisher, Receipt, RequestError};

#[cfg(feature = "read-models")]
mod lock;
#[cfg(feature = "jetstream")]
mod log;
#[cfg(feature = "jetstream")]
pub use log::EventLog;
#[cfg(feature = "jetstream")]
mod store_error;
#[cfg(feature = "jetstream")]
pub use store_error::StoreError;

// Reacting: handlers return, the consumer settles; what cannot be handled is a dead letter.

#[cfg(feature = "jetstream")]
mod handler;
#[cfg(feature = "jetstream")]
pub use handler::{Handler, HandlerError, HandlerResult, OrReject, OrUnavailable, RejectRefusal};

#[cfg(feature = "jetstream")]
mod consumer;
#[cfg(feature = "jetstream")]
pub use consumer::{Breaker, Consumer, OpenCircuit, OrderingKey, open_circuits};

#[cfg(feature = "jetstream")]
pub mod inbox;

#[cfg(feature = "jetstream")]
mod timers;
#[cfg(feature = "jetstream")]
pub use timers::Timers;

#[cfg(feature = "jetstream")]
mod dead_letter;
#[cfg(feature = "jetstream")]
pub use dead_letter::{DeadLetter, DeadLetterError, FailureClass, NotADeadLetter, Original, RedriveError};

// Reading: projections follow the log, read models keep what they make of it.

#[cfg(feature = "jetstream")]
mod follow;
#[cfg(feature = "jetstream")]
pub use follow::{Followed, FollowedMessage, Follower};

#[cfg(any(feature = "http", feature = "read-models"))]
pub mod page;

#[cfg(feature = "read-models")]
pub mod projection;
#[cfg(feature = "read-models")]
pub use projection::{Behind, Projection, ReadModel, Seen};

// Running: a binary from its command line to its last acknowledged message.

#[cfg(feature = "service")]
mod service;
#[cfg(feature = "service")]
pub use service::{NoSettings, Secret, Service};
#[cfg(feature = "http")]
mod info;
#[cfg(feature = "http")]
pub use info::ServiceInfo;

#[cfg(feature = "service")]
mod console;
#[cfg(feature = "service")]
pub use console::Console;

#[cfg(feature = "jetstream")]
mod health;
#[cfg(feature = "jetstream")]
pub use health::{Check, CheckHandle, Health, HealthReport};

#[cfg(feature = "http")]
pub mod http;

#[cfg(feature = "jetstream")]
pub mod provision;

#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "jetstream")]
mod clock;
#[cfg(feature = "jetstream")]
mod delivered;
#[cfg(feature = "jetstream")]
mod direct;
#[cfg(feature = "jetstream")]
mod drift;
#[cfg(feature = "jetstream")]
mod failure;
#[cfg(feature = "jetstream")]
mod jitter;

/// The client whose types stand in this API: async-nats 0.51.0, patched to read any stored header.
#[cfg(feature = "jetstream")]
pub use async_nats;

#[doc(hidden)] // for the macros
pub use serde_json;
