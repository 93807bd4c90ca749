//! Consuming and acknowledging: [`jetkit::Consumer`] with a typed handler, and async-nats' pull consumer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail};
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{self, Message, kv};
use common::order::OrderPlaced;
use futures::future::{BoxFuture, ready};
use futures::{FutureExt, StreamExt, TryStreamExt};
use jetkit::inbox::{Claim, Ended, Grant, Inbox, InboxError, Key, Turn};
use jetkit::subject::{self, EVENTS};
use jetkit::{Consumer, DLQ, Event, Handler, HandlerResult, Recorded};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::measure::{Sample, Stopwatch};
use crate::raw::Document;
use crate::scenario::Run;

/// How many messages are handled at once where a message waits for the idempotency set: the kit's own default.
const CONCURRENCY: usize = 64;

/// How many unsettled messages the server allows: the kit's own default.
const MAX_ACK_PENDING: i64 = 4096;

const KIT: &str = "kit";
const RAW: &str = "raw";

/// What every side's handler does: it counts. Time is measured from the first message to the last ack.
#[derive(Debug, Default)]
struct Progress {
    expected: usize,
    handled: AtomicUsize,
    first: Notify,
    last: Notify,
}

impl Progress {
    fn of(messages: usize) -> Arc<Self> {
        Arc::new(Self { expected: messages, ..Self::default() })
    }

    fn handled(&self) {
        match self.handled.fetch_add(1, Ordering::Relaxed) + 1 {
            1 => self.first.notify_one(),
            n if n == self.expected => self.last.notify_one(),
            _ => {}
        }
    }

    /// Measures until everything is handled and acknowledged.
    async fn measure(&self, run: &Run, durable: &str) -> Result<Sample> {
        self.first.notified().await;
        let watch = Stopwatch::start(run.server)?;
        self.last.notified().await;
        run.acked(durable).await?;
        watch.stop(run.messages)
    }
}

impl Handler<OrderPlaced> for Progress {
    async fn handle(&self, order: Recorded<OrderPlaced>) -> HandlerResult {
        std::hint::black_box(&order.items);
        self.handled();
        Ok(())
    }
}

/// No idempotency set, as on the other side: every message is new.
struct NoSet;

impl Inbox for NoSet {
    fn claim(&self, _: Key, _: Turn) -> BoxFuture<'_, Result<Claim, InboxError>> {
        let grant = Grant { attempt: 1, unfinished: false, postponed: 0, first_failed_at: None };
        ready(Ok(Claim::Granted(grant))).boxed()
    }

    fn done<'a>(&'a self, _: &'a [Key]) -> BoxFuture<'a, Result<(), InboxError>> {
        ready(Ok(())).boxed()
    }

    fn release(&self, _: Key, _: Ended) -> BoxFuture<'_, Result<(), InboxError>> {
        ready(Ok(())).boxed()
    }

    fn is_suspect(&self, _: Key) -> bool {
        false
    }

    fn is_done(&self, _: Key) -> bool {
        false
    }
}

/// The kit, with the durable idempotency set or without any.
pub(crate) async fn kit(run: Run, durable_set: bool) -> Result<Sample> {
    let progress = Progress::of(run.messages);
    let consumer = Consumer::new(KIT).on::<OrderPlaced>(Arc::clone(&progress)).concurrency(CONCURRENCY);
    let consumer = if durable_set { consumer } else { consumer.inbox(Arc::new(NoSet)) };
    let stop = CancellationToken::new();
    let mut running = tokio::spawn(consumer.run(run.client.clone(), stop.clone()));
    let sample = tokio::select! {
        sample = progress.measure(&run, KIT) => sample?,
        ended = &mut running => bail!("the consumer ended: {:?}", ended?),
    };
    stop.cancel();
    running.await??;
    let js = run.jetstream();
    js.delete_consumer_from_stream(KIT, EVENTS).await?;
    js.delete_consumer_from_stream(KIT, DLQ).await?;
    if durable_set {
        js.delete_stream(format!("INBOX_{KIT}")).await?;
    }
    Ok(sample)
}

/// By hand: one loop, plain acks, nothing that would notice a repeat.
pub(crate) async fn raw(run: Run) -> Result<Sample> {
    let progress = Progress::of(run.messages);
    let consume = async {
        let mut messages = pull_consumer(&run).await?;
        for _ in 0..run.messages {
            let message = messages.next().await.context("no more messages")??;
            let order: Document<OrderPlaced> = serde_json::from_slice(&message.payload)?;
            std::hint::black_box(&order.data.items);
            progress.handled();
            message.ack().await.map_err(anyhow::Error::from_boxed)?;
        }
        // Kept open: closing it before the last acks are counted would change the work.
        anyhow::Ok(messages)
    };
    let (sample, messages) = tokio::try_join!(progress.measure(&run, RAW), consume)?;
    drop(messages);
    run.jetstream().delete_consumer_from_stream(RAW, EVENTS).await?;
    Ok(sample)
}

/// By hand, with the natural idempotency set: a key is created before and updated after the handler.
pub(crate) async fn raw_with_key_value(run: Run) -> Result<Sample> {
    const BUCKET: &str = "handled";
    let js = run.jetstream();
    let handled = js.create_key_value(kv::Config { bucket: BUCKET.into(), ..Default::default() }).await?;
    let progress = Progress::of(run.messages);
    let handle = async |message: Message| {
        let order: Document<OrderPlaced> = serde_json::from_slice(&message.payload)?;
        let revision = handled.create(order.id(), "handling".into()).await?;
        std::hint::black_box(&order.data.items);
        progress.handled();
        handled.update(order.id(), "done".into(), revision).await?;
        message.ack().await.map_err(anyhow::Error::from_boxed)
    };
    let consume = async {
        let mut messages = pull_consumer(&run).await?;
        let all = messages.by_ref().take(run.messages).map_err(anyhow::Error::from);
        all.try_for_each_concurrent(CONCURRENCY, handle).await?;
        anyhow::Ok(messages)
    };
    let (sample, messages) = tokio::try_join!(progress.measure(&run, RAW), consume)?;
    drop(messages);
    js.delete_consumer_from_stream(RAW, EVENTS).await?;
    js.delete_key_value(BUCKET).await?;
    Ok(sample)
}

async fn pull_consumer(run: &Run) -> Result<pull::Stream> {
    let config = pull::Config {
        durable_name: Some(RAW.into()),
        filter_subjects: vec![subject::of_type(OrderPlaced::TYPE)],
        max_ack_pending: MAX_ACK_PENDING,
        ..pull::Config::default()
    };
    let consumer: jetstream::consumer::PullConsumer =
        run.jetstream().create_consumer_on_stream(config, EVENTS).await?;
    Ok(consumer.stream().max_messages_per_batch(512).messages().await?)
}
