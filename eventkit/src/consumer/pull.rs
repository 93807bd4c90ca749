//! Pulling: bounded batches, never more than there is room for, healing itself.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{DeliverPolicy, PullConsumer};
use futures::{FutureExt, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::durable::Durable;
use crate::health::CheckHandle;

/// How long the server keeps one request for messages open.
const EXPIRES: Duration = Duration::from_secs(10);

/// How often the server shows a sign of life while there is nothing to deliver. Without one for twice as long, the pull
/// is given up and made anew.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// A message that was pulled.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) message: async_nats::Message,
    pub(super) stream: &'static str,
    pub(super) sequence: u64,
    /// How often it was delivered, this time included.
    pub(super) delivered: i64,
}

/// A puller of one durable.
pub(super) struct Puller {
    pub(super) js: Context,
    pub(super) durable: Durable,
    /// One permit for every message that there is room for.
    pub(super) room: Arc<Semaphore>,
    /// No pull asks for fewer, unless the room is smaller.
    pub(super) at_least: usize,
    pub(super) at_most: usize,
    pub(super) arrivals: mpsc::UnboundedSender<Arrival>,
    pub(super) health: CheckHandle,
    pub(super) stop: CancellationToken,
}

impl Puller {
    /// Pulls until it is stopped. Every failure is logged, reported and survived; after one, the durable is bound again,
    /// and created again where it had been if it is gone.
    pub(super) async fn run(self, mut consumer: PullConsumer) {
        let mut next_sequence = None;
        let mut failures = 0_u32;
        self.health.set_ready(true, "pulling");
        while !self.stop.is_cancelled() {
            match self.pull(&consumer, &mut next_sequence).await {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!(consumer.name = self.durable.name, "pulling again");
                        self.health.set_ready(true, "pulling");
                    }
                    failures = 0;
                    continue;
                }
                Err(error) => self.failed(&mut failures, &error).await,
            }
            let start = next_sequence.map_or(DeliverPolicy::All, |start_sequence| {
                DeliverPolicy::ByStartSequence { start_sequence }
            });
            match self.durable.bind(&self.js, start).await {
                Ok(bound) => consumer = bound,
                Err(error) => self.failed(&mut failures, &error).await,
            }
        }
    }

    /// One batch.
    async fn pull(&self, consumer: &PullConsumer, next_sequence: &mut Option<u64>) -> anyhow::Result<()> {
        let at_least = u32::try_from(self.at_least).unwrap_or(u32::MAX);
        let room = tokio::select! {
            room = self.room.acquire_many(at_least) => room?,
            () = self.stop.cancelled() => return Ok(()),
        };
        let more = self.room.available_permits().min(self.at_most.saturating_sub(self.at_least));
        let more = self.room.try_acquire_many(u32::try_from(more).unwrap_or(0)).ok();
        let mut room = match more {
            Some(more) => merged(room, more),
            None => room,
        };
        let batch = consumer.batch().max_messages(room.num_permits()).expires(EXPIRES).heartbeat(HEARTBEAT).messages();
        let mut batch = tokio::select! {
            batch = batch => batch?,
            () = self.stop.cancelled() => return Ok(()),
        };
        loop {
            let message = tokio::select! {
                message = batch.next() => message,
                // What is here already is taken, so that it can be given back at once.
                () = self.stop.cancelled() => batch.next().now_or_never().flatten(),
            };
            let Some(message) = message else { return Ok(()) };
            let message = message.map_err(|error| anyhow::anyhow!(error))?;
            let info = message.info().map_err(|error| anyhow::anyhow!(error))?;
            let (sequence, delivered) = (info.stream_sequence, info.delivered);
            *next_sequence = Some(next_sequence.unwrap_or(0).max(sequence + 1));
            if let Some(one) = room.split(1) {
                one.forget();
            }
            let arrival = Arrival { message: message.message, stream: self.durable.stream, sequence, delivered };
            self.arrivals.send(arrival)?;
        }
    }

    async fn failed(&self, failures: &mut u32, error: &anyhow::Error) {
        *failures += 1;
        let pause = Duration::from_millis(50).saturating_mul(1 << (*failures).min(6));
        tracing::warn!(
            consumer.name = self.durable.name, stream = self.durable.stream, error = format!("{error:#}"), failures,
            "pulling failed; trying again",
        );
        metrics::counter!("eventkit_pull_failures_total", "consumer" => self.durable.name.clone()).increment(1);
        self.health.set_ready(false, format!("{error:#}"));
        let pause = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        let _ = tokio::time::timeout(pause, self.stop.cancelled()).await;
    }
}

fn merged<'a>(
    mut room: tokio::sync::SemaphorePermit<'a>,
    more: tokio::sync::SemaphorePermit<'a>,
) -> tokio::sync::SemaphorePermit<'a> {
    room.merge(more);
    room
}
