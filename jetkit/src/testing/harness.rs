//! [`Harness`]: what a test of a service or of a consumer starts with.

use std::path::Path;

use async_nats::Client;
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Anything, NatsServer, SOON, handled};
use crate::streams::EVENTS;
use crate::{
    Catalog, Cause, Consumer, DLQ, EntityId, Event, EventId, EventLog, EventSet, Metadata, Recorded,
    provision,
};

/// A private server with its streams, a log on it, and a directory. Everything is gone when it is dropped.
#[derive(Debug)]
pub struct Harness {
    /// The server.
    pub server: NatsServer,
    /// A connection to it.
    pub client: Client,
    /// The log on it.
    pub log: EventLog,
    dir: TempDir,
}

impl Harness {
    /// Starts a server and creates the streams for these events. What the log records has the source `/test`.
    pub async fn start(catalog: &Catalog) -> Self {
        Self::on(NatsServer::start().await, catalog).await
    }

    /// Connects to a server that perhaps has a history, with an empty directory.
    pub async fn on(server: NatsServer, catalog: &Catalog) -> Self {
        let client = server.client().await;
        provision::streams(&client, catalog, 1).await.expect("the server takes the streams");
        let log = EventLog::new(client.clone(), "/test");
        Self { server, client, log, dir: TempDir::new().expect("a temporary directory") }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// JetStream on the server.
    pub fn jetstream(&self) -> Context {
        jetstream::new(self.client.clone())
    }

    /// Builds a read model in the directory, which then follows the log.
    #[cfg(feature = "read-models")]
    pub fn read_model<P: crate::Projection>(&self) -> crate::ReadModel<P> {
        crate::ReadModel::follow(&self.log, self.dir())
    }

    /// Starts a consumer.
    pub fn run(&self, consumer: Consumer) -> Running {
        Running::start(consumer, &self.client)
    }

    /// Stores any bytes, as a program of somebody else may.
    pub async fn publish(&self, subject: impl Into<String>, body: impl Into<Bytes>) {
        let stored = self.jetstream().publish(subject.into(), body.into()).await.expect("a subject");
        stored.await.expect("the server stores the message");
    }

    /// Puts an event on the log, as the service whose entity it is does, and returns it as it is there.
    pub async fn happens<S: EventSet + From<E>, E: Event>(&self, event: E) -> Recorded<E> {
        let (entity_id, store) = (event.entity_id().clone(), self.log.store::<Anything<S>>());
        let stored = store.execute(&entity_id, &event.into(), &cause()).await.expect("the event is stored");
        let recorded = self.log.read(&entity_id, stored.version).await.expect("the log is read");
        recorded.expect("the event is on the log")
    }

    /// Waits until a consumer has handled every event that is stored by now, or has made a dead letter of it.
    pub async fn handled(&self, consumer: &str) {
        handled(SOON, &self.client, EVENTS, consumer).await;
    }

    /// Returns how many dead letters there are once a consumer has handled every event that is stored by now.
    pub async fn dead_letters(&self, consumer: &str) -> u64 {
        self.handled(consumer).await;
        let stream = self.jetstream().get_stream(DLQ).await.expect("the stream of dead letters");
        stream.cached_info().state.messages
    }
}

/// A running consumer. It is told to stop when this is dropped.
#[derive(Debug)]
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Starts a consumer on a connection.
    pub fn start(consumer: Consumer, client: &Client) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(consumer.run(client.clone(), stop.clone()));
        Self { stop, task }
    }

    /// Tells it to stop, and does not wait for the end.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Returns how it ended, once it has ended by itself or after [`Running::begin_stop`].
    pub async fn ended(mut self) -> anyhow::Result<()> {
        (&mut self.task).await.expect("a consumer does not panic")
    }

    /// Stops it: what runs is finished, and nothing went wrong.
    pub async fn stop(self) {
        self.begin_stop();
        self.ended().await.expect("the consumer ends well");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Makes an id of a text.
pub fn id(text: &str) -> EntityId {
    EntityId::new(text).expect("an entity's id")
}

/// Makes the cause of a request that nobody made before.
pub fn cause() -> Cause {
    Cause::request(EventId::generate())
}

/// Makes an event as a handler gets it, without a log: it happens now, is its entity's first, and the log's.
pub fn happened<E: Event>(event: E) -> Recorded<E> {
    let meta = metadata((E::TYPE, E::VERSION));
    Recorded { event, stored_at: meta.time, meta, version: 1, sequence: 1 }
}

/// Makes the context of an event of this type and version that happens now and has no cause.
pub fn metadata((event_type, data_version): (&str, u32)) -> Metadata {
    let event_id = EventId::generate();
    Metadata {
        id: event_id.clone(),
        source: "/test".to_owned(),
        event_type: event_type.to_owned(),
        time: chrono::Utc::now(),
        data_version,
        correlation_id: event_id,
        causation_id: None,
        user_id: None,
        priority: None,
        trace: None,
    }
}
