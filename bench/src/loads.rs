//! How long it takes to load an aggregate that is not in memory, by the length of its history: with the snapshot, and
//! without one.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use async_nats::Client;
use async_nats::jetstream::{self, kv};
use bytes::Bytes;
use jetkit::testing::{NatsServer, eventually};
use jetkit::{Aggregate, EntityId, EventLog, provision};
use serde_json::{Value, json};

use crate::execute::Account;
use crate::measure::median;
use crate::{arena, raw};

pub(crate) const NAME: &str = "loads";
pub(crate) const ABOUT: &str =
    "a cold load of an aggregate with 10 to 100,000 events, with and without snapshots";

/// With snapshots the longest history, read to up to 49 events after its snapshot, is to load in at most so many times what ten
/// events take.
const TARGET: f64 = 3.0;

/// How many events the histories have.
const LENGTHS: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];

/// How long a snapshot may take to be written.
const PATIENCE: Duration = Duration::from_secs(10);

/// The curves.
#[derive(Debug)]
pub(crate) struct Loads(Vec<Point>);

/// The medians for one length, in milliseconds.
#[derive(Debug)]
struct Point {
    events: usize,
    with: f64,
    without: f64,
}

impl Loads {
    /// How many times longer the longest history takes than the shortest, with snapshots.
    fn growth(&self) -> f64 {
        let [Some(shortest), Some(longest)] = [self.0.first(), self.0.last()] else { return f64::NAN };
        longest.with / shortest.with
    }

    pub(crate) fn met(&self) -> bool {
        self.growth() <= TARGET
    }

    pub(crate) fn json(&self) -> Value {
        let point = |Point { events, with, without }: &Point| json!({ "events": events, "with_snapshots_ms": with, "without_ms": without });
        json!({
            "points": self.0.iter().map(point).collect::<Vec<_>>(), "growth": self.growth(), "target": TARGET,
            "met": self.met(),
        })
    }
}

impl fmt::Display for Loads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:21} {:>14} {:>14}", "a cold load of events", "with snapshots", "without")?;
        for Point { events, with, without } in &self.0 {
            writeln!(f, "{events:21} {with:>11.2} ms {without:>11.2} ms")?;
        }
        let (growth, [first, last]) = (self.growth(), [LENGTHS[0], LENGTHS[LENGTHS.len() - 1]]);
        write!(
            f,
            "{last} events take {growth:.2} times what {first} take, with snapshots (target ≤ {TARGET})"
        )
    }
}

pub(crate) async fn measure(quick: bool) -> Result<Loads> {
    let server = NatsServer::start().await;
    let client = server.client().await;
    provision::streams(&client, &common::catalog(), 1).await?;
    let mut points = Vec::new();
    for (account, events) in LENGTHS.into_iter().enumerate() {
        let history = History::store(client.clone(), account, events).await?;
        let point = history.measure(if quick { 3 } else { 15 }).await?;
        eprintln!("{NAME:22} {events:>7} events: {:.2} ms, without {:.2} ms", point.with, point.without);
        points.push(point);
    }
    Ok(Loads(points))
}

/// One account's history on the log.
struct History {
    log: EventLog,
    id: EntityId,
    events: usize,
    bucket: kv::Store,
    /// As old as it gets before the next one is written: the worst case. A young account has none.
    has_snapshot: bool,
}

impl History {
    async fn store(client: Client, account: usize, events: usize) -> Result<Self> {
        let js = jetstream::new(client.clone());
        let bucket = js.get_key_value(provision::SNAPSHOTS).await?;
        let id = raw::deposit(account)?.account_id;
        let every = usize::try_from(Account::SNAPSHOT_EVERY)?;
        let has_snapshot = events >= every;
        let history = Self { log: EventLog::new(client, "/bench"), id, events, bucket, has_snapshot };
        let deposits = |versions: RangeInclusive<usize>| {
            versions.map(move |version| raw::deposit_message(&raw::deposit(account)?, version as u64))
        };
        let written_at = if has_snapshot { (events - every + 1).max(every) } else { events };
        arena::store(&js, deposits(1..=written_at)).await?;
        if has_snapshot {
            history.log.store::<Account>().load(&history.id).await?;
            eventually(PATIENCE, || history.stored_snapshot()).await;
        }
        arena::store(&js, deposits(written_at + 1..=events)).await?;
        Ok(history)
    }

    /// One after the other and not in turn: a server that has just read a long history is busy with what that left.
    async fn measure(&self, times: usize) -> Result<Point> {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..times {
            with.push(self.load().await?);
        }
        for _ in 0..times {
            self.bucket.stream.purge().await?;
            without.push(self.load().await?);
            if self.has_snapshot {
                // That load has written a new one: not while the next one runs.
                eventually(PATIENCE, || self.stored_snapshot()).await;
            }
        }
        Ok(Point { events: self.events, with: median(with), without: median(without) })
    }

    /// Loads it with a store that has nothing in memory, and gives back the milliseconds that it took.
    async fn load(&self) -> Result<f64> {
        let store = self.log.store::<Account>();
        let started = Instant::now();
        let loaded = store.load(&self.id).await?;
        let took = started.elapsed();
        ensure!(
            loaded.version == self.events as u64,
            "{} of {} events were loaded",
            loaded.version,
            self.events
        );
        Ok(took.as_secs_f64() * 1_000.0)
    }

    fn key(&self) -> String {
        format!("{}.{}", Account::ENTITY, self.id)
    }

    async fn stored_snapshot(&self) -> Option<Bytes> {
        self.bucket.get(self.key()).await.ok().flatten()
    }
}
