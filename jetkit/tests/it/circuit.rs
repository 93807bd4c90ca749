//! A dependency that is down: what it costs (nothing but time), who stops, who probes, and how it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::consumer::pull::Config;
use chrono::{TimeDelta, Utc};
use jetkit::testing::eventually;
use jetkit::{
    Breaker, Consumer, DeadLetter, EventLog, Handler, HandlerResult, Health, OpenCircuit, OrUnavailable,
    Recorded, StoreError, open_circuits,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::consumer::{quick, run, settled};
use crate::toy::{self, LampLit, Notes, SOON, cause, lit};

/// What lamps depend on.
#[derive(Debug, Clone, Default)]
struct Mains {
    down: Arc<AtomicBool>,
    /// Down for these lamps only.
    down_for: Arc<Mutex<BTreeSet<String>>>,
    /// What got through.
    lit: Notes,
    asked: Arc<AtomicUsize>,
    /// How many ask it now, and how many at most have.
    asking: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    /// Who asks it waits meanwhile.
    held: watch::Sender<bool>,
}

impl Mains {
    fn down() -> Self {
        let mains = Self::default();
        mains.down.store(true, Ordering::SeqCst);
        mains
    }

    fn come_back(&self) {
        self.down.store(false, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until it was asked so many times more.
    async fn asked_again(&self, times: usize) {
        let enough = self.asked() + times;
        eventually(SOON, || async { (self.asked() >= enough).then_some(()) }).await;
    }
}

impl Handler<LampLit> for Mains {
    async fn handle(&self, event: Recorded<LampLit>) -> HandlerResult {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(self.asking.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
        tokio::task::yield_now().await;
        self.asking.fetch_sub(1, Ordering::SeqCst);
        let is_down = self.down.load(Ordering::SeqCst)
            || self.down_for.lock().unwrap().contains(event.lamp_id.as_str());
        let power = if is_down { Err(anyhow::anyhow!("no\npower")) } else { Ok(()) };
        power.or_unavailable("mains")?;
        self.lit.add(format!("{} {}", event.lamp_id, event.by));
        Ok(())
    }
}

/// A consumer without patience, whose events may be tried once.
fn consumer(mains: &Mains) -> Consumer {
    impatient().on::<LampLit>(mains.clone())
}

fn impatient() -> Consumer {
    let breaker = Breaker {
        first_delay: Duration::from_millis(10),
        longest_delay: Duration::from_millis(50),
        doubt_after: 10_000,
    };
    quick("c").max_attempts(1).breaker(breaker)
}

/// Lights so many lamps so many times each.
async fn light(log: &EventLog, lamps: usize, times: usize) {
    for time in 0..times {
        for lamp in 0..lamps {
            let event = lit(&format!("lamp-{lamp}"), &time.to_string());
            log.publisher().publish(&event, &cause()).await.unwrap();
        }
    }
}

/// Each lamp was lit so many times and no more.
fn assert_lit_once(mains: &Mains, lamps: usize, times: usize) {
    let all = mains.lit.all();
    let different: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), different.len()), (lamps * times, lamps * times), "{all:?}");
}

/// Each lamp was lit so many times, in order and no more.
fn assert_lit_in_order(mains: &Mains, lamps: usize, times: usize) {
    let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for note in mains.lit.all() {
        let (lamp, time) = note.split_once(' ').unwrap();
        seen.entry(lamp.to_owned()).or_default().push(time.parse().unwrap());
    }
    assert_eq!(seen.len(), lamps);
    for (lamp, seen) in seen {
        assert_eq!(seen, (0..times).collect::<Vec<_>>(), "{lamp}");
    }
}

async fn opened(client: &Client) -> OpenCircuit {
    eventually(SOON, || async { open_circuits(client).await.unwrap().pop() }).await
}

async fn durable(client: &Client, stream: &str) -> Info {
    let js = async_nats::jetstream::new(client.clone());
    let durable = js.get_consumer_from_stream::<Config, _, _>("c", stream).await.unwrap();
    durable.cached_info().clone()
}

async fn assert_no_dead_letter(client: &Client) {
    let js = async_nats::jetstream::new(client.clone());
    let stored = js.get_stream("DLQ").await.unwrap().cached_info().state.messages;
    assert_eq!(stored, 0, "dead letters");
}

#[tokio::test]
async fn an_outage_uses_up_no_attempt_and_pauses_the_durables_until_a_probe_gets_through() {
    let (_server, client, log) = toy::server().await;
    let (mains, health) = (Mains::down(), Health::new());
    light(&log, 5, 4).await;
    let running = run(consumer(&mains).health(health.check("consumer c")), &client);

    let circuit = opened(&client).await;
    assert_eq!((circuit.consumer.as_str(), circuit.dependency.as_str()), ("c", "mains"));
    assert_eq!(circuit.reason, "no power");
    for stream in ["EVENTS", "DLQ"] {
        eventually(SOON, || async { durable(&client, stream).await.paused.then_some(()) }).await;
    }
    mains.asked_again(20).await;
    let report = health.report();
    let check = &report.checks["consumer c: circuit"];
    assert!(check.detail.starts_with("circuit open: mains: no power; "), "{}", check.detail);
    assert!(check.ready, "its HTTP routes still work");
    assert_eq!(mains.lit.all(), [""; 0]);

    mains.come_back();
    mains.lit.reach(20).await;
    settled(&client, "c").await;
    assert_lit_in_order(&mains, 5, 4);
    eventually(SOON, || async { (!durable(&client, "DLQ").await.paused).then_some(()) }).await;
    assert!(!durable(&client, "EVENTS").await.paused);
    assert_eq!(open_circuits(&client).await.unwrap(), []);
    assert_eq!(health.report().checks["consumer c: circuit"].detail, "closed");
    assert_no_dead_letter(&client).await;
    running.stop().await;
}

#[tokio::test]
async fn while_it_is_open_one_event_at_a_time_is_tried() {
    let (_server, client, log) = toy::server().await;
    let mains = Mains::down();
    light(&log, 8, 2).await;
    let running = run(consumer(&mains), &client);
    opened(&client).await;
    // What ran when it opened has come back once probes go on.
    mains.asked_again(20).await;
    mains.most.store(0, Ordering::SeqCst);
    mains.asked_again(20).await;
    assert_eq!(mains.most.load(Ordering::SeqCst), 1);
    assert_eq!(mains.lit.all(), [""; 0]);
    mains.come_back();
    mains.lit.reach(16).await;
    assert_lit_in_order(&mains, 8, 2);
    running.stop().await;
}

#[tokio::test]
async fn every_replica_stops_and_one_of_them_probes() {
    let (server, client, log) = toy::server().await;
    let mains = [Mains::down(), Mains::down()];
    let seconds = Duration::from_secs;
    light(&log, 40, 3).await;
    let replica = |mains: &Mains| {
        mains.held.send_replace(true);
        consumer(mains).timeouts(seconds(20), seconds(25), seconds(30)).concurrency(1).window(40)
    };
    let other = server.client().await;
    let running = [run(replica(&mains[0]), &client), run(replica(&mains[1]), &other)];
    // Each has pulled events before it can notice.
    for mains in &mains {
        eventually(SOON, || async { (mains.asked() > 0).then_some(()) }).await;
    }
    for mains in &mains {
        mains.held.send_replace(false);
    }
    opened(&client).await;
    let probes = || mains.each_ref().map(Mains::asked);
    // At first each may think that it probes; the durable's metadata decide before the first probe.
    let total = |asked: [usize; 2]| asked.iter().sum::<usize>();
    let enough = total(probes()) + 20;
    eventually(SOON, || async { (total(probes()) >= enough).then_some(()) }).await;
    let before = probes();
    let enough = total(before) + 20;
    eventually(SOON, || async { (total(probes()) >= enough).then_some(()) }).await;
    let after = probes();
    assert!(before[0] == after[0] || before[1] == after[1], "both probe: {before:?}, {after:?}");

    mains.iter().for_each(Mains::come_back);
    let lit = || mains.each_ref().map(|mains| mains.lit.all()).concat();
    eventually(SOON, || async { (lit().len() >= 120).then_some(()) }).await;
    settled(&client, "c").await;
    assert_eq!(lit().into_iter().collect::<BTreeSet<_>>().len(), 120);
    assert_eq!(lit().len(), 120);
    assert_no_dead_letter(&client).await;
    for running in running {
        running.stop().await;
    }
}

#[tokio::test]
async fn a_process_that_dies_with_an_open_circuit_leaves_nothing_paused_and_costs_no_attempt() {
    let (_server, client, log) = toy::server().await;
    let mains = Mains::down();
    light(&log, 3, 2).await;
    for _ in 0..4 {
        let task =
            tokio::spawn(consumer(&mains).max_attempts(2).run(client.clone(), CancellationToken::new()));
        mains.asked_again(6).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    mains.come_back();
    let running = run(consumer(&mains).max_attempts(2), &client);
    mains.lit.reach(6).await;
    settled(&client, "c").await;
    assert_lit_once(&mains, 3, 2);
    eventually(SOON, || async { (!durable(&client, "EVENTS").await.paused).then_some(()) }).await;
    assert_no_dead_letter(&client).await;
    running.stop().await;
}

#[tokio::test]
async fn a_consumer_stopped_with_an_open_circuit_gives_everything_back_and_counts_nothing() {
    let (_server, client, log) = toy::server().await;
    let mains = Mains::down();
    light(&log, 3, 2).await;
    for _ in 0..3 {
        let running = run(consumer(&mains), &client);
        mains.asked_again(5).await;
        opened(&client).await;
        running.stop().await;
        assert_eq!(open_circuits(&client).await.unwrap(), []);
        assert!(!durable(&client, "EVENTS").await.paused, "its successor judges for itself");
    }
    mains.come_back();
    let running = run(consumer(&mains), &client);
    mains.lit.reach(6).await;
    settled(&client, "c").await;
    assert_lit_in_order(&mains, 3, 2);
    assert_no_dead_letter(&client).await;
    running.stop().await;
}

#[tokio::test]
async fn a_durable_that_an_operator_paused_stays_paused() {
    let (_server, client, log) = toy::server().await;
    let mains = Mains::down();
    light(&log, 2, 1).await;
    let running = run(consumer(&mains), &client);
    opened(&client).await;
    let js = async_nats::jetstream::new(client.clone());
    let until = Utc::now() + TimeDelta::hours(1);
    let events = js.get_stream("EVENTS").await.unwrap();
    events.pause_consumer("c", until).await.unwrap();
    mains.asked_again(5).await;
    assert_eq!(open_circuits(&client).await.unwrap(), [], "that pause is not the circuit's");
    mains.come_back();
    mains.lit.reach(2).await;
    // The other durable is released after it.
    eventually(SOON, || async { (!durable(&client, "DLQ").await.paused).then_some(()) }).await;
    let info = durable(&client, "EVENTS").await;
    assert!(info.paused && info.pause_remaining.unwrap() > Duration::from_mins(50), "{info:?}");
    running.stop().await;
}

#[tokio::test]
async fn one_event_that_finds_it_down_for_itself_does_not_stop_the_others_for_good() {
    let (_server, client, log) = toy::server().await;
    let mains = Mains::default();
    mains.down_for.lock().unwrap().insert("broken".to_owned());
    let breaker = Breaker {
        first_delay: Duration::from_millis(10),
        longest_delay: Duration::from_millis(50),
        doubt_after: 3,
    };
    log.publisher().publish(&lit("broken", "0"), &cause()).await.unwrap();
    let running = run(consumer(&mains).breaker(breaker), &client);
    opened(&client).await;
    light(&log, 10, 10).await;
    mains.lit.reach(100).await;
    mains.down_for.lock().unwrap().clear();
    let all = mains.lit.reach(101).await;
    assert_eq!(all.iter().filter(|note| *note == "broken 0").count(), 1);
    settled(&client, "c").await;
    assert_no_dead_letter(&client).await;
    running.stop().await;
}

#[tokio::test]
async fn a_redrive_waits_for_the_dependency_too() {
    let (_server, client, log) = toy::server().await;
    let mains = Mains::down();
    let receipt = log.publisher().publish(&lit("a", "0"), &cause()).await.unwrap();
    let js = async_nats::jetstream::new(client.clone());
    let stored = js.get_stream("EVENTS").await.unwrap().get_raw_message(receipt.sequence).await.unwrap();
    let now = Utc::now();
    let letter = DeadLetter {
        consumer: "c".to_owned(),
        class: jetkit::FailureClass::Exhausted,
        errors: vec!["no power".to_owned()],
        attempts: 1,
        first_failed_at: now,
        last_failed_at: now,
        service_version: "1".to_owned(),
        redrives: 0,
        original: jetkit::Original {
            stream: "EVENTS".to_owned(),
            sequence: receipt.sequence,
            subject: stored.subject.to_string(),
            headers: stored.headers.clone(),
            headers_dropped: 0,
            payload: stored.payload.clone(),
        },
    };
    let running = run(consumer(&mains), &client);
    opened(&client).await;
    letter.redrive(&client, None).await.unwrap();
    mains.asked_again(10).await;
    mains.come_back();
    assert_eq!(mains.lit.reach(2).await, ["a 0", "a 0"]);
    let stored = js.get_stream("DLQ").await.unwrap().cached_info().state.messages;
    assert_eq!(stored, 1, "the redrive, and no dead letter");
    running.stop().await;
}

/// Gives a command that the log does not take.
struct Writes(Notes, Arc<AtomicBool>);

impl Handler<LampLit> for Writes {
    async fn handle(&self, event: Recorded<LampLit>) -> HandlerResult {
        if self.1.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("maximum bytes exceeded".to_owned()).into());
        }
        self.0.add(&*event.by);
        Ok(())
    }
}

#[tokio::test]
async fn a_log_that_takes_no_writes_makes_no_dead_letters() {
    let (_server, client, log) = toy::server().await;
    let (notes, full) = (Notes::default(), Arc::new(AtomicBool::new(true)));
    let handler = Writes(notes.clone(), Arc::clone(&full));
    let running = run(impatient().on::<LampLit>(handler), &client);
    light(&log, 1, 3).await;
    assert_eq!(opened(&client).await.dependency, "event log");
    full.store(false, Ordering::SeqCst);
    assert_eq!(notes.reach(3).await, ["0", "1", "2"]);
    assert_no_dead_letter(&client).await;
    running.stop().await;
}
