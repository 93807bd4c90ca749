//! Publishing events that belong to no aggregate, in the three ways that users know.
//!
//! An aggregate's events are published by being stored: see [`crate::EventStore::execute`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::jitter::jittered;
use crate::log::{Ack, Outgoing, PublishFailure};
use crate::{Cause, Envelope, Event, EventId, EventLog, Metadata, subject};

/// How many publishes of one publisher wait for their acknowledgement at once.
const WINDOW: usize = 256;

/// Between attempts: doubled for each further one, and shortened at random by up to half.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Publishes events that stand for themselves: a reading, a signal. Cheap to clone; clones share the window.
///
/// | method | success means | lost when |
/// |---|---|---|
/// | [`publish`](Self::publish) | stored by the server | never, once acknowledged (see the server's durability) |
/// | [`publish_async`](Self::publish_async) | taken by the client | the connection or the process dies, the stream is full |
/// | [`request`](Self::request) | answered by a responder | nothing is stored |
#[derive(Debug, Clone)]
pub struct Publisher {
    log: EventLog,
    window: Arc<Semaphore>,
}

/// The server has stored an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The event's id.
    pub id: EventId,
    /// Its position on the log.
    pub sequence: u64,
    /// It was stored before, within the stream's duplicate window; `sequence` is the first one's.
    pub duplicate: bool,
}

impl EventLog {
    /// A publisher of events that belong to no aggregate.
    pub fn publisher(&self) -> Publisher {
        Publisher { log: self.clone(), window: Arc::new(Semaphore::new(WINDOW)) }
    }
}

impl Publisher {
    /// The same with at most `window` publishes waiting for their acknowledgement; past that, `publish` waits.
    #[must_use]
    pub fn with_window(self, window: usize) -> Self {
        Self { window: Arc::new(Semaphore::new(window.max(1))), ..self }
    }

    /// Stores an event and awaits the acknowledgement. Each call is one future with its own deadline, so a caller
    /// pipelines by running many at once, as far as the window allows.
    ///
    /// A time-out or a lost connection is tried again with the same `Nats-Msg-Id`, so that it is stored once (within the
    /// stream's duplicate window), until the log's deadline.
    pub async fn publish<E: Event>(&self, event: &E, cause: &Cause) -> Result<Receipt, PublishError> {
        let draft = self.draft(event, cause);
        let _permit = self.window.acquire().await.map_err(|_| PublishError::unavailable("closed"))?;
        let Ack { sequence, duplicate } = publish_retrying(&self.log, || draft.outgoing()).await?;
        self.log.written().note(E::TYPE, sequence);
        Ok(Receipt { id: draft.meta.id, sequence, duplicate })
    }

    /// Hands an event to the client and does not wait: fire and forget, over core NATS. It is lost without a
    /// trace when the connection or the process dies before it is sent, or when the server does not store it. For
    /// what may be lost only.
    pub async fn publish_async<E: Event>(&self, event: &E, cause: &Cause) -> Result<EventId, PublishError> {
        let draft = self.draft(event, cause);
        let Outgoing { subject, headers, payload } = draft.outgoing()?;
        let sent = self.log.client().publish_with_headers(subject, headers, payload);
        tokio::time::timeout(self.log.deadline(), sent)
            .await
            .map_err(|_| PublishError::unavailable("the client's queue is full"))?
            .map_err(PublishError::unavailable)?;
        Ok(draft.meta.id)
    }

    /// Asks whoever answers on `subject` and waits for the answer, at most `wait`. Nothing is stored; the subject must
    /// not be one that a stream captures.
    pub async fn request<Q: Serialize, R: DeserializeOwned>(
        &self,
        subject: &str,
        question: &Q,
        wait: Duration,
    ) -> Result<R, RequestError> {
        use async_nats::client::RequestErrorKind;
        let body = serde_json::to_vec(question).map_err(RequestError::Encode)?;
        let request = Request::new().payload(body.into()).timeout(None);
        let answer = tokio::time::timeout(wait, self.log.client().send_request(subject.to_owned(), request))
            .await
            .map_err(|_| RequestError::TimedOut(wait))?
            .map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => RequestError::NoResponder,
                _ => RequestError::Failed(error.to_string()),
            })?;
        serde_json::from_slice(&answer.payload).map_err(RequestError::Decode)
    }

    fn draft<'a, E: Event>(&self, event: &'a E, cause: &'a Cause) -> Draft<'a, E> {
        let id = cause.event_id(E::TYPE, event.entity_id(), 0);
        Draft { event, cause, meta: cause.metadata(self.log.source(), (E::TYPE, E::VERSION), id) }
    }
}

/// What messages are made of, the same one for each attempt.
struct Draft<'a, E> {
    event: &'a E,
    cause: &'a Cause,
    meta: Metadata,
}

impl<E: Event> Draft<'_, E> {
    fn outgoing(&self) -> Result<Outgoing, PublishError> {
        let entity = self.event.entity_id();
        let message_id = self.cause.message_id(E::TYPE, entity, &self.meta.id);
        let payload = Envelope::encode(&self.meta, self.event)?;
        Ok(Outgoing::event(subject::event(E::TYPE, entity, 0), &message_id, self.cause, payload))
    }
}

/// Publishes until it is acknowledged, refused, or the log's deadline has passed; always the same `message`.
pub(crate) async fn publish_retrying(
    log: &EventLog,
    message: impl Fn() -> Result<Outgoing, PublishError>,
) -> Result<Ack, PublishError> {
    let started = Instant::now();
    let (mut left, mut pause) = (log.deadline(), FIRST_PAUSE);
    loop {
        let failure = match log.publish_once(message()?, left).await {
            Err(failure @ (PublishFailure::Unknown(_) | PublishFailure::Unavailable(_))) => failure,
            answered => return answered.map_err(PublishError::from),
        };
        left = log.deadline().saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(PublishError::unavailable(format!("not acknowledged within {:?}", log.deadline())));
        }
        tracing::debug!(error = %failure, ?pause, "publish again");
        tokio::time::sleep(jittered(pause).min(left)).await;
        left = log.deadline().saturating_sub(started.elapsed());
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// An event that was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Not acknowledged in time: perhaps stored, perhaps not. Publishing it again for the same cause is safe.
    #[error("the event log is not available: {0}")]
    Unavailable(String),
    /// Larger than the server or the stream takes. Nothing was stored.
    #[error("the event is too large: {0}")]
    TooLarge(String),
    /// Refused for good. Nothing was stored.
    #[error("the event log refuses the event: {0}")]
    Refused(String),
    /// The event cannot be written as JSON.
    #[error("the event cannot be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
}

impl PublishError {
    fn unavailable(reason: impl fmt::Display) -> Self {
        Self::Unavailable(format!("{reason}"))
    }
}

impl From<PublishFailure> for PublishError {
    fn from(failure: PublishFailure) -> Self {
        match failure {
            PublishFailure::TooLarge(reason) => Self::TooLarge(reason),
            PublishFailure::Refused(reason) | PublishFailure::Misplaced(reason) => Self::Refused(reason),
            PublishFailure::Conflict
            | PublishFailure::Unknown(_)
            | PublishFailure::Unavailable(_)
            | PublishFailure::Closed(_) => Self::Unavailable(failure.to_string()),
        }
    }
}

/// A request that brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody listens on the subject.
    #[error("nobody answers on this subject")]
    NoResponder,
    /// Somebody listens but did not answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The question cannot be written as JSON.
    #[error("the question cannot be written as JSON: {0}")]
    Encode(#[source] serde_json::Error),
    /// The answer is not what was expected.
    #[error("the answer is not what was expected: {0}")]
    Decode(#[source] serde_json::Error),
    /// The connection failed.
    #[error("the request failed: {0}")]
    Failed(String),
}
