//! The event store against a real server.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;

use async_nats::Client;
use async_nats::jetstream::stream::Config;
use futures::future::join_all;
use jetkit::testing::{NatsServer, eventually};
use jetkit::{Aggregate, Cause, EntityId, EventLog, EventSet, ExecuteError, Recorded, StoreError};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::link::Link;
use crate::toy::{self, Lamp, LampCommand, LampEvent, LampFitted, LampLit, LampRejection, SOON, cause, id};

fn fit(lamp: &str) -> LampCommand {
    LampCommand::Fit { lamp_id: id(lamp), watts: 60 }
}

fn light(lamp: &str, by: &str) -> LampCommand {
    LampCommand::Light { lamp_id: id(lamp), by: by.to_owned() }
}

#[tokio::test]
async fn a_decision_is_stored_under_its_version_and_read_back() {
    let (_server, _client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    let fitted = store.execute(&id("a"), &fit("a"), &cause()).await.unwrap();
    assert_eq!((fitted.version, fitted.repeated), (1, false));
    store.execute(&id("a"), &light("a", "ann"), &cause()).await.unwrap();
    let loaded = store.load(&id("a")).await.unwrap();
    assert_eq!((loaded.state, loaded.version), (Lamp { watts: 60, lit: 1 }, 2));
    let kinds: Vec<_> =
        store.history(&id("a")).await.unwrap().iter().map(|r| (r.event.kind().0, r.version)).collect();
    assert_eq!(kinds, [("lamp.fitted", 1), ("lamp.lit", 2)]);
    let read = log.read::<LampFitted>(&id("a"), 1).await.unwrap().unwrap();
    assert_eq!(read.watts, 60);
    assert!(log.read::<LampFitted>(&id("a"), 2).await.unwrap().is_none());
    assert_eq!(store.load(&id("nobody")).await.unwrap().version, 0);
}

#[tokio::test]
async fn a_refusal_writes_nothing_and_already_so_writes_nothing() {
    let (_server, _client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    let refused = store.execute(&id("a"), &light("a", "ann"), &cause()).await;
    assert!(matches!(refused, Err(ExecuteError::Rejected(LampRejection::NotFitted))));
    store.execute(&id("a"), &fit("a"), &cause()).await.unwrap();
    let again = store.execute(&id("a"), &fit("a"), &cause()).await.unwrap();
    assert_eq!((again.version, again.events.len(), again.repeated), (1, 0, false));
    assert_eq!(store.history(&id("a")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_same_command_for_the_same_cause_is_carried_out_once_and_answers_as_at_first() {
    let (_server, client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    store.execute(&id("a"), &fit("a"), &cause()).await.unwrap();
    let why = cause();
    let first = store.execute(&id("a"), &light("a", "ann"), &why).await.unwrap();
    store.execute(&id("a"), &light("a", "bob"), &cause()).await.unwrap();
    // In the same process, and in another one that has nothing in memory.
    for store in [store, EventLog::new(client, "/other").store::<Lamp>()] {
        let again = store.execute(&id("a"), &light("a", "ann"), &why).await.unwrap();
        assert!(again.repeated);
        assert_eq!(
            (again.version, again.sequence, again.events),
            (first.version, first.sequence, first.events.clone())
        );
        assert_eq!(again.state.lit, 1, "the answer is the first one");
        assert_eq!(store.history(&id("a")).await.unwrap().len(), 3);
    }
}

#[tokio::test]
async fn a_cause_used_for_two_commands_on_one_entity_is_an_error_unless_they_are_steps() {
    let (_server, _client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    let why = cause();
    store.execute(&id("a"), &fit("a"), &why).await.unwrap();
    let reused = store.execute(&id("a"), &light("a", "ann"), &why).await;
    assert!(matches!(reused, Err(ExecuteError::Store(StoreError::CauseReused { .. }))), "{reused:?}");
    store.execute(&id("a"), &light("a", "ann"), &why.step("light")).await.unwrap();
}

/// One command, which leads to one type of event first and to another one from then on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Handyman {
    fitted: bool,
}

impl Aggregate for Handyman {
    const ENTITY: &'static str = "lamp";
    type Event = LampEvent;
    type Command = EntityId;
    type Rejection = Infallible;

    fn decide(&self, lamp_id: &EntityId) -> Result<Vec<LampEvent>, Infallible> {
        let lamp_id = lamp_id.clone();
        let fit = LampFitted { lamp_id: lamp_id.clone(), watts: 60 };
        let light = LampLit { lamp_id, by: "him".to_owned() };
        Ok(vec![if self.fitted { light.into() } else { fit.into() }])
    }

    fn apply(&mut self, _: &LampEvent) {
        self.fitted = true;
    }
}

#[tokio::test]
async fn a_repeated_command_answers_as_at_first_even_if_it_would_decide_otherwise_now() {
    let (_server, client, log) = toy::server().await;
    let (store, why) = (log.store::<Handyman>(), cause());
    let first = store.execute(&id("a"), &id("a"), &why).await.unwrap();
    store.execute(&id("a"), &id("a"), &cause()).await.unwrap();
    for store in [store, EventLog::new(client, "/other").store::<Handyman>()] {
        let again = store.execute(&id("a"), &id("a"), &why).await.unwrap();
        assert!(again.repeated);
        assert_eq!((again.version, &again.events), (1, &first.events));
        assert_eq!(store.history(&id("a")).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn an_event_of_another_entity_is_refused_before_it_is_stored() {
    let (_server, _client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    let outcome = store.execute(&id("a"), &fit("b"), &cause()).await;
    let Err(ExecuteError::Store(error @ StoreError::Misplaced(_))) = outcome else { panic!("{outcome:?}") };
    assert!(error.to_string().ends_with("a lamp.fitted of b, decided on a"), "{error}");
    assert_eq!(
        (store.load(&id("a")).await.unwrap().version, store.load(&id("b")).await.unwrap().version),
        (0, 0)
    );
    store.execute(&id("a"), &fit("a"), &cause()).await.unwrap();
}

#[tokio::test]
async fn concurrent_writers_lose_no_update_and_overdraw_nothing() {
    let (server, _client, log) = toy::server().await;
    log.store::<Lamp>().execute(&id("a"), &fit("a"), &cause()).await.unwrap();
    // Four "processes" with four tasks each, each wanting ten of the hundred that there are.
    let mut tasks = Vec::new();
    for process in 0..4 {
        let store = EventLog::new(server.client().await, format!("/p{process}")).store::<Lamp>();
        for _ in 0..4 {
            let store = store.clone();
            tasks.push(tokio::spawn(async move {
                let (mut done, mut refused) = (0, 0);
                for _ in 0..10 {
                    let below = LampCommand::LightBelow { lamp_id: id("a"), count: 100 };
                    match store.execute(&id("a"), &below, &cause()).await {
                        Ok(_) => done += 1,
                        Err(ExecuteError::Rejected(LampRejection::WornOut)) => refused += 1,
                        Err(other) => panic!("{other}"),
                    }
                }
                (done, refused)
            }));
        }
    }
    let (mut done, mut refused) = (0, 0);
    for result in join_all(tasks).await {
        let (d, r) = result.unwrap();
        (done, refused) = (done + d, refused + r);
    }
    assert_eq!((done, refused), (100, 60));
    assert_eq!(log.store::<Lamp>().load(&id("a")).await.unwrap().state.lit, 100);
}

#[tokio::test]
async fn an_answer_that_writes_nothing_is_never_given_from_a_stale_memory() {
    let (_server, client, log) = toy::server().await;
    let (here, there) = (log.store::<Lamp>(), EventLog::new(client, "/other").store::<Lamp>());
    here.execute(&id("a"), &fit("a"), &cause()).await.unwrap();
    let below = LampCommand::LightBelow { lamp_id: id("a"), count: 1 };
    there.execute(&id("a"), &below, &cause()).await.unwrap();
    let refused = here.execute(&id("a"), &below, &cause()).await;
    assert!(matches!(refused, Err(ExecuteError::Rejected(LampRejection::WornOut))));
    let wrong = here.execute_at(&id("a"), 1, &light("a", "ann"), &cause()).await;
    assert!(matches!(wrong, Err(ExecuteError::VersionMismatch { actual: 2, .. })), "{wrong:?}");
    here.execute_at(&id("a"), 2, &light("a", "ann"), &cause()).await.unwrap();
}

#[tokio::test]
async fn half_of_a_two_event_decision_is_never_written() {
    let (_server, client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    let both =
        store.execute(&id("a"), &LampCommand::FitAndLight { lamp_id: id("a") }, &cause()).await.unwrap();
    assert_eq!((both.version, both.events.len()), (2, 2));
    // Somebody else holds version 2 of another lamp: the batch for versions 1 and 2 must leave no version 1.
    let body = br#"{"specversion":"1.0","id":"x","type":"lamp.lit","source":"/x","time":"2026-01-01T00:00:00Z","data":{"lamp_id":"b","by":"x"}}"#;
    let js = async_nats::jetstream::new(client);
    js.publish("lamp.lit.b.2", body.as_slice().into()).await.unwrap().await.unwrap();
    let broken = store.execute(&id("b"), &LampCommand::FitAndLight { lamp_id: id("b") }, &cause()).await;
    assert!(
        matches!(broken, Err(ExecuteError::Store(StoreError::Blocked { expected: 1, found: 2, .. }))),
        "{broken:?}"
    );
    assert!(log.read::<LampFitted>(&id("b"), 1).await.unwrap().is_none());
}

#[tokio::test]
async fn a_batch_of_which_a_message_or_the_answer_is_lost_is_stored_once() {
    let (server, client, _log) = toy::server().await;
    let link = Link::to(server.address()).await;
    let store = EventLog::new(link.client().await, "/test").store::<Lamp>();
    // Its first message, its last one, the server's answer to it.
    for (n, lost) in ["Nats-Batch-Sequence: 1", "Nats-Batch-Commit", "\"count\":2"].into_iter().enumerate() {
        let (lamp, cause) = (id(&format!("l{n}")), cause());
        link.lose_one(lost);
        let command = LampCommand::FitAndLight { lamp_id: lamp.clone() };
        let both = store.execute(&lamp, &command, &cause).await.unwrap();
        assert!(link.has_lost_all(), "{lost} was not sent");
        assert_eq!((both.version, both.events.len()), (2, 2), "{lost}");
        let again = store.execute(&lamp, &command, &cause).await.unwrap();
        assert_eq!((again.version, again.repeated), (2, true), "{lost}");
    }
    let stream = async_nats::jetstream::new(client).get_stream("EVENTS").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 6);
}

#[tokio::test]
async fn a_history_longer_than_one_read_is_read_whole() {
    let (_server, _client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    store.execute(&id("a"), &fit("a"), &cause()).await.unwrap();
    for _ in 0..1100 {
        store.execute(&id("a"), &light("a", "ann"), &cause()).await.unwrap();
    }
    let loaded = log.store::<Lamp>().load(&id("a")).await.unwrap();
    assert_eq!((loaded.version, loaded.state.lit), (1101, 1100));
}

#[tokio::test]
async fn an_adopted_event_keeps_its_id_although_the_original_has_the_same_message_id() {
    let (_server, client, log) = toy::server().await;
    let js = async_nats::jetstream::new(client);
    let body = r#"{"event_id":"e-1","event_type":"LampFitted","timestamp":"2024-01-01T00:00:00","version":1,"lamp_id":"a","power":"40 W"}"#;
    let message =
        async_nats::jetstream::message::PublishMessage::build().payload(body.into()).message_id("e-1");
    js.send_publish("lamp.fitted", message).await.unwrap().await.unwrap();
    let envelope = jetkit::Envelope::decode(body.as_bytes()).unwrap();
    let LampEvent::Fitted(fitted) = LampEvent::decode(&envelope).unwrap() else { panic!("not fitted") };
    let command = LampCommand::Fit { lamp_id: fitted.lamp_id.clone(), watts: fitted.watts };
    let meta = envelope.metadata().unwrap();
    let cause =
        Cause::adopting(&Recorded { event: fitted, stored_at: meta.time, meta, version: 0, sequence: 1 });
    for repeated in [false, true] {
        let executed = log.store::<Lamp>().execute(&id("a"), &command, &cause).await.unwrap();
        assert_eq!((executed.version, executed.repeated), (1, repeated));
    }
    let read = log.read::<LampFitted>(&id("a"), 1).await.unwrap().unwrap();
    assert_eq!((read.meta.id.as_str(), read.watts), ("e-1", 40));
    assert_eq!(read.meta.time.to_rfc3339(), "2024-01-01T00:00:00+00:00");
}

#[tokio::test]
async fn a_foreign_message_at_a_version_is_reported_as_corrupt() {
    let (_server, client, log) = toy::server().await;
    let js = async_nats::jetstream::new(client);
    js.publish("lamp.fitted.a.1", "not an event".into()).await.unwrap().await.unwrap();
    let corrupt = log.store::<Lamp>().load(&id("a")).await;
    assert!(matches!(corrupt, Err(StoreError::Corrupt { sequence: 1, .. })), "{corrupt:?}");
}

async fn forge(client: &Client, subject: &str, body: &str) {
    let js = async_nats::jetstream::new(client.clone());
    js.publish(subject.to_owned(), body.to_owned().into()).await.unwrap().await.unwrap();
}

fn forged(event_type: &str, lamp: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"forged","source":"/x","type":"{event_type}","time":"2026-01-01T00:00:00Z",
            "data":{{"lamp_id":"{lamp}","by":"mallory","watts":999}}}}"#
    )
}

#[tokio::test]
async fn an_event_is_not_believed_on_the_subject_of_another_type_or_entity() {
    let (_server, client, log) = toy::server().await;
    forge(&client, "lamp.lit.a.1", &forged("lamp.fitted", "a")).await;
    forge(&client, "lamp.fitted.b.1", &forged("lamp.fitted", "a")).await;
    let store = log.store::<Lamp>();
    for (lamp, subject) in [("a", "lamp.lit.a.1"), ("b", "lamp.fitted.b.1")] {
        let executed = store.execute(&id(lamp), &fit(lamp), &cause()).await;
        assert!(
            matches!(&executed, Err(ExecuteError::Store(StoreError::Corrupt { subject: s, .. })) if s == subject),
            "{executed:?}"
        );
        let told = executed.unwrap_err().to_string();
        assert!(told.contains(subject) && told.contains("lamp.fitted of a"), "{told}");
    }
}

#[tokio::test]
async fn what_nobody_appended_is_left_out_of_a_history() {
    let (_server, client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    store.execute(&id("a"), &fit("a"), &cause()).await.unwrap();
    store.execute(&id("a"), &light("a", "ann"), &cause()).await.unwrap();
    for subject in [
        "lamp.lit.a.777777", // far ahead
        "lamp.lit.a.5",      // beyond a hole
        "lamp.lit.a.1",      // a second one at a version, of another type
        "lamp.fitted.a.1",   // over an event
        "lamp.lit.a.0",      // no version
        "lamp.lit.a.03",     // no version either
        "lamp.lit.a.x",
    ] {
        forge(&client, subject, "garbage").await;
    }
    // In this process, and in one that has just started.
    for (store, version) in [(store, 3), (log.store::<Lamp>(), 4)] {
        let lit = store.execute(&id("a"), &light("a", "ann"), &cause()).await.unwrap();
        assert_eq!(
            (lit.version, lit.state),
            (version, Lamp { watts: 60, lit: u32::try_from(version).unwrap() - 1 })
        );
    }
    // The hole is filled: what stood beyond it is the history now, and is reported.
    let corrupt = log.store::<Lamp>().execute(&id("a"), &light("a", "ann"), &cause()).await;
    assert!(
        matches!(&corrupt, Err(ExecuteError::Store(StoreError::Corrupt { subject, .. })) if subject == "lamp.lit.a.5"),
        "{corrupt:?}"
    );
}

#[tokio::test]
async fn an_event_before_one_that_was_stored_too_early_is_not_called_foreign() {
    let (_server, client, log) = toy::server().await;
    forge(&client, "lamp.lit.a.2", &forged("lamp.lit", "a")).await;
    log.store::<Lamp>().execute(&id("a"), &fit("a"), &cause()).await.unwrap();
    let recorder = PrometheusBuilder::new().build_recorder();
    let _counts = metrics::set_default_local_recorder(&recorder);
    let foreign = || recorder.handle().render().contains("jetkit_foreign_messages_total");
    for overwritten in [false, true] {
        let loaded = log.store::<Lamp>().load(&id("a")).await.unwrap();
        assert_eq!((loaded.version, loaded.state), (2, Lamp { watts: 60, lit: 1 }));
        assert_eq!(foreign(), overwritten);
        forge(&client, "lamp.fitted.a.1", "garbage").await;
    }
}

#[tokio::test]
async fn a_number_past_every_version_is_in_no_history() {
    let (_server, client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    store.execute(&id("a"), &fit("a"), &cause()).await.unwrap();
    for number in [u64::MAX, 1 << 63] {
        forge(&client, &format!("lamp.lit.a.{number}"), &forged("lamp.lit", "a")).await;
        assert!(store.history_from(&id("a"), number).await.unwrap().is_empty());
        assert_eq!(store.load_at(&id("a"), number).await.unwrap().version, 1);
    }
}

#[tokio::test]
async fn a_command_survives_a_server_that_is_away_for_a_moment() {
    let (mut server, _client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    store.execute(&id("a"), &fit("a"), &cause()).await.unwrap();
    server.kill();
    let lighting = tokio::spawn(async move {
        store.execute(&id("a"), &light("a", "ann"), &cause()).await.map(|e| e.version)
    });
    server.restart().await;
    assert_eq!(lighting.await.unwrap().unwrap(), 2);
    let log = EventLog::new(server.client().await, "/test");
    assert_eq!(log.store::<Lamp>().load(&id("a")).await.unwrap().state.lit, 1);
}

#[tokio::test]
async fn an_event_that_is_too_large_is_refused_with_its_reason() {
    let (_server, _client, log) = toy::server().await;
    let store = log.store::<Lamp>();
    store.execute(&id("a"), &fit("a"), &cause()).await.unwrap();
    let large = store.execute(&id("a"), &light("a", &"x".repeat(300 * 1024)), &cause()).await;
    assert!(matches!(large, Err(ExecuteError::Store(StoreError::TooLarge(_)))), "{large:?}");
    assert_eq!(store.load(&id("a")).await.unwrap().version, 1);
}

/// A server on which half of the reads of the log are answered by a replica that lags: it has nothing yet.
async fn server_with_a_replica_that_lags() -> (NatsServer, Client, EventLog) {
    let (of_log, of_laggard) = ("$JS.API.DIRECT.GET.EVENTS", "$JS.API.DIRECT.GET.LAGGARD");
    let server = NatsServer::with_config(&format!(
        "mappings {{ \"{of_log}\": [
            {{ destination: \"{of_log}\", weight: 50% }}, {{ destination: \"{of_laggard}\", weight: 50% }}
        ] }}"
    ))
    .await;
    let (server, client, log) = toy::on(server).await;
    let laggard = Config { name: "LAGGARD".into(), allow_direct: true, ..Config::default() };
    async_nats::jetstream::new(client.clone()).create_stream(laggard).await.unwrap();
    (server, client, log)
}

#[tokio::test]
async fn a_replica_that_lags_has_nothing_refused_and_nothing_forgotten() {
    let (_server, client, log) = server_with_a_replica_that_lags().await;
    let store = log.store::<Lamp>();
    let lamps: Vec<_> = (0..32).map(|n| (format!("l{n}"), cause())).collect();
    for (lamp, lighting) in &lamps {
        store.execute(&id(lamp), &fit(lamp), &cause()).await.unwrap();
        store.execute(&id(lamp), &light(lamp, "ann"), lighting).await.unwrap();
    }
    let elsewhere = EventLog::new(client, "/elsewhere");
    for (lamp, lighting) in &lamps {
        // Another process reads an old state: no lamp is fitted.
        let lit = elsewhere.store::<Lamp>().execute(&id(lamp), &light(lamp, "bob"), &cause()).await.unwrap();
        assert_eq!((lit.version, lit.state.lit), (3, 2));
        let early = elsewhere.store::<Lamp>().execute_at(&id(lamp), 0, &light(lamp, "eve"), &cause()).await;
        assert!(matches!(early, Err(ExecuteError::VersionMismatch { actual: 3, .. })), "{early:?}");
        // Asked again, by one that has all in memory and by one that has not.
        for store in [store.clone(), elsewhere.store()] {
            let again = store.execute(&id(lamp), &light(lamp, "ann"), lighting).await.unwrap();
            assert!(again.repeated, "the first result was not found");
            assert_eq!((again.version, again.state.lit, again.events.len()), (2, 1, 1));
        }
    }
}

#[tokio::test]
async fn a_server_that_lost_the_end_of_its_log_is_given_nothing_beyond_it() {
    let (mut server, client, log) = toy::server().await;
    let connected = async |times| {
        let connects = || client.statistics().connects.load(Ordering::Relaxed);
        eventually(SOON, || async { (connects() == times).then_some(()) }).await;
    };
    let store = log.store::<Lamp>();
    store.execute(&id("a"), &fit("a"), &cause()).await.unwrap();
    store.execute(&id("b"), &fit("b"), &cause()).await.unwrap();
    let copy = |from: PathBuf, to: PathBuf| {
        assert!(Command::new("cp").arg("-R").args([from, to]).status().unwrap().success());
    };
    server.kill();
    let backup = TempDir::new().unwrap();
    copy(server.store(), backup.path().join("store"));
    server.restart().await;
    connected(2).await;
    store.execute(&id("a"), &light("a", "lost"), &cause()).await.unwrap();
    store.execute(&id("a"), &light("a", "lost too"), &cause()).await.unwrap();

    server.kill();
    std::fs::remove_dir_all(server.store()).unwrap();
    copy(backup.path().join("store"), server.store());
    server.restart().await;
    connected(3).await;
    let lit = store.execute(&id("a"), &light("a", "ann"), &cause()).await.unwrap();
    assert_eq!((lit.version, lit.state.lit), (2, 1));
    assert_eq!(store.execute(&id("b"), &light("b", "bob"), &cause()).await.unwrap().version, 2);
    let by: Vec<_> =
        store.history(&id("a")).await.unwrap().into_iter().map(|recorded| recorded.event).collect();
    assert_eq!(by, [LampFitted { lamp_id: id("a"), watts: 60 }.into(), toy::lit("a", "ann").into()]);
}
