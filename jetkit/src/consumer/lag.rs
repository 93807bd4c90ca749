//! How far behind a durable is, as the server has it: asked again and again, so that a consumer to which nothing comes
//! knows it too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use async_nats::jetstream::Context;
use metrics::{Gauge, gauge};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Consumer;
use super::durable::{Durable, Found, Sequences};
use super::pause::is_by_circuit;
use crate::drift::Moment;
use crate::health::{CheckHandle, Operation};

/// How long there is between two questions: this, or a sixth of `ack_wait` where that is shorter.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// How long nothing may move while work waits, at least; twice `ack_wait`, where that is longer. A pull that heals itself
/// takes half of it.
const STILL_FOR: Duration = Duration::from_secs(10);

/// Counts what a consumer has brought to an end: handlers that returned, and messages that it settled without one.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    pub(super) fn moved(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Asks for the lag of one durable.
pub(super) struct Lag {
    js: Context,
    durable: Durable,
    asking: Operation,
    progress: Progress,
    gauges: Gauges,
    every: Duration,
    /// How long nothing may move while work waits.
    patience: Duration,
    /// What was settled when it was last seen to move, and when that was.
    still: Option<((u64, Sequences), Instant)>,
    stop: CancellationToken,
}

struct Gauges {
    pending: Gauge,
    ack_pending: Gauge,
    redelivered: Gauge,
    paused: Gauge,
}

impl Lag {
    pub(super) fn new(
        consumer: &Consumer,
        js: Context,
        durable: Durable,
        check: CheckHandle,
        stop: CancellationToken,
    ) -> Self {
        let (name, stream, ack_wait) = (&consumer.name, durable.stream, consumer.limits.ack_wait);
        let gauges = Gauges {
            pending: gauge!("jetkit_pending", "consumer" => name.clone(), "stream" => stream),
            ack_pending: gauge!("jetkit_ack_pending", "consumer" => name.clone(), "stream" => stream),
            redelivered: gauge!("jetkit_redelivered", "consumer" => name.clone(), "stream" => stream),
            paused: gauge!("jetkit_paused", "consumer" => name.clone(), "stream" => stream),
        };
        Self {
            js,
            durable,
            asking: Operation::new(check, "moving"),
            progress: consumer.progress.clone(),
            gauges,
            every: ASK_EVERY.min(ack_wait / 6),
            patience: (ack_wait * 2).max(STILL_FOR),
            still: None,
            stop,
        }
    }

    /// Asks until it is stopped.
    pub(super) async fn run(mut self) {
        let mut ask = tokio::time::interval(self.every);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.stop.clone();
        while stop.run_until_cancelled(ask.tick()).await.is_some() {
            match stop.run_until_cancelled(self.durable.look(&self.js, Moment::Running)).await {
                // Gone: whoever pulls makes it again, where it had been.
                Some(Ok(None)) => {}
                Some(Ok(Some(found))) => match self.judge(&found) {
                    Ok(()) => self.asking.succeeded(),
                    Err(error) => self.asking.refused(format_args!("{error:#}")),
                },
                Some(Err(error)) => self.asking.failed(format_args!("{error:#}")),
                None => return,
            }
        }
    }

    /// Notes how far the durable is. An error says why its work is not done.
    fn judge(&mut self, found: &Found) -> anyhow::Result<()> {
        self.gauges.pending.set(lossy(found.num_pending));
        self.gauges.ack_pending.set(lossy(found.num_ack_pending));
        self.gauges.redelivered.set(lossy(found.num_redelivered));
        self.gauges.paused.set(f64::from(found.paused));
        self.durable.check(found, Moment::Running)?;
        let Durable { name, stream, .. } = &self.durable;
        let Found { num_pending, num_ack_pending, .. } = found;
        if found.paused {
            self.still = None;
            ensure!(
                is_by_circuit(&found.config),
                "paused by somebody else for {:?} more, with {num_pending} to come; \
                 `nats consumer resume {stream} {name}` ends it",
                Duration::from_nanos(found.pause_remaining)
            );
            // An open circuit has a line of its own in /health/ready.
            return Ok(());
        }
        let at = (self.progress.count(), found.ack_floor);
        match self.still {
            Some((before, since)) if before == at && num_pending + num_ack_pending > 0 => {
                ensure!(
                    since.elapsed() < self.patience,
                    "standing still for {:?}: {num_pending} to come, {num_ack_pending} delivered and not settled",
                    self.patience
                );
            }
            _ => self.still = Some((at, Instant::now())),
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn lossy(n: u64) -> f64 {
    n as f64
}
