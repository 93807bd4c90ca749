//! The event log: one JetStream stream, written with awaited acknowledgements and read by direct gets.

mod publish;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::{Client, Request, Statistics, Subject};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde::Deserialize;

use self::publish::ApiError;
pub(crate) use self::publish::{Ack, Outgoing, PublishFailure, publish_once};
use crate::clock::ServerClock;
use crate::direct::{self, Got};
use crate::envelope::{DecodeError, Envelope};
use crate::health::{Health, Operation};
use crate::streams::TIMERS;
use crate::subject::{self, EVENTS, EventSubject};
use crate::{
    EntityId, Event, EventSet, Followed, FollowedMessage, Follower, Metadata, Recorded, StoreError,
    TraceContext,
};

/// How long one attempt waits for the server's answer. A healthy server answers in milliseconds; past this the
/// outcome is unknown and the attempt is repeated under the same id.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long a read or a write goes on trying before it is an error.
const DEADLINE: Duration = Duration::from_secs(15);

/// A handle on the log for one producer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    statistics: Arc<Statistics>,
    source: String,
    deadline: Duration,
    written: Arc<Written>,
    /// By which timers are set.
    clock: Arc<ServerClock>,
    writes: Writes,
}

/// Whether the server takes what is written.
#[derive(Debug, Clone)]
pub(crate) struct Writes {
    pub(crate) events: Operation,
    pub(crate) timers: Operation,
}

impl Writes {
    fn of(health: &Health) -> Self {
        let writing = |check| Operation::new(health.check(check), "written");
        Self { events: writing("events"), timers: writing("timers") }
    }

    fn detached() -> Self {
        Self { events: Operation::detached(), timers: Operation::detached() }
    }

    /// Notes what became of a write. A conflict, or a message that is too large, is its sender's affair.
    fn note(&self, subject: &Subject, outcome: &Result<Ack, PublishFailure>) {
        let operation = match () {
            // Nobody waits for a snapshot.
            () if subject.starts_with("$KV.") => return,
            () if subject.starts_with("timer.") => &self.timers,
            () => &self.events,
        };
        match outcome {
            Ok(_) => operation.succeeded(),
            Err(failure @ (PublishFailure::Unknown(_) | PublishFailure::Unavailable(_))) => {
                operation.failed(failure);
            }
            Err(failure @ (PublishFailure::Closed(_) | PublishFailure::Refused(_))) => {
                operation.refused(failure);
            }
            Err(PublishFailure::Conflict | PublishFailure::Misplaced(_) | PublishFailure::TooLarge(_)) => {}
        }
    }
}

/// Where on the log the last event of each type stands that this process has written: its own reads include it.
#[derive(Debug, Default)]
pub(crate) struct Written(RwLock<HashMap<&'static str, u64>>);

impl Written {
    pub(crate) fn note(&self, event_type: &'static str, sequence: u64) {
        let mut written = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let last = written.entry(event_type).or_default();
        *last = sequence.max(*last);
    }

    /// Another log has taken the place of the one that it was written to.
    pub(crate) fn forget(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The last one of any of these types; 0 if there is none.
    pub(crate) fn last_of(&self, types: &[&'static str]) -> u64 {
        let written = self.0.read().unwrap_or_else(PoisonError::into_inner);
        types.iter().filter_map(|event_type| written.get(event_type)).max().copied().unwrap_or(0)
    }
}

impl EventLog {
    /// The log on that server, for a producer whose events carry `source`, a URI reference such as `/order-service`.
    pub fn new(client: Client, source: impl Into<String>) -> Self {
        Self::with_writes(client, source.into(), Writes::detached())
    }

    /// The same, whose writes are reported.
    pub(crate) fn reporting(client: Client, source: impl Into<String>, health: &Health) -> Self {
        Self::with_writes(client, source.into(), Writes::of(health))
    }

    fn with_writes(client: Client, source: String, writes: Writes) -> Self {
        let (statistics, written) = (client.statistics(), Arc::default());
        let clock = Arc::new(ServerClock::of(TIMERS));
        let inner = Inner { client, statistics, source, deadline: DEADLINE, written, clock, writes };
        Self { inner: Arc::new(inner) }
    }

    /// The same log, giving up after `deadline` instead of 15 seconds.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        let Inner { client, statistics, source, written, clock, writes, .. } = &*self.inner;
        let (client, statistics, writes) = (client.clone(), statistics.clone(), writes.clone());
        let (source, written, clock) = (source.clone(), written.clone(), clock.clone());
        let inner = Inner { client, statistics, source, deadline, written, clock, writes };
        Self { inner: Arc::new(inner) }
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// How often the connection was made. What was known of the log before may have been lost by the server since.
    pub(crate) fn connects(&self) -> u64 {
        self.inner.statistics.connects.load(Ordering::Relaxed)
    }

    pub(crate) fn source(&self) -> &str {
        &self.inner.source
    }

    pub(crate) fn written(&self) -> &Arc<Written> {
        &self.inner.written
    }

    /// The time by the clock of the server that keeps the timers.
    pub(crate) async fn server_time(&self) -> Result<DateTime<Utc>, String> {
        self.inner.clock.now(&self.inner.client).await
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.inner.deadline
    }

    /// One event by its place in its entity's history; `None` if there is no event of that type at that version.
    pub async fn read<E: Event>(
        &self,
        id: &EntityId,
        version: u64,
    ) -> Result<Option<Recorded<E>>, StoreError> {
        let subject = subject::event(E::TYPE, id, version);
        let Some(stored) = self.get_last(&subject).await? else { return Ok(None) };
        stored.event().map(Some)
    }

    /// The last message on a subject.
    pub(crate) async fn get_last(&self, subject: &str) -> Result<Option<Stored>, StoreError> {
        Ok(direct::last(self.client(), EVENTS, subject).await?.map(Stored::from))
    }

    /// The same of a stream of notes, which may be deleted: where there is no stream, there is no note.
    pub(crate) async fn get_note(&self, stream: &str, subject: &str) -> Result<Option<Stored>, StoreError> {
        Ok(direct::last_note(self.client(), stream, subject).await?.map(Stored::from))
    }

    /// The sequence of the last event on a subject, as the stream's leader has it (ADR-1, `STREAM.MSG.GET`): any replica
    /// answers a direct get, and one that lags does not know.
    pub(crate) async fn leader_has(&self, subject: &str) -> Result<Option<u64>, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            message: Option<Found>,
            error: Option<ApiError>,
        }
        #[derive(Deserialize)]
        struct Found {
            subject: String,
            seq: u64,
        }
        let query = serde_json::json!({ "last_by_subj": subject }).to_string();
        let query = Request::new().payload(query.into()).timeout(Some(ANSWER_WITHIN));
        let request = format!("$JS.API.STREAM.MSG.GET.{EVENTS}");
        let answer = self.client().send_request(request, query).await.map_err(StoreError::unavailable)?;
        match serde_json::from_slice(&answer.payload).map_err(StoreError::unavailable)? {
            Answer { message: Some(Found { subject, seq }), .. } => {
                Ok(EventSubject::parse(&subject).map(|_| seq))
            }
            // no message found
            Answer { error: Some(ApiError { err_code: 10037, .. }), .. } => Ok(None),
            Answer { error, .. } => {
                let ApiError { code, description, .. } = error.unwrap_or_default();
                Err(StoreError::unavailable(format_args!("status {code} {description}")))
            }
        }
    }

    /// The first message on a subject. It costs the length of the log: for repairs only.
    pub(crate) async fn get_first(&self, subject: &str) -> Result<Option<Stored>, StoreError> {
        Ok(direct::first(self.client(), EVENTS, subject).await?.map(Stored::from))
    }

    /// The last message of every subject that matches one of `filters`, in stream order, by one request.
    pub(crate) async fn get_last_of_each(&self, filters: &[String]) -> Result<Vec<Stored>, StoreError> {
        let read = direct::last_of_each(self.client(), EVENTS, filters).await?;
        Ok(read.into_iter().map(Stored::from).collect())
    }

    /// Publishes a message and awaits the server's acknowledgement, once, for at most `wait`.
    pub(crate) async fn publish_once(
        &self,
        message: Outgoing,
        wait: Duration,
    ) -> Result<Ack, PublishFailure> {
        let subject = message.subject.clone();
        let outcome = publish_once(self.client(), message, wait.min(ANSWER_WITHIN)).await;
        self.inner.writes.note(&subject, &outcome);
        outcome
    }

    /// Whether the server takes what is written.
    pub(crate) fn writes(&self) -> &Writes {
        &self.inner.writes
    }
}

/// The log, read from one place to another.
impl EventLog {
    /// Every event of one type that stands on the log now, in order, from sequence `from` on.
    pub fn events_of<E: Event>(
        &self,
        from: u64,
    ) -> impl Stream<Item = Result<Recorded<E>, StoreError>> + use<E> {
        self.stored(vec![subject::of_type(E::TYPE)], from, u64::MAX).map(|stored| stored?.event())
    }

    /// The events of a set from sequence `from` to `to`, both included, in order. It ends at `to`, or at what was the end
    /// of the log when it was first polled; a follower goes on for ever ([`crate::Follower`]).
    ///
    /// An event that cannot be read is an error in its place, and the next one comes after it. When the log stays away
    /// past its deadline, the stream says so and ends.
    pub fn replay<E: EventSet>(
        &self,
        from: u64,
        to: u64,
    ) -> impl Stream<Item = Result<Recorded<E>, StoreError>> + use<E> {
        let filters = E::TYPES.iter().map(|event_type| subject::of_type(event_type)).collect();
        self.stored(filters, from, to).map(|stored| stored?.decode())
    }

    fn stored(
        &self,
        filters: Vec<String>,
        from: u64,
        to: u64,
    ) -> impl Stream<Item = Result<Stored, StoreError>> + use<> {
        let log = self.clone();
        stream::once(async move {
            let end = log.get_last(">").await?.map_or(0, |last| last.sequence).min(to);
            let follower = (from <= end).then(|| Follower::new(log.client().clone(), EVENTS, filters, from));
            let next = move |follower: Option<Follower>| {
                let deadline = log.deadline();
                async move {
                    let mut follower = follower?;
                    let message = match tokio::time::timeout(deadline, follower.next()).await {
                        Ok(Followed::Message(message)) if message.sequence <= end => message,
                        Ok(_) => return None,
                        Err(elapsed) => return Some((Err(StoreError::unavailable(elapsed)), None)),
                    };
                    let sequence = message.sequence;
                    Some((Ok(Stored::of_follower(message)), (sequence < end).then_some(follower)))
                }
            };
            Ok::<_, StoreError>(stream::unfold(follower, next))
        })
        .try_flatten()
        .boxed()
    }
}

/// A message as the log gave it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    /// When the server stored it.
    pub(crate) time: DateTime<Utc>,
    pub(crate) payload: Bytes,
    pub(crate) trace: Option<TraceContext>,
}

impl From<Got> for Stored {
    fn from(got: Got) -> Self {
        let time = got.stored_at().unwrap_or_default(); // the server always says it
        let Got { subject, sequence, headers, payload } = got;
        Self { subject, sequence, time, payload, trace: TraceContext::of(Some(&headers)) }
    }
}

impl Stored {
    pub(crate) fn of_follower(followed: FollowedMessage) -> Self {
        let FollowedMessage { message, sequence, time, .. } = followed;
        let (subject, trace) = (message.subject.to_string(), TraceContext::of(message.headers.as_ref()));
        Self { subject, sequence, time, payload: message.payload, trace }
    }

    /// The entity's version that this message holds; 0 if it stands in no entity's history.
    pub(crate) fn version(&self) -> u64 {
        EventSubject::parse(&self.subject).map_or(0, |subject| subject.version)
    }

    /// The event, if it is one of the set and stands where it belongs.
    pub(crate) fn decode<E: EventSet>(&self) -> Result<Recorded<E>, StoreError> {
        self.recorded(|envelope| {
            let event = E::decode(envelope)?;
            envelope.check_place(&self.subject, event.entity_id())?;
            Ok(event)
        })
    }

    /// The event, if it is an `E` and stands where it belongs.
    pub(crate) fn event<E: Event>(&self) -> Result<Recorded<E>, StoreError> {
        self.recorded(|envelope| {
            let event: E = envelope.event()?;
            envelope.check_place(&self.subject, event.entity_id())?;
            Ok(event)
        })
    }

    fn recorded<E>(
        &self,
        decode: impl FnOnce(&Envelope<'_>) -> Result<E, DecodeError>,
    ) -> Result<Recorded<E>, StoreError> {
        let corrupt =
            |source| StoreError::Corrupt { subject: self.subject.clone(), sequence: self.sequence, source };
        let envelope = Envelope::decode(&self.payload).map_err(corrupt)?;
        Ok(Recorded {
            event: decode(&envelope).map_err(corrupt)?,
            meta: Metadata { trace: self.trace.clone(), ..envelope.metadata().map_err(corrupt)? },
            version: self.version(),
            sequence: self.sequence,
            stored_at: self.time,
        })
    }
}
