//! States that are larger than a message, and histories that take longer to load than a command may wait.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream;
use futures::StreamExt;
use futures::future::try_join_all;
use jetkit::testing::{NatsServer, eventually};
use jetkit::{Aggregate, EventId, EventLog, EventStore, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::toy::{self, LampEvent, LampRejection, SOON, cause, id, lit};

/// What one message may have on the server of these tests.
const MAX_PAYLOAD: usize = 64 * 1024;

/// How much of what its events say an album keeps: three messages full.
const PAGES: usize = 192;

/// A lamp that keeps what its events say, up to a limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Album {
    pages: Vec<String>,
    events: u64,
}

impl Aggregate for Album {
    const ENTITY: &'static str = "lamp";
    type Event = LampEvent;
    type Command = String;
    type Rejection = LampRejection;

    fn decide(&self, text: &String) -> Result<Vec<LampEvent>, LampRejection> {
        Ok(vec![lit("a", text).into()])
    }

    fn apply(&mut self, event: &LampEvent) {
        self.events += 1;
        if let LampEvent::Lit(lit) = event
            && self.pages.len() < PAGES
        {
            self.pages.push(lit.by.clone());
        }
    }
}

async fn server() -> (NatsServer, Client, EventLog) {
    toy::on(NatsServer::with_config(&format!("max_payload: {MAX_PAYLOAD}")).await).await
}

/// What the event of a version says: a kilobyte.
fn text(version: u64) -> String {
    format!("{version:01024}")
}

/// The state at a version.
fn album(version: u64) -> Album {
    Album { pages: (1..=version.min(PAGES as u64)).map(text).collect(), events: version }
}

/// Puts these versions on the log as the store would, many at once.
async fn happen(client: &Client, versions: std::ops::RangeInclusive<u64>) {
    let js = jetstream::new(client.clone());
    let all: Vec<u64> = versions.collect();
    for some in all.chunks(256) {
        let mut acks = Vec::new();
        for version in some {
            let event_id = EventId::generate();
            let event = json!({
                "specversion": "1.0", "id": event_id, "source": "/test", "type": "lamp.lit", "subject": "a",
                "time": "2026-01-01T00:00:00Z", "dataversion": 1, "correlationid": event_id,
                "data": { "lamp_id": "a", "by": text(*version) },
            });
            let subject = format!("lamp.lit.a.{version}");
            acks.push(js.publish(subject, event.to_string().into()).await.unwrap().into_future());
        }
        try_join_all(acks).await.unwrap();
    }
}

/// The messages in the bucket of snapshots: subject and size.
async fn bucket(client: &Client) -> Vec<(String, usize)> {
    let mut stream = jetstream::new(client.clone()).get_stream("KV_SNAPSHOTS").await.unwrap();
    let last = stream.info().await.unwrap().state.last_sequence;
    let messages = futures::stream::iter(1..=last).then(|sequence| stream.direct_get(sequence));
    messages
        .filter_map(async |found| found.ok().map(|m| (m.subject.to_string(), m.payload.len())))
        .collect()
        .await
}

/// The versions of the snapshots that there are, the latest first, and the number of their parts.
async fn head(client: &Client) -> Option<(Vec<u64>, u64)> {
    let stream = jetstream::new(client.clone()).get_stream("KV_SNAPSHOTS").await.unwrap();
    let head = stream.direct_get_last_for_subject("$KV.SNAPSHOTS.lamp.a").await.ok()?;
    let head: Value = serde_json::from_slice(&head.payload).unwrap();
    let parts = head["parts"].as_array()?;
    let versions = parts.iter().map(|parts| parts["version"].as_u64().unwrap()).collect();
    Some((versions, parts.iter().map(|parts| parts["count"].as_u64().unwrap()).sum()))
}

/// The subjects of the parts that there are.
async fn parts(client: &Client) -> Vec<String> {
    let all = bucket(client).await.into_iter().map(|(subject, _)| subject);
    all.filter(|subject| subject.contains(".parts.")).collect()
}

/// Loads the album as a process that remembers nothing does, and returns how many messages it read.
async fn load(server: &NatsServer, version: u64) -> u64 {
    let client = server.client().await;
    let log = EventLog::new(client.clone(), "/test");
    let before = client.statistics().in_messages.load(Ordering::Relaxed);
    let loaded = log.store::<Album>().load(&id("a")).await.unwrap();
    let read = client.statistics().in_messages.load(Ordering::Relaxed) - before;
    assert_eq!((loaded.version, loaded.sequence), (version, version));
    assert_eq!(loaded.state, album(version));
    read
}

async fn snapshot_at(client: &Client, version: u64) {
    eventually(SOON, async || head(client).await.filter(|(versions, _)| versions[0] == version)).await;
}

#[tokio::test]
async fn a_state_larger_than_a_message_is_kept_in_parts_of_half_a_message() {
    let (server, client, _log) = server().await;
    happen(&client, 1..=500).await;
    load(&server, 500).await;
    snapshot_at(&client, 500).await;
    let sizes = bucket(&client).await;
    assert!(sizes.iter().all(|(_, size)| *size <= MAX_PAYLOAD / 2), "{sizes:?}");
    let total: usize = sizes.iter().map(|(_, size)| size).sum();
    assert!(total > 2 * MAX_PAYLOAD, "{total} bytes are no large state");

    // What it costs to load: the parts, the document that names them, and what came after.
    happen(&client, 501..=510).await;
    assert!(load(&server, 510).await < sizes.len() as u64 + 20);
}

#[tokio::test]
async fn the_larger_a_state_the_more_events_lie_between_its_snapshots() {
    let (server, client, log) = server().await;
    happen(&client, 1..=500).await;
    load(&server, 500).await;
    snapshot_at(&client, 500).await;
    let store = log.store::<Album>();
    for version in 501..=600 {
        store.execute(&id("a"), &text(version), &cause()).await.unwrap();
    }
    happen(&client, 601..=800).await;
    load(&server, 800).await;
    snapshot_at(&client, 800).await;
    // 200 kB are written after 200 events, and not after 50.
    assert_eq!(head(&client).await.unwrap().0, [800, 500]);
}

#[tokio::test]
async fn old_parts_are_removed_when_no_repeated_command_needs_them_any_more() {
    let (server, client, log) = server().await;
    let mut version = 0;
    for _ in 0..8 {
        happen(&client, version + 1..=version + 1000).await;
        version += 1000;
        load(&server, version).await;
        snapshot_at(&client, version).await;
        // The parts of what is named, and nothing else.
        let (_, named) = head(&client).await.unwrap();
        eventually(SOON, async || (parts(&client).await.len() as u64 == named).then_some(())).await;
    }
    // 4,096 events are within reach, and the latest one before them is needed.
    assert_eq!(head(&client).await.unwrap().0, [8000, 7000, 6000, 5000, 4000, 3000]);
    let before = client.statistics().in_messages.load(Ordering::Relaxed);
    let then = log.store::<Album>().load_at(&id("a"), 4500).await.unwrap();
    assert_eq!(then.state, album(4500));
    let read = client.statistics().in_messages.load(Ordering::Relaxed) - before;
    assert!(read < 1000, "{read} messages to load an earlier version");
}

#[tokio::test]
async fn a_snapshot_with_a_part_that_is_missing_or_changed_costs_time_only() {
    let (server, client, _log) = server().await;
    happen(&client, 1..=500).await;
    load(&server, 500).await;
    snapshot_at(&client, 500).await;
    let first = parts(&client).await;
    assert!(first.len() > 2, "{first:?}");
    let js = jetstream::new(client.clone());
    js.publish(first[1].clone(), "shorter".into()).await.unwrap().await.unwrap();
    assert!(load(&server, 500).await > 500, "everything was read");
    // The load has written another one.
    let second = eventually(SOON, async || {
        let now = parts(&client).await;
        (now.len() == first.len() && now.iter().all(|part| !first.contains(part))).then_some(now)
    });
    let second = second.await;
    js.get_stream("KV_SNAPSHOTS").await.unwrap().purge().filter(&second[0]).await.unwrap();
    assert!(load(&server, 500).await > 500, "everything was read");
}

#[tokio::test]
async fn who_reads_while_others_write_snapshots_never_sees_a_mixture() {
    let (server, client, _log) = server().await;
    happen(&client, 1..=500).await;
    load(&server, 500).await;
    snapshot_at(&client, 500).await;
    // Several processes write snapshots of the same version at once, for a while; others load.
    for round in 1..=5_u64 {
        happen(&client, 500 + (round - 1) * 300 + 1..=500 + round * 300).await;
        let version = 500 + round * 300;
        let loads = (0..6).map(async |_| {
            let read = load(&server, version).await;
            // From a snapshot, and never from the first event: no half-removed one was found.
            assert!(read < version, "{read} messages");
            Ok::<_, ()>(())
        });
        try_join_all(loads).await.unwrap();
        snapshot_at(&client, version).await;
    }
    eventually(SOON, async || {
        let (_, named) = head(&client).await?;
        (parts(&client).await.len() as u64 == named).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_load_has_read_is_kept_when_the_command_that_began_it_is_cut_off() {
    let (server, client, _log) = server().await;
    happen(&client, 1..=5000).await;
    let reader = server.client().await;
    let store: EventStore<Album> = EventLog::new(reader.clone(), "/test").store();
    let before = reader.statistics().in_messages.load(Ordering::Relaxed);
    let cut_off = Cell::new(0);
    let executed = eventually(SOON, async || {
        let command = async || store.execute(&id("a"), &text(5001), &cause()).await;
        let answer = tokio::time::timeout(Duration::from_millis(20), command()).await;
        cut_off.set(cut_off.get() + u32::from(answer.is_err()));
        answer.ok().map(Result::unwrap)
    });
    let executed = executed.await;
    assert_eq!(executed.state.pages, album(5001).pages);
    let cut_off = cut_off.get();
    assert!(cut_off > 1, "no command was cut off");
    let read = reader.statistics().in_messages.load(Ordering::Relaxed) - before;
    assert!(read < 6000, "{read} messages were read for 5,000 events, {cut_off} commands were cut off");
}

#[tokio::test]
async fn a_load_goes_on_where_it_was_when_the_server_comes_back() {
    let (mut server, client, _log) = server().await;
    happen(&client, 1..=20_000).await;
    let reader = server.client().await;
    let read = || reader.statistics().in_messages.load(Ordering::Relaxed);
    let log = EventLog::new(reader.clone(), "/test").with_deadline(Duration::from_millis(200));
    let store: EventStore<Album> = log.store();
    let before = read();
    let loading = store.clone();
    let load = tokio::spawn(async move { loading.warm_up(&id("a")).await });
    eventually(SOON, async || (read() - before > 1000).then_some(())).await;
    server.kill();
    let interrupted = load.await.unwrap();
    assert!(matches!(interrupted, Err(StoreError::Unavailable(_))), "{interrupted:?}");
    let first_time = read() - before;
    assert!(first_time < 20_000, "it was not interrupted");
    server.restart().await;
    eventually(SOON, async || store.warm_up(&id("a")).await.ok()).await;
    let loaded = store.latest(&id("a")).await.unwrap();
    assert_eq!((loaded.version, loaded.state), (20_000, album(20_000)));
    let in_all = read() - before;
    assert!(in_all < 20_000 + 1000, "{in_all} messages were read for 20,000 events, {first_time} at first");
}

#[tokio::test]
async fn a_command_that_waits_for_a_load_says_so_within_its_deadline() {
    let (server, client, log) = server().await;
    happen(&client, 1..=5000).await;
    let store: EventStore<Album> = log.with_deadline(Duration::from_millis(1)).store();
    let refused = store.execute(&id("a"), &text(5001), &cause()).await.unwrap_err();
    assert!(refused.to_string().contains("lamp a is being loaded"), "{refused}");
    eventually(SOON, async || store.execute(&id("a"), &text(5001), &cause()).await.ok()).await;
    drop(server);
}

/// Whether the next event that a [`Clumsy`] one takes in is too much for it.
static CLUMSY: AtomicBool = AtomicBool::new(false);

/// A counter that may panic between the two halves of an event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Clumsy {
    begun: u64,
    ended: u64,
}

impl Aggregate for Clumsy {
    const ENTITY: &'static str = "lamp";
    type Event = LampEvent;
    type Command = ();
    type Rejection = LampRejection;

    fn decide(&self, (): &()) -> Result<Vec<LampEvent>, LampRejection> {
        Ok(vec![lit("a", "clumsy").into()])
    }

    fn apply(&mut self, _: &LampEvent) {
        self.begun += 1;
        assert!(!CLUMSY.swap(false, Ordering::Relaxed), "clumsy");
        self.ended += 1;
    }
}

#[tokio::test]
async fn a_panic_while_an_event_is_taken_in_leaves_no_half_of_it_in_memory() {
    let (_server, _client, log) = server().await;
    let store = log.store::<Clumsy>();
    store.execute(&id("a"), &(), &cause()).await.unwrap();
    CLUMSY.store(true, Ordering::Relaxed);
    let panicking = store.clone();
    tokio::spawn(async move { panicking.execute(&id("a"), &(), &cause()).await }).await.unwrap_err();
    let executed = store.execute(&id("a"), &(), &cause()).await.unwrap();
    assert_eq!((executed.version, executed.state), (3, Clumsy { begun: 3, ended: 3 }));
}

#[tokio::test]
async fn a_writer_behind_another_reads_what_it_missed_and_not_everything() {
    let (server, client, log) = server().await;
    happen(&client, 1..=500).await;
    let behind = log.store::<Album>();
    behind.warm_up(&id("a")).await.unwrap();
    let other = EventLog::new(server.client().await, "/other").store::<Album>();
    other.execute(&id("a"), &text(501), &cause()).await.unwrap();
    let before = client.statistics().in_messages.load(Ordering::Relaxed);
    let executed = behind.execute(&id("a"), &text(502), &cause()).await.unwrap();
    assert_eq!((executed.version, executed.state), (502, album(502)));
    let read = client.statistics().in_messages.load(Ordering::Relaxed) - before;
    assert!(read < 20, "{read} messages after one event of another writer");
}
