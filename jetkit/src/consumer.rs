//! A consumer: the life of one delivery is [`Consumer::process`]. Read that first.
//!
//! `process` decides and settles nothing; the runtime (`consumer/runtime.rs`) feeds it, keeps events of one entity in order,
//! extends deadlines, has marked what was handled, and settles what was decided.

mod breaker;
mod circuit;
mod durable;
mod held;
mod lag;
mod pause;
mod pull;
mod run;
mod runtime;
mod settle;
mod workers;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;

use self::lag::Progress;
use crate::envelope::DecodeError;
use crate::failure::{self, causes, panic_message};
use crate::health::{CheckHandle, Operation};
use crate::inbox::{Claim, Ended, Grant, Inbox, Key, Marks, Turn};
use crate::jitter::jittered;
use crate::provision::Sizes;
use crate::subject::{self, EventSubject};
use crate::timers::due_prefix;
use crate::{
    EntityId, Envelope, Event, FailureClass, Handler, HandlerError, HandlerResult, Metadata, Recorded,
    TraceContext,
};

pub use circuit::Breaker;
pub use pause::{OpenCircuit, open_circuits};

/// A consumer under construction: a durable name, handlers, and limits.
///
/// ```no_run
/// # use jetkit::{Consumer, Event, EntityId, Handler, HandlerResult, Recorded};
/// # #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)] struct OrderPlaced { order_id: EntityId }
/// # impl Event for OrderPlaced { const TYPE: &'static str = "order.placed"; fn entity_id(&self) -> &EntityId { &self.order_id } }
/// struct Mailer;
/// impl Handler<OrderPlaced> for Mailer {
///     async fn handle(&self, order: Recorded<OrderPlaced>) -> HandlerResult {
///         println!("thank you for {}", order.order_id);
///         Ok(())
///     }
/// }
/// let consumer = Consumer::new("consumer-email").on::<OrderPlaced>(Mailer);
/// ```
pub struct Consumer {
    name: String,
    routes: HashMap<&'static str, Route>,
    adopted: HashMap<&'static str, Route>,
    timers: HashMap<&'static str, Route>,
    /// A type that two handlers were given for: only one of them could run.
    twice: Option<&'static str>,
    /// What stands before the subjects of its timers.
    due_prefix: String,
    limits: Limits,
    lanes: OrderingKey,
    service_version: String,
    inbox: Option<Arc<dyn Inbox>>,
    /// Suspects are handled one at a time.
    alone: tokio::sync::Mutex<()>,
    inbox_replicas: usize,
    sizes: Sizes,
    health: CheckHandle,
    /// Whether events can be claimed and marked.
    remembering: Operation,
    progress: Progress,
}

/// Reads an event of one type and makes its handler ready to run.
type Route = Box<dyn Fn(&Envelope<'_>, Place<'_>) -> Result<Routed, DecodeError> + Send + Sync>;

/// Where an event stands.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    /// Its own subject, without what stands before it where it is a timer's.
    subject: &'a str,
    version: u64,
    sequence: u64,
    /// It stands where another producer published it.
    as_it_came: bool,
    stored_at: DateTime<Utc>,
    trace: Option<&'a TraceContext>,
}

/// An event that was read.
struct Routed {
    entity: EntityId,
    handling: BoxFuture<'static, HandlerResult>,
}

/// Which events wait for one another. An event that waits for its retry holds up the later ones of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderingKey {
    /// Events of one entity are handled in stream order.
    Entity,
    /// Events that one outside request led to are handled in stream order; those that another producer published and that
    /// are adopted, apart from what is recorded of them. For a consumer of an entity that all requests share, such as a
    /// warehouse.
    Correlation,
}

/// The bounds of a consumer. Order is checked at start: `handler_timeout` + `ack_wait`/3 ≤ `ack_wait`, and
/// `handler_timeout` < `claim_lease` < `ack_wait`.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// A handler that runs longer is stopped, and the attempt has failed.
    handler_timeout: Duration,
    /// A claim without an end runs out after this.
    claim_lease: Duration,
    /// The server delivers again what was neither settled nor extended for this long. Extended at a third of it.
    ack_wait: Duration,
    /// How often a handler is started for one event.
    max_attempts: u32,
    /// The delay before the second attempt; doubled for each further one, with jitter.
    retry_min: Duration,
    /// The longest delay between attempts.
    retry_max: Duration,
    /// How many handlers run at once.
    concurrency: usize,
    /// How many messages are buffered or running; no more are pulled than there is room for.
    window: usize,
    /// How many bytes of messages are pulled, buffered or running. What waits for a retry has room in a quarter of it; the rest
    /// of what waits is let go of, and read again when it is due. One message alone may be larger.
    max_bytes: usize,
    /// How many unsettled messages the server allows to all replicas, those that wait for a retry included.
    max_ack_pending: usize,
    /// How long running handlers may take to end when the consumer is stopped.
    drain: Duration,
    /// How it waits for a dependency that is down.
    breaker: Breaker,
    /// The delay after the first postponement; doubled for each further one, with jitter.
    postpone_min: Duration,
    /// The longest delay between postponements.
    postpone_max: Duration,
    /// How often an event is postponed before it becomes a dead letter.
    max_postponements: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handler_timeout: Duration::from_secs(20),
            claim_lease: Duration::from_secs(25),
            ack_wait: Duration::from_secs(30),
            max_attempts: 5,
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
            concurrency: 64,
            window: 512,
            max_bytes: 32 * 1024 * 1024,
            max_ack_pending: 4096,
            drain: Duration::from_secs(10),
            breaker: Breaker::default(),
            postpone_min: Duration::from_mins(1),
            postpone_max: Duration::from_mins(15),
            // At least a day, with the shortest delays.
            max_postponements: 200,
        }
    }
}

impl Consumer {
    /// A consumer that keeps its place under `name`, the name of its durable. Renaming it starts from the beginning of
    /// the log, with an empty idempotency set: every effect is repeated.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            due_prefix: due_prefix(&name),
            name,
            routes: HashMap::new(),
            adopted: HashMap::new(),
            timers: HashMap::new(),
            twice: None,
            limits: Limits::default(),
            lanes: OrderingKey::Entity,
            service_version: "unknown".to_owned(),
            inbox: None,
            alone: tokio::sync::Mutex::default(),
            inbox_replicas: 1,
            sizes: Sizes::default(),
            health: CheckHandle::detached(),
            remembering: Operation::detached(),
            progress: Progress::default(),
        }
    }

    /// Handles an event type. Each type has one handler; a consumer that was given two for one does not start.
    #[must_use]
    pub fn on<E: Event>(mut self, handler: impl Handler<E>) -> Self {
        if self.routes.insert(E::TYPE, route::<E>(handler)).is_some() {
            self.twice = Some(E::TYPE);
        }
        self
    }

    /// Handles an event type as other producers publish it, in either wire form, on `<entity>.<event>` and
    /// `<entity>.<event>.<id>`. The owner of the entity does this, to record the event under its full subject
    /// ([`crate::Cause::adopting`]); it also gives a dead letter to whatever else stands on such subjects.
    #[must_use]
    pub fn adopt<E: Event>(mut self, handler: impl Handler<E>) -> Self {
        if self.adopted.insert(E::TYPE, route::<E>(handler)).is_some() {
            self.twice = Some(E::TYPE);
        }
        self
    }

    /// Handles a timer that was set for this consumer, by [`crate::Timers::set`].
    #[must_use]
    pub fn on_timer<E: Event>(mut self, handler: impl Handler<E>) -> Self {
        if self.timers.insert(E::TYPE, route::<E>(handler)).is_some() {
            self.twice = Some(E::TYPE);
        }
        self
    }

    /// Which events wait for one another; [`OrderingKey::Entity`] by default.
    #[must_use]
    pub fn ordered_by(self, lanes: OrderingKey) -> Self {
        Self { lanes, ..self }
    }

    /// How many handlers run at once, 64 by default.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.limits.concurrency = concurrency.max(1);
        self.limits.window = self.limits.window.max(self.limits.concurrency);
        self
    }

    /// How many messages are buffered or running, 512 by default.
    #[must_use]
    pub fn window(mut self, window: usize) -> Self {
        self.limits.window = window.max(self.limits.concurrency);
        self.limits.max_ack_pending = self.limits.max_ack_pending.max(window);
        self
    }

    /// How many bytes of messages are held at once, those that wait for a retry included; 32 MiB by default. A single message
    /// that is larger is handled alone.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_bytes = bytes;
        self
    }

    /// How often a handler is started for one event before it becomes a dead letter, 5 by default.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.limits.max_attempts = attempts.max(1);
        self
    }

    /// The delay before the second attempt, doubled for each further one up to the longest; half a second and half a
    /// minute by default. Delays are shortened at random by up to half.
    #[must_use]
    pub fn retry_delays(mut self, first: Duration, longest: Duration) -> Self {
        (self.limits.retry_min, self.limits.retry_max) = (first, longest.max(first));
        self
    }

    /// How long one attempt may take, how long its claim is good for, and how long the server waits for a sign of life;
    /// 20, 25 and 30 seconds by default. Each must be longer than the one before, and the handler's time at most
    /// two thirds of the last.
    #[must_use]
    pub fn timeouts(mut self, handler: Duration, claim_lease: Duration, ack_wait: Duration) -> Self {
        let limits = &mut self.limits;
        (limits.handler_timeout, limits.claim_lease, limits.ack_wait) = (handler, claim_lease, ack_wait);
        self
    }

    /// How long one attempt may take. The claim lease becomes 1.25 times this, `ack_wait` 1.5 times.
    #[must_use]
    pub fn handler_timeout(self, handler: Duration) -> Self {
        self.timeouts(handler, handler * 5 / 4, handler * 3 / 2)
    }

    /// How long running handlers may take to end when the consumer is stopped; 10 seconds by default.
    /// [`crate::Service::consume`] sets it.
    #[must_use]
    pub fn drain_within(mut self, drain: Duration) -> Self {
        self.limits.drain = drain;
        self
    }

    /// How an event waits that is postponed ([`HandlerError::Postpone`]): the delay after the first time, doubled for each
    /// further one up to the longest, and how often before it becomes a dead letter. A minute, a quarter of an hour and 200
    /// times by default, which is a day at least. Delays are shortened at random by up to half.
    #[must_use]
    pub fn postponements(mut self, first: Duration, longest: Duration, times: u32) -> Self {
        let limits = &mut self.limits;
        (limits.postpone_min, limits.postpone_max, limits.max_postponements) = (first, longest, times);
        self
    }

    /// How it waits for a dependency that is down ([`HandlerError::Unavailable`]). Its events share one circuit, whatever
    /// each of them depends on.
    #[must_use]
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.limits.breaker = breaker;
        self
    }

    /// Another idempotency set than the durable one in JetStream.
    #[must_use]
    pub fn inbox(self, inbox: Arc<dyn Inbox>) -> Self {
        Self { inbox: Some(inbox), ..self }
    }

    /// The version of the program, for its dead letters. [`crate::Service::consume`] sets it.
    #[must_use]
    pub fn service_version(self, version: impl Into<String>) -> Self {
        Self { service_version: version.into(), ..self }
    }

    /// Replicas of the idempotency set on a cluster. [`crate::Service::consume`] sets it.
    #[must_use]
    pub fn replicas(self, replicas: usize) -> Self {
        Self { inbox_replicas: replicas, ..self }
    }

    /// How large its idempotency set may become. [`crate::Service::consume`] sets it.
    #[must_use]
    pub fn sizes(self, sizes: Sizes) -> Self {
        Self { sizes, ..self }
    }

    /// Where to report whether messages are coming. [`crate::Service::consume`] sets it.
    #[must_use]
    pub fn health(self, health: CheckHandle) -> Self {
        let remembering = Operation::new(health.beside("idempotency set"), "in use");
        Self { health, remembering, ..self }
    }

    /// The name of its durable.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The subjects that it asks for, sorted.
    pub fn filters(&self) -> Vec<String> {
        let mut filters: Vec<_> = self.routes.keys().map(|event_type| subject::of_type(event_type)).collect();
        filters.extend(
            self.adopted.keys().flat_map(|event_type| subject::foreign(subject::entity_of(event_type))),
        );
        filters.sort();
        filters.dedup();
        filters
    }
}

fn route<E: Event>(handler: impl Handler<E>) -> Route {
    let handler = Arc::new(handler);
    Box::new(move |envelope, place| {
        let Place { subject, version, sequence, as_it_came, stored_at, trace } = place;
        let event = envelope.event::<E>()?;
        let entity = event.entity_id().clone();
        envelope.check_place(subject, &entity)?;
        let mut meta = Metadata { trace: trace.cloned(), ..envelope.metadata()? };
        if meta.data_version == 0 {
            meta.data_version = E::VERSION;
        }
        if as_it_came {
            // Whatever it names as its cause, the kit did not record it: see [`crate::Cause::event`].
            meta.causation_id = None;
        }
        let (handler, event) = (Arc::clone(&handler), Recorded { event, meta, version, sequence, stored_at });
        Ok(Routed { entity, handling: async move { handler.handle(event).await }.boxed() })
    })
}

/// One delivery of a message, apart from how it is settled.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// The subject that it was published on; of a redriven one, the original.
    pub(crate) subject: Subject,
    pub(crate) payload: Bytes,
    pub(crate) trace: Option<TraceContext>,
    /// Its position in its stream; of a redriven one, the original's.
    pub(crate) sequence: u64,
    /// When the server stored it; of a redriven one, its redrive.
    pub(crate) stored_at: DateTime<Utc>,
    pub(crate) turn: Turn,
    /// How often it was redriven from the dead letters.
    pub(crate) redrives: u32,
    /// When an attempt in this process failed first.
    pub(crate) first_failed_at: Option<DateTime<Utc>>,
}

/// What is to be done with a delivery.
#[derive(Debug)]
pub(crate) enum Disposition {
    /// It is handled now. Mark it, with others, then tell the server.
    Handled(Marks),
    /// It was handled before. Tell the server.
    Ack,
    /// Try it again after a while; it keeps its place in its lane.
    Retry { after: Duration, first_failed_at: Option<DateTime<Utc>> },
    /// Try it again after a long while: what it depends on has answered. It keeps its place in its lane.
    Postponed { after: Duration, first_failed_at: DateTime<Utc> },
    /// Keep it until what it depends on is back.
    Unavailable { outage: Outage, first_failed_at: DateTime<Utc> },
    /// Store it as a dead letter, mark it as done, then tell the server.
    DeadLetter(GivenUp),
}

/// What is down, and how that was noticed: in one line, without what an operator may not see.
#[derive(Debug, Clone)]
pub(crate) struct Outage {
    dependency: &'static str,
    reason: String,
}

/// Why a delivery is given up.
#[derive(Debug)]
pub(crate) struct GivenUp {
    pub(crate) marks: Option<Marks>,
    pub(crate) class: FailureClass,
    pub(crate) errors: Vec<String>,
    pub(crate) attempts: u32,
    pub(crate) first_failed_at: DateTime<Utc>,
}

impl Consumer {
    /// The life of one delivery: decode, claim, handle, and say what is to become of it. It settles nothing: no ack is sent
    /// here and no dead letter stored, and what was handled is marked by the runtime, many in one write. What it asks of
    /// the broker, it asks the idempotency set, behind [`Inbox`].
    async fn process(&self, inbox: &dyn Inbox, delivery: &Delivery) -> Disposition {
        let (marks, handling) = match self.decode(delivery) {
            Ok(decoded) => decoded,
            Err(error) => {
                return self.give_up(delivery, None, FailureClass::Undecodable, &error.into(), 0, None);
            }
        };
        let key = marks.event;
        // One that may have killed this process before must not take its neighbours with it.
        let _alone = if inbox.is_suspect(key) { Some(self.alone.lock().await) } else { None };
        let grant = match inbox.claim(key, delivery.turn).await {
            Ok(Claim::Granted(grant)) => {
                // A first delivery is only looked up.
                if delivery.turn == Turn::Again {
                    self.remembering.succeeded();
                }
                grant
            }
            Ok(Claim::Done) => return self.done_before(inbox, delivery, marks),
            Ok(Claim::Held) => return wait_for(delivery, self.limits.claim_lease / 5),
            Err(error) => {
                tracing::warn!(
                    consumer.name = self.name,
                    event.subject = delivery.subject.as_str(),
                    event.sequence = delivery.sequence,
                    %error,
                    "cannot claim an event; trying again",
                );
                self.remembering.failed(format_args!("events cannot be claimed: {error}"));
                return wait_for(delivery, self.limits.retry_min);
            }
        };
        let first_failed_at = grant.first_failed_at.or(delivery.first_failed_at);
        // A redelivery without a claim may be of an event that was only given back: that it was started is not proven.
        if grant.attempt > self.limits.max_attempts.max(2) {
            return self.give_up_started_too_often(delivery, marks, grant, first_failed_at);
        }
        match self.handle(handling).await {
            Ok(()) => Disposition::Handled(marks),
            Err(HandlerError::Reject(error)) => self.give_up(
                delivery,
                Some(marks),
                FailureClass::Rejected,
                &error,
                grant.attempt,
                first_failed_at,
            ),
            Err(HandlerError::Unavailable { dependency, error }) => {
                self.put_off(inbox, key, delivery, grant, dependency, &error).await
            }
            Err(HandlerError::Postpone(error)) if grant.postponed < self.limits.max_postponements => {
                self.postpone(inbox, key, delivery, grant, &error).await
            }
            Err(HandlerError::Retry(error)) if grant.attempt < self.limits.max_attempts => {
                self.retry(inbox, key, delivery, grant, &error).await
            }
            Err(HandlerError::Retry(error) | HandlerError::Postpone(error)) => self.give_up(
                delivery,
                Some(marks),
                FailureClass::Exhausted,
                &error,
                grant.attempt,
                first_failed_at,
            ),
        }
    }

    /// Reads the event and makes its handler ready to run.
    fn decode(&self, delivery: &Delivery) -> Result<(Marks, BoxFuture<'static, HandlerResult>), DecodeError> {
        let envelope = Envelope::decode(&delivery.payload)?;
        let due = delivery.subject.strip_prefix(&self.due_prefix);
        let stored = EventSubject::parse(due.unwrap_or(&delivery.subject));
        let routes = match (due, stored) {
            (Some(_), _) => &self.timers,
            (None, Some(_)) => &self.routes,
            (None, None) => &self.adopted,
        };
        let route = routes
            .get(envelope.event_type())
            .ok_or_else(|| DecodeError::UnknownType(envelope.event_type().to_owned()))?;
        let place = Place {
            subject: due.unwrap_or(&delivery.subject),
            version: stored.map_or(0, |subject| subject.version),
            sequence: delivery.sequence,
            as_it_came: due.is_none() && stored.is_none(),
            stored_at: delivery.stored_at,
            trace: delivery.trace.as_ref(),
        };
        let read = std::panic::catch_unwind(AssertUnwindSafe(|| route(&envelope, place)));
        let Routed { entity, handling } = read.unwrap_or_else(|panic| {
            let event_type = envelope.event_type().to_owned();
            Err(DecodeError::Panicked { event_type, panic: panic_message(&*panic).to_owned() })
        })?;
        let at = (delivery.subject.as_str(), delivery.sequence, delivery.redrives);
        Ok((Marks::of(&envelope, &entity, place.as_it_came, at), handling))
    }

    /// What becomes of an event that is marked already.
    fn done_before(&self, inbox: &dyn Inbox, delivery: &Delivery, marks: Marks) -> Disposition {
        match marks.content {
            // It came again with something else to say. Which of the two is meant, only its producer knows.
            Some(content) if !inbox.is_done(content) => {
                let marks = Marks { event: content, content: None };
                let error = anyhow::anyhow!(
                    "an event of the same source, id, type and entity was handled, and said something else: have this one \
                     sent again under an id of its own, and dismiss it"
                );
                self.give_up(delivery, Some(marks), FailureClass::Rejected, &error, 0, None)
            }
            _ => Disposition::Ack,
        }
    }

    /// Runs the handler. A panic and a time-out are failures like any other.
    async fn handle(&self, handling: BoxFuture<'static, HandlerResult>) -> HandlerResult {
        let limit = self.limits.handler_timeout;
        match tokio::time::timeout(limit, AssertUnwindSafe(handling).catch_unwind()).await {
            Ok(Ok(result)) => {
                self.progress.moved();
                result
            }
            Ok(Err(panic)) => {
                Err(HandlerError::Retry(anyhow::anyhow!("the handler panicked: {}", panic_message(&*panic))))
            }
            Err(_) => Err(HandlerError::Retry(anyhow::anyhow!("the handler did not end within {limit:?}"))),
        }
    }

    async fn retry(
        &self,
        inbox: &dyn Inbox,
        key: Key,
        delivery: &Delivery,
        grant: Grant,
        error: &anyhow::Error,
    ) -> Disposition {
        let attempt = grant.attempt;
        let Limits { retry_min, retry_max, .. } = self.limits;
        let after = nth_delay(attempt, retry_min, retry_max);
        let ended = ended(delivery, grant, attempt);
        tracing::warn!(
            consumer.name = self.name,
            event.subject = delivery.subject.as_str(),
            event.sequence = delivery.sequence,
            attempt,
            ?after,
            error = causes(error).join(": "),
            "a handler failed; trying again",
        );
        metrics::counter!("jetkit_handler_failures_total", "consumer" => self.name.clone()).increment(1);
        if delivery.turn != Turn::First
            && let Err(error) = inbox.release(key, ended).await
        {
            tracing::debug!(%error, "a claim was not released and has to run out");
        }
        Disposition::Retry { after, first_failed_at: Some(ended.first_failed_at) }
    }

    /// Gives the attempt back and counts the postponement.
    async fn postpone(
        &self,
        inbox: &dyn Inbox,
        key: Key,
        delivery: &Delivery,
        grant: Grant,
        error: &anyhow::Error,
    ) -> Disposition {
        let Limits { postpone_min, postpone_max, .. } = self.limits;
        let ended = ended(delivery, Grant { postponed: grant.postponed + 1, ..grant }, given_back(grant));
        let after = nth_delay(ended.postponed, postpone_min, postpone_max);
        tracing::info!(
            consumer.name = self.name,
            event.subject = delivery.subject.as_str(),
            event.sequence = delivery.sequence,
            postponed = ended.postponed,
            ?after,
            error = causes(error).join(": "),
            "an event is postponed",
        );
        metrics::counter!("jetkit_postponed_total", "consumer" => self.name.clone()).increment(1);
        if let Err(error) = inbox.release(key, ended).await {
            tracing::debug!(%error, "an attempt was not given back; it counts");
        }
        Disposition::Postponed { after, first_failed_at: ended.first_failed_at }
    }

    /// Gives the attempt back, and says what is down.
    async fn put_off(
        &self,
        inbox: &dyn Inbox,
        key: Key,
        delivery: &Delivery,
        grant: Grant,
        dependency: &'static str,
        error: &anyhow::Error,
    ) -> Disposition {
        let reason = failure::one_line(&causes(error).join(": "));
        tracing::debug!(
            consumer.name = self.name,
            event.subject = delivery.subject.as_str(),
            event.sequence = delivery.sequence,
            dependency,
            error = reason,
            "what an event depends on is down",
        );
        metrics::counter!("jetkit_unavailable_total", "consumer" => self.name.clone(), "dependency" => dependency)
            .increment(1);
        let ended = ended(delivery, grant, given_back(grant));
        if let Err(error) = inbox.release(key, ended).await {
            tracing::debug!(%error, "an attempt was not given back; it counts");
        }
        let first_failed_at = ended.first_failed_at;
        Disposition::Unavailable { outage: Outage { dependency, reason }, first_failed_at }
    }

    fn give_up_started_too_often(
        &self,
        delivery: &Delivery,
        marks: Marks,
        grant: Grant,
        first_failed_at: Option<DateTime<Utc>>,
    ) -> Disposition {
        let attempts = grant.attempt - 1;
        let (class, error) = if grant.unfinished {
            (FailureClass::Crashed, "the handler was started and never came to an end")
        } else {
            (FailureClass::Exhausted, "the handler failed as often as it may")
        };
        let error = anyhow::anyhow!("{error}, {attempts} times");
        self.give_up(delivery, Some(marks), class, &error, attempts, first_failed_at)
    }

    fn give_up(
        &self,
        delivery: &Delivery,
        marks: Option<Marks>,
        class: FailureClass,
        error: &anyhow::Error,
        attempts: u32,
        first_failed_at: Option<DateTime<Utc>>,
    ) -> Disposition {
        let errors = causes(error);
        tracing::error!(
            consumer.name = self.name,
            event.subject = delivery.subject.as_str(),
            event.sequence = delivery.sequence,
            %class,
            attempts,
            error = errors.join(": "),
            "dead letter",
        );
        let first_failed_at = first_failed_at.unwrap_or_else(Utc::now);
        Disposition::DeadLetter(GivenUp { marks, class, errors, attempts, first_failed_at })
    }
}

/// Exponential, capped, shortened at random by up to half.
fn nth_delay(n: u32, first: Duration, longest: Duration) -> Duration {
    jittered(first.saturating_mul(1 << n.saturating_sub(1).min(20)).min(longest))
}

/// How many attempts count when this one does not. One before it that a process which died had begun does not count either:
/// this one shows that the event lets its handler come to an end.
fn given_back(grant: Grant) -> u32 {
    grant.attempt.saturating_sub(if grant.unfinished { 2 } else { 1 })
}

fn ended(delivery: &Delivery, grant: Grant, attempts: u32) -> Ended {
    let first_failed_at = grant.first_failed_at.or(delivery.first_failed_at).unwrap_or_else(Utc::now);
    Ended { attempts, postponed: grant.postponed, first_failed_at }
}

/// Not now, and not because the event failed.
fn wait_for(delivery: &Delivery, after: Duration) -> Disposition {
    Disposition::Retry { after: jittered(after), first_failed_at: delivery.first_failed_at }
}
