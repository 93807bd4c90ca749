//! Building a read model from the log: [`jetkit::ReadModel`], and async-nats' ordered consumer, which only reads.

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use common::order::OrderPlaced;
use futures::StreamExt;
use jetkit::projection::{Tables, Word, params};
use jetkit::subject::{self, EVENTS};
use jetkit::{Event, EventLog, Projection, ReadModel, Recorded};

use crate::measure::{Sample, Stopwatch};
use crate::scenario::Run;

/// One row for each order, found by its id.
struct Orders;

jetkit::events! {
    enum Placed { Order(OrderPlaced) }
}

impl Projection for Orders {
    const NAME: &'static str = "orders";
    const SCHEMA: &'static str = "
        CREATE TABLE orders (
            order_id TEXT PRIMARY KEY,
            place INTEGER NOT NULL,
            customer_id TEXT NOT NULL,
            total INTEGER NOT NULL,
            currency TEXT NOT NULL
        ) WITHOUT ROWID;
    ";
    type Event = Recorded<Placed>;

    fn apply(tables: &Tables<'_>, event: &Recorded<Placed>) -> anyhow::Result<()> {
        let Placed::Order(order) = &event.event;
        tables.run(
            "INSERT INTO orders VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                order.order_id,
                event.sequence,
                order.customer_id,
                order.total.minor(),
                Word(order.total.currency()),
            ],
        )?;
        Ok(())
    }
}

/// The kit: read, decode, write, swap in, ready to be read.
pub(crate) async fn kit(run: Run) -> Result<Sample> {
    let directory = tempfile::TempDir::new()?;
    let log = EventLog::new(run.client.clone(), "/bench");
    let watch = Stopwatch::start(run.server)?;
    let orders = ReadModel::<Orders>::follow(&log, directory.path());
    orders.caught_up().await;
    let sample = watch.stop(run.messages)?;
    let count = |tables: &Tables<'_>| tables.first("SELECT count(*) FROM orders", [], |row| row.get(0));
    let count: Option<usize> = orders.read(count).await?.value;
    ensure!(count == Some(run.messages), "{count:?} orders of {} are in the read model", run.messages);
    Ok(sample)
}

/// By hand: every message is received, and that is all.
pub(crate) async fn raw(run: Run) -> Result<Sample> {
    let watch = Stopwatch::start(run.server)?;
    let config = OrderedConfig {
        deliver_policy: DeliverPolicy::All,
        filter_subjects: vec![subject::of_type(OrderPlaced::TYPE)],
        ..OrderedConfig::default()
    };
    let consumer = run.jetstream().create_consumer_on_stream(config, EVENTS).await?;
    let mut messages = consumer.messages().await?;
    for _ in 0..run.messages {
        let message = messages.next().await.context("no more messages")??;
        std::hint::black_box(&message.payload);
    }
    watch.stop(run.messages)
}
