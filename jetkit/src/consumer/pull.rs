//! Pulling: never more than there is room for, and healing itself.
//!
//! These are our own requests ([`crate::delivered`]) and not async-nats' `batch()`: that one stalls after a heartbeat, and
//! `messages()` cannot be drained.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::{Client, StatusCode, Subject, Subscriber};
use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::durable::Durable;
use super::held::Held;
use crate::delivered::{self, Delivered, HEARTBEAT, Place};
use crate::direct;
use crate::drift::Moment;
use crate::health::Operation;
use crate::jitter::jittered;

/// What the server says when a request that names its bytes has ended as it should: they do not suffice for the next
/// message, or all messages have come and some bytes are left.
const ENDED_WELL: [&str; 2] = ["Message Size Exceeds MaxBytes", "Batch Completed"];

/// How long the server may take to answer when we stop; what is on its way to us is here by then.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What a puller says to the runtime.
#[derive(Debug)]
pub(super) enum Pulled {
    /// Here are messages.
    Messages(Vec<Arrival>),
    /// Which is the oldest message of this stream that is not settled?
    Oldest(&'static str, oneshot::Sender<Option<u64>>),
}

/// A message that was pulled.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) message: async_nats::Message,
    pub(super) stream: &'static str,
    pub(super) sequence: u64,
    /// When the server stored it.
    pub(super) stored_at: DateTime<Utc>,
    /// How often it was delivered, this time included.
    pub(super) delivered: u64,
}

/// Says how large a body is that a message was delivered without.
const BODY_SIZE: &str = "Nats-Msg-Size";

impl Arrival {
    fn lacks_its_body(&self) -> bool {
        let Some(headers) = &self.message.headers else { return false };
        self.message.payload.is_empty() && headers.get(BODY_SIZE).is_some_and(|size| size.as_str() != "0")
    }
}

/// A puller of one durable.
pub(super) struct Puller {
    pub(super) client: Client,
    pub(super) js: Context,
    pub(super) durable: Durable,
    /// One permit for every message that there is room for. A message takes its permit along.
    pub(super) room: Arc<Semaphore>,
    /// The bytes of the messages. A message counts from when it is here.
    pub(super) held: Arc<Held>,
    /// No request asks for fewer messages, and all open requests together for no more.
    pub(super) at_least: usize,
    pub(super) at_most: usize,
    /// No request asks for more than so many bytes times the messages that it asks for.
    pub(super) share: usize,
    pub(super) pulled: mpsc::UnboundedSender<Pulled>,
    pub(super) pulling: Operation,
    pub(super) stop: CancellationToken,
}

/// The requests that the server has not answered in full.
struct Open {
    answers: Subscriber,
    inbox: Subject,
    /// How many messages they may still bring.
    messages: usize,
}

/// How long to wait after so many failures in a row: up to about three seconds.
pub(super) fn pause_after(failures: u32) -> Duration {
    jittered(Duration::from_millis(50).saturating_mul(1 << failures.min(6)))
}

impl Puller {
    /// Pulls until it is stopped. Every failure is logged, reported and survived; after one, the durable is bound again,
    /// and created again where it had been if it is gone.
    pub(super) async fn run(self) {
        let mut next_sequence = None;
        let mut failures = 0_u32;
        while !self.stop.is_cancelled() {
            let Err(error) = self.pull(&mut next_sequence, &mut failures).await else { return };
            failures += 1;
            let (name, stream) = (&self.durable.name, self.durable.stream);
            let error = format!("{error:#}");
            tracing::warn!(
                consumer.name = name,
                stream.name = stream,
                error,
                failures,
                "pulling failed; trying again"
            );
            metrics::counter!("jetkit_pull_failures_total", "consumer" => name.clone()).increment(1);
            self.pulling.failed(error);
            let _ = tokio::time::timeout(pause_after(failures), self.stop.cancelled()).await;
        }
    }

    /// Pulls until it is stopped (`Ok`) or something is wrong.
    async fn pull(&self, next_sequence: &mut Option<u64>, failures: &mut u32) -> anyhow::Result<()> {
        self.durable.bind(&self.js, self.start(*next_sequence).await?, Moment::Running).await?;
        let inbox = Subject::from(self.client.new_inbox());
        let answers = self.client.subscribe(inbox.clone()).await?;
        let mut open = Open { answers, inbox, messages: 0 };
        let pulled = self.pull_with(&mut open, next_sequence, failures).await;
        if pulled.is_ok() {
            self.take_what_is_on_its_way(&mut open, next_sequence).await;
        }
        let _ = open.answers.unsubscribe().await;
        self.room.add_permits(open.messages);
        pulled
    }

    /// Takes what the server has sent already, so that it can be given back at once: a connection is read in order, so all
    /// of it is here when the server has answered a question. Only what is sent after that comes again after `ack_wait`.
    async fn take_what_is_on_its_way(&self, open: &mut Open, next_sequence: &mut Option<u64>) {
        let Durable { stream, name, .. } = &self.durable;
        let question = self.js.get_consumer_from_stream::<Config, _, _>(name, stream);
        let mut answered = std::pin::pin!(tokio::time::timeout(ANSWER_WITHIN, question));
        loop {
            tokio::select! {
                biased;
                Some(message) = open.answers.next() => {
                    // A status that ends the pull has nothing to end any more.
                    let _ = self.take(message, open, next_sequence).await;
                }
                _ = &mut answered => return,
            }
        }
    }

    /// Where the durable has to start if it is gone: at the oldest message that is not settled.
    async fn start(&self, next_sequence: Option<u64>) -> anyhow::Result<DeliverPolicy> {
        let Some(next_sequence) = next_sequence else { return Ok(DeliverPolicy::All) };
        let (ask, answer) = oneshot::channel();
        self.pulled.send(Pulled::Oldest(self.durable.stream, ask))?;
        let start_sequence = answer.await?.unwrap_or(next_sequence);
        let stream = self.js.get_stream(self.durable.stream).await?;
        let end = stream.cached_info().state.last_sequence;
        if start_sequence > end.saturating_add(1) {
            tracing::warn!(
                consumer.name = self.durable.name,
                stream.name = self.durable.stream,
                "the stream is shorter than what was taken from it: it was replaced, and is read from its beginning"
            );
            return Ok(DeliverPolicy::All);
        }
        Ok(DeliverPolicy::ByStartSequence { start_sequence })
    }

    async fn pull_with(
        &self,
        open: &mut Open,
        next_sequence: &mut Option<u64>,
        failures: &mut u32,
    ) -> anyhow::Result<()> {
        let at_least = u32::try_from(self.at_least).unwrap_or(u32::MAX);
        let room = || async {
            self.held.has_room().await;
            self.room.acquire_many(at_least).await
        };
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                room = room(), if open.messages + self.at_least <= self.at_most => {
                    room?.forget();
                    self.request(open).await?;
                    if *failures == 0 {
                        self.pulling.succeeded();
                    }
                }
                answer = tokio::time::timeout(HEARTBEAT * 2, open.answers.next()), if open.messages > 0 => {
                    let Ok(answer) = answer else { bail!("no sign of life from the server") };
                    let message = answer.ok_or_else(|| anyhow!("the connection is closed"))?;
                    self.take(message, open, next_sequence).await?;
                    if std::mem::take(failures) > 0 {
                        tracing::info!(consumer.name = self.durable.name, "pulling again");
                        self.pulling.succeeded();
                    }
                }
            }
        }
    }

    /// Asks for as many messages as there is room for; `at_least` permits have been taken.
    async fn request(&self, open: &mut Open) -> anyhow::Result<()> {
        let more = self.room.available_permits().min(self.at_most - open.messages - self.at_least);
        let more = match self.room.try_acquire_many(u32::try_from(more)?) {
            Ok(permits) => {
                permits.forget();
                more
            }
            Err(_) => 0,
        };
        let batch = self.at_least + more;
        open.messages += batch;
        let Durable { stream, name, .. } = &self.durable;
        delivered::request(&self.client, (*stream, name), &open.inbox, (batch, batch * self.share)).await
    }

    /// Passes on a message, and with it what else is here already: no more than was asked for.
    async fn take(
        &self,
        message: async_nats::Message,
        open: &mut Open,
        next_sequence: &mut Option<u64>,
    ) -> anyhow::Result<()> {
        let mut arrivals = Vec::new();
        let mut read = self.read(message, &mut open.messages, next_sequence);
        while let Ok(arrival) = read {
            arrivals.extend(arrival);
            read = Ok(None);
            let Some(Some(message)) = open.answers.next().now_or_never() else { break };
            read = self.read(message, &mut open.messages, next_sequence);
        }
        if arrivals.iter().any(Arrival::lacks_its_body) {
            self.fetch_bodies(&mut arrivals).await?;
        }
        self.pulled.send(Pulled::Messages(arrivals))?;
        read.map(drop)
    }

    /// Fetches what the server left out, because somebody has told the durable to deliver headers only. That is put back
    /// first, so that what comes next is whole.
    async fn fetch_bodies(&self, arrivals: &mut [Arrival]) -> anyhow::Result<()> {
        self.durable.look(&self.js, Moment::Running).await?;
        for arrival in arrivals.iter_mut().filter(|arrival| arrival.lacks_its_body()) {
            if let Some(whole) = direct::at(&self.client, arrival.stream, arrival.sequence).await? {
                arrival.message.payload = whole.payload;
            }
        }
        Ok(())
    }

    /// Reads a message, or a status.
    fn read(
        &self,
        message: async_nats::Message,
        expected: &mut usize,
        next_sequence: &mut Option<u64>,
    ) -> anyhow::Result<Option<Arrival>> {
        match Delivered::read(message)? {
            Delivered::SignOfLife => Ok(None),
            Delivered::Ended { status, description, messages, .. } => {
                let unanswered = messages.min(*expected);
                *expected -= unanswered;
                self.room.add_permits(unanswered);
                // The request has run out, or its messages or bytes have. Anything else (deleted, leader gone, server
                // stopping) needs a new start.
                let ended_well = ENDED_WELL.iter().any(|text| description.contains(text));
                if status == StatusCode::TIMEOUT || ended_well {
                    return Ok(None);
                }
                bail!("status {status} {description}");
            }
            Delivered::Message(message, Place { sequence, delivered, stored_at, .. }) => {
                let stored_at = DateTime::from_timestamp_nanos(stored_at);
                *next_sequence = Some(next_sequence.unwrap_or(0).max(sequence + 1));
                self.held.take(message.length);
                *expected = expected.saturating_sub(1);
                Ok(Some(Arrival { message, stream: self.durable.stream, sequence, stored_at, delivered }))
            }
        }
    }
}
