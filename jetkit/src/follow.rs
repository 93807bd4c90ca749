//! [`Follower`]: a stream read in order from some sequence on, for ever, without acks and without gaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, StatusCode, Subject, Subscriber};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::{debug, warn};

use crate::delivered::{self, Delivered, HEARTBEAT, Place};
use crate::direct;
use crate::jitter::jittered;

/// How much one pull asks for. More than one round trip's worth, less than would crowd the memory.
const BATCH_MESSAGES: usize = 1000;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// How often to see whether the client had to connect anew.
const LOOK_AT_CONNECTION: Duration = Duration::from_millis(100);

/// After this long without a pull the server forgets the consumer.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(1);

const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Reads a stream in order. It heals itself: after a server restart, a leader change, a deleted consumer or a lost
/// message it goes on at the message after the last one that it gave out, so it never ends, skips or repeats.
///
/// It uses an ephemeral consumer without acks, kept in the server's memory.
#[derive(Debug)]
pub struct Follower {
    context: Context,
    stream: String,
    filters: Vec<String>,
    /// The sequence of the next message that may be given out.
    next_sequence: u64,
    source: Option<Source>,
    /// Whether the caller was told that it has everything, since the source was opened.
    told_caught_up: bool,
    /// How often it failed in a row.
    failures: Arc<AtomicU32>,
    /// How often a source was opened.
    opens: u64,
}

struct Source {
    consumer: Consumer<Config>,
    answers: Subscriber,
    inbox: Subject,
    /// How many messages and bytes may still come of what was asked for.
    asked: (usize, usize),
    /// When the server last put something into the inbox.
    heard: Instant,
    /// How many messages this consumer has delivered to us; a gap in its numbers is a lost message.
    delivered: u64,
    /// How many were still to come after the last one.
    pending: u64,
    /// When the server created it, by the server's clock.
    opened_at: DateTime<Utc>,
    /// Which connection it was opened on. A restarted server has forgotten the consumer, and says so only to those
    /// who ask.
    connects: u64,
    look_at_connection: Interval,
}

/// What [`Follower::next`] gives out.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every one is a message, and boxing costs an allocation each"
)]
pub enum Followed {
    /// The next message.
    Message(FollowedMessage),
    /// There is nothing more right now. Said once each time the end is reached after being opened or healed, and on an
    /// empty stream too.
    CaughtUp,
}

/// One message of the stream.
#[derive(Debug)]
pub struct FollowedMessage {
    /// Subject, headers and payload.
    pub message: async_nats::Message,
    /// Its position on the stream.
    pub sequence: u64,
    /// How many messages were known to come after it.
    pub pending: u64,
    /// When the server stored it.
    pub time: DateTime<Utc>,
    /// How old it was when following was begun, by the server's clock alone; zero for one that was stored since.
    pub age: Duration,
}

impl Follower {
    /// Follows `stream` from `from_sequence` on; only what matches one of `filters`, or everything if there are none.
    pub fn new(client: Client, stream: impl Into<String>, filters: Vec<String>, from_sequence: u64) -> Self {
        Self {
            context: jetstream::new(client),
            stream: stream.into(),
            filters,
            next_sequence: from_sequence.max(1),
            source: None,
            told_caught_up: false,
            failures: Arc::default(),
            opens: 0,
        }
    }

    /// The same, with its failures in a row counted where somebody else sees them too.
    pub(crate) fn counting_failures(self, failures: Arc<AtomicU32>) -> Self {
        Self { failures, ..self }
    }

    /// The next message, or the news that there is none at the moment. Waits as long as it takes: a server that is
    /// away is logged and waited for. May be dropped and called again (in a `select!`) without losing anything.
    pub async fn next(&mut self) -> Followed {
        loop {
            self.opened().await;
            match self.try_next().await {
                Ok(followed) => {
                    self.failures.store(0, Ordering::Relaxed);
                    return followed;
                }
                Err(error) => self.pause_after(&error).await,
            }
        }
    }

    /// Waits until the stream is being followed. [`Follower::next`] does this by itself; a caller that drops its waits
    /// often calls this first, outside its `select!`, so that opening is not begun anew each time.
    pub async fn opened(&mut self) {
        while self.source.is_none() {
            match self.open().await {
                Ok(source) => {
                    self.source = Some(source);
                    self.told_caught_up = false;
                    self.opens += 1;
                }
                Err(error) => self.pause_after(&error).await,
            }
        }
    }

    /// How often following was begun or begun anew. What was given out since the last time may come from another stream of
    /// the same name.
    pub(crate) fn times_opened(&self) -> u64 {
        self.opens
    }

    /// Up to which sequence the stream is known to hold nothing that was not given out; [`None`] while messages are on
    /// their way or the server is away. It moves past messages that the filters leave out.
    pub async fn scanned(&mut self) -> Option<u64> {
        let source = self.source.as_mut()?;
        let last = direct::last(&self.context.client(), &self.stream, ">").await.ok()??;
        let state = source.consumer.get_info().await.ok()?;
        let nothing_on_its_way =
            state.num_pending == 0 && state.delivered.consumer_sequence == source.delivered;
        nothing_on_its_way.then(|| last.sequence.max(self.next_sequence - 1))
    }

    async fn try_next(&mut self) -> anyhow::Result<Followed> {
        let source = self.source.as_mut().context("not opened")?;
        if source.pending == 0 && !self.told_caught_up {
            self.told_caught_up = true;
            return Ok(Followed::CaughtUp);
        }
        let (message, place) = source.next(&self.context).await?;
        let Place { sequence, pending, .. } = place;
        anyhow::ensure!(
            place.consumer_sequence == source.delivered + 1 && sequence >= self.next_sequence,
            "message {sequence} is not the next one"
        );
        source.delivered += 1;
        source.pending = pending;
        self.next_sequence = sequence + 1;
        let time = DateTime::from_timestamp_nanos(place.stored_at);
        let age = source.opened_at.signed_duration_since(time).to_std().unwrap_or_default();
        Ok(Followed::Message(FollowedMessage { message, sequence, pending, time, age }))
    }

    async fn open(&self) -> anyhow::Result<Source> {
        let config = Config {
            description: Some("follower".into()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next_sequence },
            ack_policy: AckPolicy::None,
            filter_subjects: self.filters.clone(),
            inactive_threshold: FORGOTTEN_AFTER,
            num_replicas: 1,
            memory_storage: true,
            ..Config::default()
        };
        let connects = connects(&self.context);
        let consumer = self.context.create_consumer_on_stream(config, self.stream.as_str()).await?;
        let (pending, opened_at) = (consumer.cached_info().num_pending, consumer.cached_info().created);
        let client = self.context.client();
        let inbox = Subject::from(client.new_inbox());
        let answers = client.subscribe(inbox.clone()).await?;
        debug!(stream.name = self.stream, stream.sequence = self.next_sequence, pending, "following");
        let mut look_at_connection = tokio::time::interval(LOOK_AT_CONNECTION);
        look_at_connection.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Ok(Source {
            consumer,
            answers,
            inbox,
            asked: (0, 0),
            heard: Instant::now(),
            delivered: 0,
            pending,
            opened_at,
            connects,
            look_at_connection,
        })
    }

    async fn pause_after(&mut self, error: &anyhow::Error) {
        self.source = None;
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("jetkit_follower_restarts_total", "stream" => self.stream.clone()).increment(1);
        let pause = jittered(RETRY_MIN.saturating_mul(2 << failures.min(16)).min(RETRY_MAX));
        warn!(
            stream.name = self.stream,
            stream.sequence = self.next_sequence,
            error = format!("{error:#}"),
            "following was interrupted; going on from here"
        );
        tokio::time::sleep(pause).await;
    }
}

impl Source {
    /// Waits for the next message. May be dropped and called again.
    async fn next(&mut self, context: &Context) -> anyhow::Result<(async_nats::Message, Place)> {
        loop {
            if self.asked.0 <= BATCH_MESSAGES / 2 || self.asked.1 <= BATCH_BYTES / 2 {
                let info = self.consumer.cached_info();
                let of = (info.stream_name.as_str(), info.name.as_str());
                delivered::request(&context.client(), of, &self.inbox, (BATCH_MESSAGES, BATCH_BYTES)).await?;
                self.asked = (self.asked.0 + BATCH_MESSAGES, self.asked.1 + BATCH_BYTES);
            }
            let answer = tokio::select! {
                biased;
                answer = self.answers.next() => answer.context("the connection is closed")?,
                _ = self.look_at_connection.tick() => {
                    anyhow::ensure!(self.connects == connects(context), "the connection was renewed");
                    anyhow::ensure!(self.heard.elapsed() < HEARTBEAT * 2, "no sign of life from the server");
                    continue;
                }
            };
            self.heard = Instant::now();
            let length = answer.length;
            match Delivered::read(answer)? {
                Delivered::SignOfLife => {}
                Delivered::Message(message, place) => {
                    self.less(1, length);
                    return Ok((message, place));
                }
                Delivered::Ended { status, description, messages, bytes } => {
                    self.less(messages, bytes);
                    // It has run out, or the next message is larger than what is left of it.
                    let went_well =
                        status == StatusCode::TIMEOUT || description == "Message Size Exceeds MaxBytes";
                    anyhow::ensure!(went_well, "status {status} {description}");
                }
            }
        }
    }

    fn less(&mut self, messages: usize, bytes: usize) {
        self.asked = (self.asked.0.saturating_sub(messages), self.asked.1.saturating_sub(bytes));
    }
}

/// How often the client has connected.
fn connects(context: &Context) -> u64 {
    context.client().statistics().connects.load(Ordering::Relaxed)
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("delivered", &self.delivered)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}
