//! The durable idempotency set: a stream that every replica writes to and follows.
//!
//! Stream `INBOX_<consumer>` has two kinds of messages. On `inbox.<consumer>.done` one message marks a whole batch of
//! events as handled (16 bytes each), so that a thousand marks cost one write. On `inbox.<consumer>.claim.<key>` stand the
//! attempts at one event, written with the expected sequence of the one before, so that of two claimants one wins.
//! Each replica keeps the set in memory, from the start and live; a claim is granted only after everything that was
//! written before the claim has been seen, so what another replica marked done is never missed.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Client;
use async_nats::header::{HeaderMap, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use async_nats::jetstream;
use async_nats::jetstream::stream::{Compression, Config, DirectGetErrorKind, DiscardPolicy, StorageType};
use bytes::{BufMut, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use metrics::Gauge;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::claims::{Claims, SeenClaim};
use super::{Claim, Ended, Grant, Inbox, InboxError, Key, Turn};
use crate::follow::{Followed, FollowedMessage, Follower};
use crate::log::{Outgoing, PublishFailure, publish_once};
use crate::provision;

/// How many events one write marks as done.
const MARKS_PER_WRITE: usize = 512;

/// One attempt at a write waits this long for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A mark is written again for this long before it is an error.
const MARK_WITHIN: Duration = Duration::from_secs(10);

/// How often its stream is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How an idempotency set is kept.
#[derive(Debug, Clone)]
pub struct InboxSettings {
    /// A claim without a mark runs out after this; longer than the handler's time-out, shorter than the consumer's `ack_wait`.
    pub lease: Duration,
    /// Marks are forgotten after this. Longer than the longest time after which an event may come again.
    pub max_age: Duration,
    /// At most this many marks are kept in memory (about 60 bytes each); the oldest go first.
    pub max_marks: usize,
    /// At most this many attempts at events that are not done are kept in memory (about 150 bytes each); the oldest go first.
    /// One that went is read from the stream when its event comes again, which then waits for a fifth of the lease. It may run
    /// beside others meanwhile although it may have killed the process before.
    pub max_claims: usize,
    /// Replicas of the stream on a cluster.
    pub replicas: usize,
    /// How large the stream may become; -1 for no limit. When it is full, nothing is marked until there is room.
    pub max_bytes: i64,
}

impl Default for InboxSettings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(25),
            max_age: Duration::from_hours(7 * 24),
            max_marks: 1_000_000,
            max_claims: 100_000,
            replicas: 1,
            max_bytes: -1,
        }
    }
}

/// The idempotency set of one consumer, in JetStream. Dropping it ends its task.
#[derive(Debug)]
pub struct JetStreamInbox {
    shared: Arc<Shared>,
    /// Cancelled when its task has ended, which it never should.
    ended: CancellationToken,
    _following: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    consumer: String,
    set: Mutex<Set>,
    marks: Gauge,
    claims: Gauge,
    /// The last sequence of the stream that the set contains.
    seen: watch::Sender<u64>,
    /// The connection, by its number, on which the set was last known to be complete.
    complete_on: AtomicU64,
}

impl JetStreamInbox {
    /// The set of `consumer`, loaded. Creates its stream if there is none.
    pub async fn open(client: Client, consumer: &str, settings: InboxSettings) -> anyhow::Result<Self> {
        let config = stream_config(consumer, &settings);
        let created = provision::bring(&jetstream::new(client.clone()), &config).await?.created;
        let shared = Arc::new(Shared {
            set: Mutex::new(Set::new(&settings)),
            client: client.clone(),
            consumer: consumer.to_owned(),
            marks: metrics::gauge!("jetkit_inbox_marks", "consumer" => consumer.to_owned()),
            claims: metrics::gauge!("jetkit_inbox_claims", "consumer" => consumer.to_owned()),
            seen: watch::Sender::new(0),
            complete_on: AtomicU64::new(0),
        });
        let connection = shared.connection();
        let mut follower = Follower::new(client, config.name.clone(), Vec::new(), 1);
        while let Followed::Message(message) = follower.next().await {
            shared.see(&message);
        }
        shared.complete_on.store(connection, Ordering::Release);
        let ended = CancellationToken::new();
        let following = watched(&ended, Arc::clone(&shared).follow(follower, config, created));
        Ok(Self { shared, ended, _following: AbortOnDropHandle::new(following) })
    }

    /// Cancelled when the set can do its work no more.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// How many events are marked in memory.
    pub fn len(&self) -> usize {
        self.shared.set().done.len()
    }

    /// Returns how many attempts at events that are not done are in memory.
    pub fn claims(&self) -> usize {
        self.shared.set().claims.len()
    }

    /// Whether nothing is marked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inbox for JetStreamInbox {
    fn claim(&self, key: Key, delivery: Turn) -> BoxFuture<'_, Result<Claim, InboxError>> {
        let shared = &self.shared;
        let complete = shared.complete_on.load(Ordering::Acquire) == shared.connection();
        if delivery == Turn::First && complete {
            let claim = shared.set().first(key);
            if let Some(claim) = claim {
                return futures::future::ready(Ok(claim)).boxed();
            }
        }
        shared.claim(key, delivery).boxed()
    }

    fn done<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<(), InboxError>> {
        self.shared.mark(keys).boxed()
    }

    fn release(&self, key: Key, ended: Ended) -> BoxFuture<'_, Result<(), InboxError>> {
        self.shared.release(key, ended).boxed()
    }

    fn is_suspect(&self, key: Key) -> bool {
        let set = self.shared.set();
        set.claims.get(key).is_some_and(|claim| !claim.finished && claim.until <= Instant::now())
    }

    fn is_done(&self, key: Key) -> bool {
        self.shared.set().done.contains(&key)
    }
}

/// Runs a task whose end, also by a panic, cancels `ended`.
pub(crate) fn watched(
    ended: &CancellationToken,
    task: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let guard = ended.clone().drop_guard();
    tokio::spawn(async move {
        let _guard = guard;
        task.await;
    })
}

/// The stream of a consumer's set. Renaming it forgets what was handled.
pub(crate) fn stream_name(consumer: &str) -> String {
    format!("INBOX_{consumer}")
}

pub(crate) fn stream_config(consumer: &str, settings: &InboxSettings) -> Config {
    Config {
        name: stream_name(consumer),
        description: Some(format!("idempotency set of {consumer}")),
        subjects: vec![format!("inbox.{consumer}.>")],
        storage: StorageType::File,
        max_age: settings.max_age,
        max_bytes: settings.max_bytes,
        // A mark that is dropped for a newer one would let its event have a second effect.
        discard: DiscardPolicy::New,
        num_replicas: settings.replicas,
        allow_direct: true,
        compression: Some(Compression::S2),
        ..Config::default()
    }
}

/// An attempt, as it stands in the stream.
#[derive(Debug, Serialize, Deserialize)]
struct Attempt {
    #[serde(rename = "attempt")]
    number: u32,
    /// It came to an end, and was not the last. The number is that of the attempts that count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    finished: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    postponed: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_failed_at: Option<DateTime<Utc>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Shared {
    /// The number of the present connection: how often one was established.
    fn connection(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Acquire)
    }

    fn set(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done_subject(&self) -> String {
        format!("inbox.{}.done", self.consumer)
    }

    fn claim_subject(&self, key: Key) -> String {
        format!("inbox.{}.claim.{key}", self.consumer)
    }

    /// The careful way: look, write the claim, see all that was written before it, look again.
    async fn claim(&self, key: Key, delivery: Turn) -> Result<Claim, InboxError> {
        let connection = self.connection();
        let (after, attempt, earlier) = match self.set().look(key, delivery) {
            Look::Answer(claim) => return Ok(claim),
            Look::Claim { after, attempt, earlier } => (after, attempt, earlier),
        };
        let first_failed_at = earlier.and_then(|claim| claim.first_failed_at);
        let postponed = earlier.map_or(0, |claim| claim.postponed);
        let begun = Attempt { number: attempt, finished: false, postponed, first_failed_at };
        let written = self.write_attempt(key, &begun, Some(after)).await;
        let sequence = match written {
            Ok(sequence) => sequence,
            // Another replica was first, or this one was and did not hear of it, or forgot: in each case, wait for it.
            Err(PublishFailure::Conflict) => return self.recall(key).await.map(|()| Claim::Held),
            Err(failure) => return Err(InboxError(failure.to_string())),
        };
        self.seen_up_to(sequence).await?;
        self.complete_on.store(connection, Ordering::Release);
        if self.set().done.contains(&key) {
            return Ok(Claim::Done);
        }
        let unfinished = earlier.is_some_and(|claim| !claim.finished);
        Ok(Claim::Granted(Grant { attempt, unfinished, postponed, first_failed_at }))
    }

    /// Reads the last attempt at an event from the stream: there was no room for it in memory, or it is not here yet.
    async fn recall(&self, key: Key) -> Result<(), InboxError> {
        let js = async_nats::jetstream::new(self.client.clone());
        let unavailable = |error: &dyn std::fmt::Display| InboxError(format!("reading a claim: {error}"));
        let stream =
            js.get_stream_no_info(stream_name(&self.consumer)).await.map_err(|error| unavailable(&error))?;
        let message = match stream.direct_get_last_for_subject(self.claim_subject(key)).await {
            Ok(message) => message,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                // Its stream was made again without it.
                self.set().claims.remove(key);
                return Ok(());
            }
            Err(error) => return Err(unavailable(&error)),
        };
        let attempt = serde_json::from_slice(&message.payload).map_err(|error| unavailable(&error))?;
        // How old it is only the server's clock could tell: it is taken for new.
        self.set().see_attempt(key, message.sequence, Duration::ZERO, &attempt);
        Ok(())
    }

    async fn release(&self, key: Key, ended: Ended) -> Result<(), InboxError> {
        let Ended { attempts, postponed, first_failed_at } = ended;
        let first_failed_at = Some(first_failed_at);
        let attempt = Attempt { number: attempts, finished: true, postponed, first_failed_at };
        let sequence = self
            .write_attempt(key, &attempt, None)
            .await
            .map_err(|failure| InboxError(failure.to_string()))?;
        self.seen_up_to(sequence).await
    }

    async fn write_attempt(
        &self,
        key: Key,
        attempt: &Attempt,
        after: Option<u64>,
    ) -> Result<u64, PublishFailure> {
        let payload =
            serde_json::to_vec(attempt).map_err(|error| PublishFailure::Refused(error.to_string()))?;
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, after.to_string());
        }
        let message = Outgoing { subject: self.claim_subject(key).into(), headers, payload: payload.into() };
        publish_once(&self.client, message, ANSWER_WITHIN).await.map(|ack| ack.sequence)
    }

    async fn seen_up_to(&self, sequence: u64) -> Result<(), InboxError> {
        let mut seen = self.seen.subscribe();
        let wait = seen.wait_for(|seen| *seen >= sequence);
        match tokio::time::timeout(MARK_WITHIN, wait).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(InboxError("it is not up to date".to_owned())),
        }
    }

    /// Keeps the set in memory up to date, for ever, and its stream there and as it must be.
    async fn follow(self: Arc<Self>, mut follower: Follower, config: Config, mut created: String) {
        let js = jetstream::new(self.client.clone());
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                followed = follower.next() => {
                    if let Followed::Message(message) = followed {
                        self.see(&message);
                    }
                }
                _ = look.tick() => match provision::bring(&js, &config).await {
                    Ok(found) if found.created != created => {
                        created = found.created;
                        self.begin_again();
                        follower = Follower::new(self.client.clone(), config.name.clone(), Vec::new(), 1);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "the idempotency set's stream cannot be looked at"),
                }
            }
        }
    }

    /// Goes on with another stream of the same name, after the one before was deleted. What is marked in memory stays
    /// marked; each delivery is looked at with care until the other stream is known.
    fn begin_again(&self) {
        tracing::error!(
            consumer.name = self.consumer,
            "the idempotency set's stream was deleted and made again: marks that only it had are lost"
        );
        self.complete_on.store(0, Ordering::Release);
        self.seen.send_replace(0);
        self.set().claims.clear();
    }

    fn see(&self, message: &FollowedMessage) {
        let subject = message.message.subject.as_str();
        let mut set = self.set();
        if let Some(key) = subject.rsplit_once(".claim.").and_then(|(_, key)| uuid::Uuid::try_parse(key).ok())
        {
            match serde_json::from_slice::<Attempt>(&message.message.payload) {
                Ok(attempt) => set.see_attempt(Key(key.as_u128()), message.sequence, message.age, &attempt),
                Err(error) => tracing::warn!(%error, subject, "an unreadable claim is ignored"),
            }
        } else {
            for mark in message.message.payload.chunks_exact(size_of::<u128>()) {
                let mark = mark.try_into().map_or(0, u128::from_be_bytes);
                set.mark(Key(mark), message.age);
            }
        }
        set.forget_old();
        self.marks.set(lossy(set.done.len()));
        self.claims.set(lossy(set.claims.len()));
        drop(set);
        self.seen.send_replace(message.sequence);
    }

    async fn mark(&self, keys: &[Key]) -> Result<(), InboxError> {
        for keys in keys.chunks(MARKS_PER_WRITE) {
            let mut payload = BytesMut::with_capacity(keys.len() * size_of::<u128>());
            for key in keys {
                payload.put_u128(key.0);
            }
            self.write_marks(payload.freeze()).await?;
            let mut set = self.set();
            for key in keys {
                set.mark(*key, Duration::ZERO);
            }
        }
        Ok(())
    }

    async fn write_marks(&self, payload: Bytes) -> Result<(), InboxError> {
        let message = Outgoing { subject: self.done_subject().into(), headers: HeaderMap::new(), payload };
        let deadline = Instant::now() + MARK_WITHIN;
        loop {
            match publish_once(&self.client, message.clone(), ANSWER_WITHIN).await {
                Ok(_) => return Ok(()),
                Err(PublishFailure::Unknown(_) | PublishFailure::Unavailable(_))
                    if Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(20..=200))).await;
                }
                Err(failure) => return Err(InboxError(failure.to_string())),
            }
        }
    }
}

/// The set in memory. It compares no two clocks: how old a message was when it was loaded, the server's clock alone says;
/// from then on, and for what comes later, time is measured by this process's monotonic clock.
#[derive(Debug)]
struct Set {
    lease: Duration,
    max_age: Duration,
    max_marks: usize,
    done: HashSet<Key>,
    /// The marks, oldest first, and until when each is kept.
    order: VecDeque<(Instant, Key)>,
    /// The latest attempt at each event that is not done.
    claims: Claims,
}

enum Look {
    Answer(Claim),
    /// Write a claim after the message `after`.
    Claim {
        after: u64,
        attempt: u32,
        earlier: Option<SeenClaim>,
    },
}

impl Set {
    fn new(settings: &InboxSettings) -> Self {
        Self {
            lease: settings.lease,
            max_age: settings.max_age,
            max_marks: settings.max_marks.max(1),
            done: HashSet::new(),
            order: VecDeque::new(),
            claims: Claims::new(settings.max_claims),
        }
    }

    /// The cheap answer to a first delivery; none if there is a claim already, which asks for care.
    fn first(&self, key: Key) -> Option<Claim> {
        if self.done.contains(&key) {
            return Some(Claim::Done);
        }
        self.claims.get(key).is_none().then_some(Claim::Granted(Grant::first()))
    }

    fn look(&self, key: Key, delivery: Turn) -> Look {
        if self.done.contains(&key) {
            return Look::Answer(Claim::Done);
        }
        match self.claims.get(key) {
            Some(claim) if !claim.finished && claim.until > Instant::now() => Look::Answer(Claim::Held),
            Some(claim) => {
                let attempt = claim.attempt.saturating_add(1);
                Look::Claim { after: claim.sequence, attempt, earlier: Some(*claim) }
            }
            // Before a redelivery there was a first delivery, of which nothing was written down.
            None => {
                Look::Claim { after: 0, attempt: if delivery == Turn::Again { 2 } else { 1 }, earlier: None }
            }
        }
    }

    fn see_attempt(&mut self, key: Key, sequence: u64, age: Duration, attempt: &Attempt) {
        if self.done.contains(&key) {
            return;
        }
        let seen = SeenClaim {
            sequence,
            attempt: attempt.number,
            finished: attempt.finished,
            until: Instant::now() + self.lease.saturating_sub(age),
            postponed: attempt.postponed,
            first_failed_at: attempt.first_failed_at,
        };
        let dropped = self.claims.see(key, seen);
        if dropped > 0 {
            metrics::counter!("jetkit_inbox_claims_dropped_total").increment(dropped);
        }
    }

    fn mark(&mut self, key: Key, age: Duration) {
        if self.done.insert(key) {
            self.order.push_back((Instant::now() + self.max_age.saturating_sub(age), key));
            self.claims.remove(key);
        }
    }

    fn forget_old(&mut self) {
        let now = Instant::now();
        // The stream has forgotten them too.
        self.claims.forget_while(|claim| claim.until + self.max_age < now);
        while let Some((until, key)) = self.order.front() {
            let aged = *until < now;
            if !aged && self.order.len() <= self.max_marks {
                break;
            }
            if !aged {
                metrics::counter!("jetkit_inbox_marks_dropped_total").increment(1);
            }
            self.done.remove(key);
            self.order.pop_front();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn lossy(n: usize) -> f64 {
    n as f64
}
