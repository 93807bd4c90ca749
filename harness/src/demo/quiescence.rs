//! When everything that was set off has come to its end.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_nats::jetstream;
use futures::TryStreamExt;
use jetkit::DLQ;
use jetkit::subject::EVENTS;
use jetkit::testing::has_handled_all;

use super::{Position, Shop};

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// One look may fail while NATS is away.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// The lists that a service keeps of the log; each read of one waits until it has reached a position.
const VIEWS: [(&str, &str); 5] = [
    ("order-service", "/orders"),
    ("payment-service", "/payments"),
    ("consumer-inventory", "/stock"),
    ("consumer-analytics", "/metrics/summary"),
    ("consumer-email", "/mails"),
];

impl Shop {
    /// How far the log and the dead letters go.
    pub async fn position(&self) -> Result<Position> {
        let jetstream = jetstream::new(self.nats().clone());
        let last = async |name: &str| -> Result<u64> {
            let stream = jetstream.get_stream(name).await.with_context(|| format!("the stream {name}"))?;
            Ok(stream.cached_info().state.last_sequence)
        };
        Ok(Position { log: last(EVENTS).await?, dead_letters: last(DLQ).await? })
    }

    /// Waits until nothing is left to be done: every durable has handled everything, nothing was stored meanwhile, and
    /// every view has read the log to its end. Says who is busy when patience ends.
    pub async fn quiet(&self) -> Result<Position> {
        let started = Instant::now();
        let position = loop {
            let look = async {
                // Whoever is found idle stays so, unless something is stored after the look began.
                let before = self.position().await?;
                let busy = self.busy().await?;
                Ok::<_, anyhow::Error>((before, busy, self.position().await?))
            };
            let busy = match tokio::time::timeout(LOOK_WITHIN, look).await.context("NATS").flatten() {
                Ok((before, busy, after)) if busy.is_empty() && before == after => break after,
                Ok((_, busy, _)) if busy.is_empty() => "events are still being stored".to_owned(),
                Ok((_, busy, _)) => busy,
                Err(error) => format!("{error:#}"),
            };
            if started.elapsed() > self.patience() {
                bail!("not quiet after {:?}: {busy}", self.patience());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        for (service, path) in VIEWS {
            let path = format!("{path}?min_sequence={}", position.log);
            self.get::<serde_json::Value>(service, &path).await.context("a view stays behind the log")?;
        }
        Ok(position)
    }

    /// Who has something to do; empty if nobody has.
    async fn busy(&self) -> Result<String> {
        let jetstream = jetstream::new(self.nats().clone());
        let mut busy = String::new();
        for name in [EVENTS, DLQ] {
            let stream = jetstream.get_stream(name).await?;
            let mut consumers = stream.consumers();
            while let Some(consumer) = consumers.try_next().await? {
                let Some(durable) = &consumer.config.durable_name else { continue }; // a reader: it promises nothing
                if !has_handled_all(&stream, &consumer).await? {
                    let (waiting, unsettled) = (consumer.num_pending, consumer.num_ack_pending);
                    write!(busy, "{durable} has {waiting} to get and {unsettled} to settle; ")?;
                }
            }
        }
        Ok(busy)
    }
}
