//! Snapshots cost time when they are missing or wrong, never correctness.

use async_nats::Client;
use async_nats::jetstream::{self, message::PublishMessage};
use futures::{StreamExt, TryStreamExt};
use jetkit::testing::eventually;
use jetkit::{Aggregate, Cause, EventLog, EventStore, StoreError, provision};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::toy::{self, Lamp, LampCommand, LampEvent, LampLit, LampRejection, SOON, cause, id, lit};

/// A lamp as a later release knows it: its state has another shape.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct LaterLamp {
    events: u32,
}

impl Aggregate for LaterLamp {
    const ENTITY: &'static str = "lamp";
    const STATE_VERSION: u32 = 2;
    type Event = LampEvent;
    type Command = ();
    type Rejection = LampRejection;

    fn decide(&self, (): &()) -> Result<Vec<LampEvent>, LampRejection> {
        Ok(vec![])
    }

    fn apply(&mut self, _: &LampEvent) {
        self.events += 1;
    }
}

const KEY: &str = "$KV.SNAPSHOTS.lamp.a";

async fn light(store: &EventStore<Lamp>, times: u32) {
    store.execute(&id("a"), &LampCommand::Fit { lamp_id: id("a"), watts: 60 }, &cause()).await.unwrap();
    for _ in 0..times {
        let light = LampCommand::Light { lamp_id: id("a"), by: "ann".to_owned() };
        store.execute(&id("a"), &light, &cause()).await.unwrap();
    }
}

async fn snapshot(client: &Client) -> Option<Value> {
    let js = jetstream::new(client.clone());
    let stream = js.get_stream("KV_SNAPSHOTS").await.unwrap();
    let message = stream.direct_get_last_for_subject(KEY).await.ok()?;
    // What a test has put there need not be a snapshot.
    serde_json::from_slice(&message.payload).ok()
}

async fn snapshot_at(client: &Client, version: u64) -> Value {
    eventually(SOON, || async { snapshot(client).await.filter(|s| s["version"] == version) }).await
}

async fn overwrite(client: &Client, value: &str) {
    let js = jetstream::new(client.clone());
    js.publish(KEY, value.to_owned().into()).await.unwrap().await.unwrap();
}

/// What only a load that starts from the snapshot can know.
async fn mark_snapshot(client: &Client, version: u64) -> Value {
    let mut marked = snapshot_at(client, version).await;
    marked["state"]["watts"] = json!(61);
    overwrite(client, &marked.to_string()).await;
    marked
}

#[tokio::test]
async fn a_cold_load_starts_from_the_snapshot_and_reads_what_came_after() {
    let (_server, client, log) = toy::server().await;
    light(&log.store(), 139).await;
    mark_snapshot(&client, 100).await;
    let loaded = log.store::<Lamp>().load(&id("a")).await.unwrap();
    assert_eq!((loaded.version, loaded.state), (140, Lamp { watts: 61, lit: 139 }));
}

#[tokio::test]
async fn a_missing_stale_corrupt_or_foreign_snapshot_changes_nothing() {
    let (_server, client, log) = toy::server().await;
    light(&log.store(), 139).await;
    let good = mark_snapshot(&client, 100).await;
    let with = |field: &str, value: Value| {
        let mut wrong = good.clone();
        wrong[field] = value;
        wrong.to_string()
    };
    // As long as it must be, and ending as it must.
    let recent = |len: usize| json!(vec![&good["recent"][99]; len]);
    let at = |version: u64| {
        let mut wrong = good.clone();
        wrong["version"] = json!(version);
        wrong["recent"] = recent(usize::try_from(version).unwrap().min(4096));
        wrong.to_string()
    };
    for wrong in [
        String::new(), // deleted, as the `nats` command does it
        "not JSON".to_owned(),
        "{}".to_owned(),
        with("entity", json!("bulb")),
        with("id", json!("b")),
        with("state_version", json!(2)),
        with("state", json!("bright")),
        with("version", json!(0)),
        at(99),        // of another event than its sequence says
        at(1_000_000), // ahead of the log
        at(1 << 63),   // no version
        at(u64::MAX),
        with("sequence", json!(1_000_000)),
        with("recent", json!([])),
        with("recent", recent(99)),
        with("recent", recent(101)),
        with("recent", json!(vec![1; 100])), // ends with another event than the log has there
    ] {
        overwrite(&client, &wrong).await;
        let loaded = log.store::<Lamp>().load(&id("a")).await.unwrap();
        assert_eq!((loaded.version, loaded.state), (140, Lamp { watts: 60, lit: 139 }), "{wrong}");
        // The load has written a new one.
        snapshot_at(&client, 140).await;
    }
    jetstream::new(client.clone()).delete_stream("KV_SNAPSHOTS").await.unwrap();
    let executed = log
        .store::<Lamp>()
        .execute(&id("a"), &LampCommand::Light { lamp_id: id("a"), by: "ann".to_owned() }, &cause())
        .await
        .unwrap();
    assert_eq!((executed.version, executed.state.lit), (141, 140));
}

#[tokio::test]
async fn a_snapshot_of_another_state_version_is_replaced() {
    let (_server, client, log) = toy::server().await;
    light(&log.store(), 139).await;
    snapshot_at(&client, 100).await;
    let loaded = log.store::<LaterLamp>().load(&id("a")).await.unwrap();
    assert_eq!((loaded.version, loaded.state), (140, LaterLamp { events: 140 }));
    assert_eq!(snapshot_at(&client, 140).await["state_version"], 2);
}

#[tokio::test]
async fn a_repeated_command_is_recognised_behind_a_snapshot() {
    let (_server, client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    light(&store, 49).await;
    let why = cause();
    let by_ann = LampCommand::Light { lamp_id: id("a"), by: "ann".to_owned() };
    let first = store.execute(&id("a"), &by_ann, &why).await.unwrap();
    for _ in 0..1500 {
        store.execute(&id("a"), &by_ann, &cause()).await.unwrap();
    }
    let written = eventually(SOON, || async {
        snapshot(&client).await.filter(|snapshot| snapshot["version"].as_u64() >= Some(1400))
    });
    assert!(written.await["recent"].as_array().unwrap().len() >= 1400);
    for store in [store, EventLog::new(client, "/other").store::<Lamp>()] {
        let again = store.execute(&id("a"), &by_ann, &why).await.unwrap();
        assert!(again.repeated);
        assert_eq!((again.version, again.sequence), (first.version, first.sequence));
        assert_eq!((again.state, again.events), (first.state.clone(), first.events.clone()));
        assert_eq!(store.load(&id("a")).await.unwrap().version, 1551);
    }
}

#[tokio::test]
async fn two_ids_with_one_fingerprint_are_two_commands() {
    let (_server, _client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    store.execute(&id("a"), &LampCommand::Fit { lamp_id: id("a"), watts: 60 }, &cause()).await.unwrap();
    // "costarring" and "liquid" have the same FNV-1a hash of 32 bits.
    for (name, version) in [("costarring", 2), ("liquid", 3)] {
        let mut other = log.read::<toy::LampFitted>(&id("a"), 1).await.unwrap().unwrap();
        other.meta.id = jetkit::EventId::new(name).unwrap();
        let by_ann = LampCommand::Light { lamp_id: id("a"), by: "ann".to_owned() };
        let executed = store.execute(&id("a"), &by_ann, &Cause::adopting(&other)).await.unwrap();
        assert_eq!((executed.version, executed.repeated), (version, false));
    }
}

#[tokio::test]
async fn a_state_of_any_version_can_be_loaded() {
    let (_server, client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    light(&store, 1199).await;
    eventually(SOON, || async { snapshot(&client).await.filter(|s| s["version"].as_u64() >= Some(1100)) })
        .await;
    for version in [1, 2, 99, 100, 101, 511, 600, 1023, 1024, 1100, 1199, 1200] {
        let then = store.load_at(&id("a"), version).await.unwrap();
        let lit = u32::try_from(version).unwrap() - 1;
        assert_eq!((then.version, then.state), (version, Lamp { watts: 60, lit }));
        assert_eq!(then.sequence, version, "nothing else is on this log");
    }
    assert_eq!(store.load_at(&id("a"), 5000).await.unwrap().version, 1200);
    assert_eq!(store.load_at(&id("a"), 0).await.unwrap().version, 0);
    let tail = store.history_from(&id("a"), 1199).await.unwrap();
    assert_eq!(tail.iter().map(|recorded| recorded.version).collect::<Vec<_>>(), [1199, 1200]);
    assert!(store.history_from(&id("a"), 1201).await.unwrap().is_empty());
    let missing = store.get(&id("nobody")).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })), "{missing:?}");
}

#[tokio::test]
async fn the_log_is_replayed_from_one_place_to_another_and_ends() {
    let (_server, client, log) = toy::server().await;
    assert_eq!(log.replay::<LampEvent>(1, u64::MAX).count().await, 0);
    light(&log.store(), 5).await;
    log.publisher().publish(&lit("b", "bob"), &cause()).await.unwrap();
    let js = jetstream::new(client);
    let garbage = PublishMessage::build().payload("garbage".into());
    js.send_publish("lamp.lit.c.1", garbage).await.unwrap().await.unwrap();

    let whole: Vec<_> = log.replay::<LampEvent>(1, 7).try_collect().await.unwrap();
    assert_eq!(whole.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    let part: Vec<_> = log.replay::<LampEvent>(3, 4).try_collect().await.unwrap();
    assert_eq!(
        part.iter().map(|event| (event.sequence, event.version)).collect::<Vec<_>>(),
        [(3, 3), (4, 4)]
    );
    let of_type: Vec<_> = log.events_of::<LampLit>(6).collect().await;
    assert!(matches!(&of_type[..], [Ok(a), Ok(b), Err(StoreError::Corrupt { sequence: 8, .. })]
        if (a.sequence, &*b.by) == (6, "bob")));
    assert_eq!(log.replay::<LampEvent>(9, u64::MAX).count().await, 0);
}

#[tokio::test]
async fn the_bucket_of_snapshots_is_a_key_value_bucket() {
    let (_server, client, _log) = toy::server().await;
    let bucket = jetstream::new(client).get_key_value(provision::SNAPSHOTS).await.unwrap();
    bucket.put("lamp.a", "1".into()).await.unwrap();
    bucket.put("lamp.a", "2".into()).await.unwrap();
    assert_eq!(bucket.get("lamp.a").await.unwrap().unwrap(), "2".as_bytes());
    assert_eq!(bucket.status().await.unwrap().history(), 1);
}
