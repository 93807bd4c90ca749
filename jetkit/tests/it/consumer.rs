//! The consumer runtime against a real server: every way in which a delivery can end.

use std::collections::HashMap;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config;
use async_nats::{Client, HeaderMap};
use chrono::{TimeDelta, Utc};
use jetkit::inbox::MemoryInbox;
use jetkit::testing::{Running, WrongClock, eventually, handled};
use jetkit::{
    Consumer, DeadLetter, EntityId, Event, EventLog, FailureClass, Followed, Follower, Handler, HandlerError,
    HandlerResult, Health, OrReject, OrderingKey, Original, Recorded, Upcaster, provision,
};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::toy::{self, LampFitted, LampLit, Notes, SOON, cause, lit};

/// A handler that is a closure over the event and its notes.
pub(crate) struct On<F>(pub(crate) F);

impl<F, Fut> Handler<LampLit> for On<F>
where
    F: Fn(Recorded<LampLit>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send,
{
    async fn handle(&self, event: Recorded<LampLit>) -> HandlerResult {
        (self.0)(event).await
    }
}

/// Writes down who lit what.
pub(crate) fn note(
    notes: &Notes,
) -> On<impl Fn(Recorded<LampLit>) -> std::future::Ready<HandlerResult> + use<>> {
    let notes = notes.clone();
    On(move |event: Recorded<LampLit>| {
        notes.add(&*event.by);
        std::future::ready(Ok(()))
    })
}

/// A consumer with the shortest useful patience.
pub(crate) fn quick(name: &str) -> Consumer {
    Consumer::new(name)
        .timeouts(Duration::from_millis(600), Duration::from_millis(700), Duration::from_secs(1))
        .retry_delays(Duration::from_millis(10), Duration::from_millis(50))
}

pub(crate) fn run(consumer: Consumer, client: &Client) -> Running {
    Running::start(consumer, client)
}

async fn publish(log: &EventLog, lamp: &str, by: impl IntoIterator<Item = impl ToString>) {
    let publisher = log.publisher();
    for by in by {
        publisher.publish(&lit(lamp, &by.to_string()), &cause()).await.unwrap();
    }
}

/// Every dead letter that there is, once there are `count`.
pub(crate) async fn dead_letters(client: &Client, count: usize) -> Vec<DeadLetter> {
    let mut follower = Follower::new(client.clone(), "DLQ", vec!["dlq.events.>".to_owned()], 1);
    let mut letters = Vec::new();
    let read = async {
        while letters.len() < count {
            if let Followed::Message(followed) = follower.next().await {
                let headers = followed.message.headers.unwrap_or_default();
                letters.push(DeadLetter::decode(&headers, followed.message.payload).unwrap());
            }
        }
    };
    tokio::time::timeout(SOON, read).await.expect("the dead letters came");
    letters
}

/// Waits until everything that is published by now is handled.
pub(crate) async fn settled(client: &Client, name: &str) {
    handled(SOON, client, "EVENTS", name).await;
}

#[tokio::test]
async fn every_event_is_handled_once_and_acknowledged() {
    let (_server, client, log) = toy::server().await;
    let notes = Notes::default();
    publish(&log, "a", 0..100).await;
    let running = run(quick("c").on::<LampLit>(note(&notes)), &client);
    publish(&log, "b", 100..200).await;
    let mut seen: Vec<u32> = notes.reach(200).await.iter().map(|n| n.parse().unwrap()).collect();
    settled(&client, "c").await;
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test]
async fn redelivery_has_no_second_effect() {
    let (_server, client, log) = toy::server().await;
    let notes = Notes::default();
    publish(&log, "a", 0..50).await;
    let running = run(quick("c").on::<LampLit>(note(&notes)), &client);
    notes.reach(50).await;
    settled(&client, "c").await;
    running.stop().await;
    // The durable forgets everything, as after a server crash that lost its acks: all fifty come again.
    let js = async_nats::jetstream::new(client.clone());
    js.delete_consumer_from_stream("c", "EVENTS").await.unwrap();
    let running = run(quick("c").on::<LampLit>(note(&notes)), &client);
    settled(&client, "c").await;
    publish(&log, "a", ["last"]).await;
    let all = notes.reach(51).await;
    assert_eq!((all.len(), all.last().unwrap().as_str()), (51, "last"));
    running.stop().await;
}

#[tokio::test]
async fn the_same_event_published_twice_has_one_effect_past_the_duplicate_window() {
    let (_server, client, log) = toy::server().await;
    let notes = Notes::default();
    let running = run(quick("c").on::<LampLit>(note(&notes)), &client);
    let cause = cause();
    let receipt = log.publisher().publish(&lit("a", "ann"), &cause).await.unwrap();
    let again = log.publisher().publish(&lit("a", "ann"), &cause).await.unwrap();
    assert!(again.duplicate && again.sequence == receipt.sequence);
    notes.reach(1).await;
    // The same bytes without the message id: the server stores them a second time.
    let js = async_nats::jetstream::new(client.clone());
    let stored = js.get_stream("EVENTS").await.unwrap().get_raw_message(receipt.sequence).await.unwrap();
    js.publish(stored.subject.to_string(), stored.payload).await.unwrap().await.unwrap();
    settled(&client, "c").await;
    assert_eq!(notes.all(), ["ann"]);
    running.stop().await;
}

#[tokio::test]
async fn an_undecodable_message_never_stops_a_consumer_and_is_kept_byte_for_byte() {
    let (_server, client, log) = toy::server().await;
    let notes = Notes::default();
    let running = run(quick("c").service_version("1.2.3").on::<LampLit>(note(&notes)), &client);
    let js = async_nats::jetstream::new(client.clone());
    let future = r#"{"specversion":"1.0","id":"f","type":"lamp.lit","dataversion":9,"time":"2026-01-01T00:00:00Z","data":{}}"#;
    let unknown =
        r#"{"specversion":"1.0","id":"u","type":"lamp.eaten","time":"2026-01-01T00:00:00Z","data":{}}"#;
    let shape = r#"{"specversion":"1.0","id":"s","type":"lamp.lit","time":"2026-01-01T00:00:00Z","data":{"lamp_id":"no dots."}}"#;
    let misplaced = r#"{"specversion":"1.0","id":"m","type":"lamp.lit","time":"2026-01-01T00:00:00Z","data":{"lamp_id":"other","by":"eve"}}"#;
    let poison: [&[u8]; 7] = [
        b"\xff\x00 not json",
        b"",
        b"[1,2]",
        future.as_bytes(),
        unknown.as_bytes(),
        shape.as_bytes(),
        misplaced.as_bytes(),
    ];
    for (n, body) in poison.iter().enumerate() {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("poison-{n}"));
        headers.insert("X-Trace", "t");
        let subject = format!("lamp.lit.p{n}.1");
        js.publish_with_headers(subject, headers, body.to_vec().into()).await.unwrap().await.unwrap();
    }
    publish(&log, "a", ["ann"]).await;
    notes.reach(1).await;
    let letters = dead_letters(&client, poison.len()).await;
    settled(&client, "c").await;
    for letter in &letters {
        let body = poison[usize::try_from(letter.original.sequence - 1).unwrap()];
        assert_eq!(letter.original.payload, body);
        assert_eq!((letter.class, letter.attempts), (FailureClass::Undecodable, 0));
        assert_eq!((letter.consumer.as_str(), letter.service_version.as_str()), ("c", "1.2.3"));
        assert!(
            letter.original.headers.get("X-Trace").is_some()
                && letter.original.headers.get("Nats-Msg-Id").is_some()
        );
        let told = letter.errors.join(": ");
        let is_object = letter.original.sequence > 3;
        assert_eq!(told.matches("not a JSON object").count(), usize::from(!is_object), "told once: {told}");
    }
    assert_eq!(notes.all(), ["ann"]);
    running.stop().await;
}

/// An event whose author made a mistake.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct LampMended {
    lamp_id: EntityId,
}

impl Event for LampMended {
    const TYPE: &'static str = "lamp.mended";
    const UPCASTERS: &'static [Upcaster] = &[|_| panic!("not thought of")];

    fn entity_id(&self) -> &EntityId {
        &self.lamp_id
    }
}

impl Handler<LampMended> for Notes {
    async fn handle(&self, event: Recorded<LampMended>) -> HandlerResult {
        self.add(event.lamp_id.as_str());
        Ok(())
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_read_without_a_panic_stops_no_consumer() {
    let (_server, client, _log) = toy::server().await;
    let notes = Notes::default();
    let running = run(quick("c").on::<LampMended>(notes.clone()), &client);
    let js = async_nats::jetstream::new(client.clone());
    for (lamp, version) in [("old", 1), ("new", 2)] {
        let body = format!(
            r#"{{"specversion":"1.0","id":"{lamp}","type":"lamp.mended","dataversion":{version},"time":"2026-01-01T00:00:00Z","data":{{"lamp_id":"{lamp}"}}}}"#
        );
        js.publish(format!("lamp.mended.{lamp}.1"), body.into()).await.unwrap().await.unwrap();
    }
    assert_eq!(notes.reach(1).await, ["new"]);
    let letter = dead_letters(&client, 1).await.remove(0);
    assert_eq!(letter.class, FailureClass::Undecodable);
    assert!(
        letter.errors[0].contains("reading a lamp.mended panicked: not thought of"),
        "{:?}",
        letter.errors
    );
    running.stop().await;
}

#[tokio::test]
async fn a_failing_handler_is_retried_with_delays_then_exhausted() {
    let (_server, client, log) = toy::server().await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let handler = On(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Err(anyhow::anyhow!("cause").context("effect").into()) }
    });
    let running = run(quick("c").max_attempts(3).on::<LampLit>(handler), &client);
    publish(&log, "a", ["ann"]).await;
    let letter = dead_letters(&client, 1).await.remove(0);
    settled(&client, "c").await;
    assert_eq!((letter.class, letter.attempts), (FailureClass::Exhausted, 3));
    assert_eq!(letter.errors, ["effect", "cause"]);
    assert!(letter.first_failed_at < letter.last_failed_at);
    assert_eq!(attempts.load(Ordering::SeqCst), 3);
    running.stop().await;
}

#[tokio::test]
async fn a_rejected_event_is_a_dead_letter_at_once() {
    let (_server, client, log) = toy::server().await;
    let handler = On(|event: Recorded<LampLit>| async move {
        event.by.parse::<u32>().or_reject()?;
        Ok(())
    });
    let running = run(quick("c").on::<LampLit>(handler), &client);
    publish(&log, "a", ["1", "no number", "2"]).await;
    let letter = dead_letters(&client, 1).await.remove(0);
    settled(&client, "c").await;
    assert_eq!((letter.class, letter.attempts), (FailureClass::Rejected, 1));
    running.stop().await;
}

#[tokio::test]
async fn a_panic_and_a_handler_that_never_ends_are_failures_like_any_other() {
    let (_server, client, log) = toy::server().await;
    let handler = On(|event: Recorded<LampLit>| async move {
        match event.by.as_str() {
            "panic" => panic!("oh no"),
            "hang" => std::future::pending().await,
            _ => Ok(()),
        }
    });
    let running = run(quick("c").max_attempts(2).on::<LampLit>(handler), &client);
    publish(&log, "a", ["panic"]).await;
    publish(&log, "b", ["hang"]).await;
    publish(&log, "c", ["fine"]).await;
    let letters = dead_letters(&client, 2).await;
    settled(&client, "c").await;
    let errors: Vec<_> = letters.iter().map(|letter| letter.errors[0].as_str()).collect();
    assert!(errors.iter().any(|e| e.contains("panicked: oh no")), "{errors:?}");
    assert!(errors.iter().any(|e| e.contains("did not end within")), "{errors:?}");
    running.stop().await;
}

#[tokio::test]
async fn only_the_failing_entity_waits_and_its_order_is_kept() {
    let (_server, client, log) = toy::server().await;
    let (notes, mended) = (Notes::default(), Arc::new(AtomicUsize::new(0)));
    let (noted, broken) = (notes.clone(), Arc::clone(&mended));
    let handler = On(move |event: Recorded<LampLit>| {
        let (noted, broken) = (noted.clone(), Arc::clone(&broken));
        async move {
            if event.by == "bad-1" && broken.load(Ordering::SeqCst) == 0 {
                return Err(anyhow::anyhow!("not yet").into());
            }
            noted.add(&*event.by);
            Ok(())
        }
    });
    let running = run(quick("c").max_attempts(1000).on::<LampLit>(handler), &client);
    publish(&log, "bad", ["bad-0", "bad-1", "bad-2", "bad-3"]).await;
    publish(&log, "good", (0..50).map(|n| format!("good-{n}"))).await;
    let before = notes.reach(51).await;
    assert!(!before.contains(&"bad-2".to_owned()), "it overtook the one that waits");
    mended.store(1, Ordering::SeqCst);
    let all = notes.reach(54).await;
    let of = |prefix: &str| all.iter().filter(|n| n.starts_with(prefix)).cloned().collect::<Vec<_>>();
    assert_eq!(of("bad"), ["bad-0", "bad-1", "bad-2", "bad-3"]);
    assert_eq!(of("good"), (0..50).map(|n| format!("good-{n}")).collect::<Vec<_>>());
    settled(&client, "c").await;
    running.stop().await;
}

#[tokio::test]
async fn entities_are_handled_in_parallel_up_to_the_limit() {
    let (_server, client, log) = toy::server().await;
    let (running_now, most, gate) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let handler = {
        let (running_now, most, gate) = (Arc::clone(&running_now), Arc::clone(&most), Arc::clone(&gate));
        On(move |_| {
            let (running_now, most, gate) = (Arc::clone(&running_now), Arc::clone(&most), Arc::clone(&gate));
            async move {
                let now = running_now.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                running_now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
    };
    let running = run(Consumer::new("c").concurrency(4).on::<LampLit>(handler), &client);
    for lamp in 0..20 {
        publish(&log, &format!("l{lamp}"), ["x"]).await;
    }
    eventually(SOON, || async { (running_now.load(Ordering::SeqCst) == 4).then_some(()) }).await;
    gate.add_permits(20);
    settled(&client, "c").await;
    assert_eq!(most.load(Ordering::SeqCst), 4);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_keeps_no_other_from_being_started() {
    let (_server, client, log) = toy::server().await;
    for lamp in ["a", "b"] {
        publish(&log, lamp, [lamp]).await;
    }
    let (begun, changed) = (Mutex::new(0), Condvar::new());
    let handler = On(move |_| {
        let mut begun = begun.lock().unwrap();
        *begun += 1;
        changed.notify_all();
        let (_begun, alone) =
            changed.wait_timeout_while(begun, Duration::from_secs(10), |begun| *begun < 2).unwrap();
        let result =
            if alone.timed_out() { Err(HandlerError::reject(anyhow::anyhow!("alone"))) } else { Ok(()) };
        std::future::ready(result)
    });
    let running = run(Consumer::new("c").on::<LampLit>(handler), &client);
    settled(&client, "c").await;
    let js = async_nats::jetstream::new(client.clone());
    assert_eq!(
        js.get_stream("DLQ").await.unwrap().cached_info().state.messages,
        0,
        "one waited for the other"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_handler_slower_than_ack_wait_runs_once_and_so_does_what_waits_behind_it() {
    let (_server, client, log) = toy::server().await;
    let notes = Notes::default();
    let noted = notes.clone();
    let handler = On(move |event: Recorded<LampLit>| {
        let noted = noted.clone();
        async move {
            noted.add(&*event.by);
            tokio::time::sleep(Duration::from_millis(900)).await;
            Ok(())
        }
    });
    // Four of one entity at 0.9 s each: the last waits in the buffer for more than two ack_waits of 1.5 s.
    let patience = [900, 1000, 1500].map(Duration::from_millis);
    let consumer =
        Consumer::new("c").timeouts(patience[0] + Duration::from_millis(90), patience[1], patience[2]);
    let running = run(consumer.on::<LampLit>(handler), &client);
    publish(&log, "a", 0..4).await;
    settled(&client, "c").await;
    assert_eq!(notes.all(), ["0", "1", "2", "3"]);
    let js = async_nats::jetstream::new(client.clone());
    let info =
        js.get_consumer_from_stream::<Config, _, _>("c", "EVENTS").await.unwrap().cached_info().clone();
    assert_eq!(
        (info.num_redelivered, info.delivered.consumer_sequence),
        (0, 4),
        "nothing was delivered a second time"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_stopped_consumer_finishes_what_runs_and_gives_back_the_rest_at_once() {
    let (_server, client, log) = toy::server().await;
    let (notes, started, go_on) = (Notes::default(), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (notes, started, go_on) = (notes.clone(), Arc::clone(&started), Arc::clone(&go_on));
        On(move |event: Recorded<LampLit>| {
            let (notes, started, go_on) = (notes.clone(), Arc::clone(&started), Arc::clone(&go_on));
            async move {
                if event.by == "0" {
                    started.notify_one();
                    go_on.notified().await;
                }
                notes.add(&*event.by);
                Ok(())
            }
        })
    };
    // An ack_wait so long that only a nak can bring the rest to the next replica in time.
    let running = run(Consumer::new("c").on::<LampLit>(handler), &client);
    publish(&log, "a", 0..20).await;
    started.notified().await;
    let js = async_nats::jetstream::new(client.clone());
    eventually(SOON, || async {
        let durable = js.get_consumer_from_stream::<Config, _, _>("c", "EVENTS").await.ok()?;
        (durable.cached_info().num_ack_pending == 20).then_some(())
    })
    .await;
    running.begin_stop();
    go_on.notify_one();
    running.ended().await.unwrap();
    assert_eq!(notes.all(), ["0"], "what ran was finished, what waited was not begun");
    let running = run(Consumer::new("c").on::<LampLit>(note(&notes)), &client);
    let mut all = notes.reach(20).await;
    all.sort_by_key(|n| n.parse::<u32>().unwrap());
    assert_eq!(all, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    settled(&client, "c").await;
    running.stop().await;
}

#[tokio::test]
async fn replicas_on_one_durable_share_the_work_and_repeat_none_of_it() {
    let (server, client, log) = toy::server().await;
    let notes = Notes::default();
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(run(
            quick("c").window(16).concurrency(8).on::<LampLit>(note(&notes)),
            &server.client().await,
        ));
    }
    for lamp in 0..30 {
        publish(&log, &format!("l{lamp}"), (0..20).map(|n| format!("{lamp}-{n}"))).await;
    }
    let all = notes.reach(600).await;
    settled(&client, "c").await;
    let mut counts = HashMap::new();
    for note in &all {
        *counts.entry(note).or_insert(0) += 1;
    }
    assert!(counts.len() == 600 && counts.values().all(|count| *count == 1));
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_server_restart_mid_stream_loses_and_repeats_nothing() {
    let (mut server, client, log) = toy::server().await;
    let notes = Notes::default();
    let running = run(quick("c").on::<LampLit>(note(&notes)), &client);
    for round in 0..3 {
        publish(&log, "a", (0..50).map(|n| format!("{round}-{n}"))).await;
        server.kill();
        server.restart().await;
    }
    publish(&log, "a", ["last"]).await;
    eventually(SOON, || async { (notes.count("last") == 1).then_some(()) }).await;
    settled(&client, "c").await;
    let mut all = notes.all();
    all.sort();
    let count = all.len();
    all.dedup();
    assert_eq!((count, all.len()), (151, 151), "handled, and handled once");
    running.stop().await;
}

#[tokio::test]
async fn a_deleted_durable_is_recreated_where_it_was() {
    let (_server, client, log) = toy::server().await;
    let notes = Notes::default();
    let running = run(quick("c").on::<LampLit>(note(&notes)), &client);
    publish(&log, "a", 0..10).await;
    notes.reach(10).await;
    settled(&client, "c").await;
    let js = async_nats::jetstream::new(client.clone());
    js.delete_consumer_from_stream("c", "EVENTS").await.unwrap();
    publish(&log, "a", 10..20).await;
    assert_eq!(notes.reach(20).await, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    settled(&client, "c").await;
    let info =
        js.get_consumer_from_stream::<Config, _, _>("c", "EVENTS").await.unwrap().cached_info().clone();
    assert!(info.delivered.consumer_sequence <= 10, "it did not start from the beginning");
    running.stop().await;
}

#[tokio::test]
async fn a_drifted_configuration_is_updated_in_place_or_refused_with_the_difference() {
    let (_server, client, log) = toy::server().await;
    let notes = Notes::default();
    let running = run(quick("c").on::<LampLit>(note(&notes)), &client);
    publish(&log, "a", ["before"]).await;
    notes.reach(1).await;
    settled(&client, "c").await;
    running.stop().await;
    // The next release handles one more type and has more patience.
    struct Fitter(Notes);
    impl Handler<LampFitted> for Fitter {
        async fn handle(&self, event: Recorded<LampFitted>) -> HandlerResult {
            self.0.add(format!("{} W", event.watts));
            Ok(())
        }
    }
    let running =
        run(Consumer::new("c").on::<LampLit>(note(&notes)).on::<LampFitted>(Fitter(notes.clone())), &client);
    let js = async_nats::jetstream::new(client.clone());
    eventually(SOON, || async {
        let durable = js.get_consumer_from_stream::<Config, _, _>("c", "EVENTS").await.ok()?;
        (durable.cached_info().config.ack_wait == Duration::from_secs(30)).then_some(())
    })
    .await;
    log.publisher().publish(&LampFitted { lamp_id: toy::id("b"), watts: 40 }, &cause()).await.unwrap();
    assert_eq!(notes.reach(2).await, ["before", "40 W"]);
    running.stop().await;
    // Somebody made a durable of the same name that acknowledges nothing: not ours to change.
    let config = Config {
        durable_name: Some("d".into()),
        ack_policy: async_nats::jetstream::consumer::AckPolicy::None,
        ..Config::default()
    };
    js.create_consumer_on_stream(config, "EVENTS").await.unwrap();
    let refused = run(quick("d").on::<LampLit>(note(&notes)), &client).ended().await.unwrap_err().to_string();
    assert!(refused.contains(r#"ack_policy: is "none", must be "explicit""#), "{refused}");
}

#[tokio::test]
async fn two_handlers_for_one_event_are_refused_at_start() {
    let (_server, client, _log) = toy::server().await;
    let notes = Notes::default();
    let consumer = Consumer::new("c").on::<LampLit>(note(&notes)).on::<LampLit>(note(&notes));
    let refused = run(consumer, &client).ended().await.unwrap_err();
    assert!(refused.to_string().contains("two handlers for lamp.lit"), "{refused:#}");
}

#[tokio::test]
async fn limits_out_of_order_are_refused_at_start() {
    let (_server, client, _log) = toy::server().await;
    let second = Duration::from_secs(1);
    let consumer = Consumer::new("c")
        .timeouts(second * 3, second * 2, second * 4)
        .on::<LampLit>(note(&Notes::default()));
    let refused = run(consumer, &client).ended().await.unwrap_err();
    assert!(format!("{refused:#}").contains("out of order"), "{refused:#}");
}

#[tokio::test]
async fn a_message_is_never_ended_before_its_dead_letter_is_stored() {
    let (_server, client, log) = toy::server().await;
    let js = async_nats::jetstream::new(client.clone());
    let health = Health::new();
    let consumer = quick("c").health(health.check("c"));
    let running = run(
        consumer.on::<LampLit>(On(|_| async { Err(HandlerError::reject(anyhow::anyhow!("no"))) })),
        &client,
    );
    // Running first: it needs the stream for its redrives. Then the stream takes nothing more.
    eventually(SOON, || async { js.get_consumer_from_stream::<Config, _, _>("c", "EVENTS").await.ok() })
        .await;
    let mut config = js.get_stream("DLQ").await.unwrap().cached_info().config.clone();
    let subjects = std::mem::replace(&mut config.subjects, vec!["elsewhere.>".to_owned()]);
    js.update_stream(&config).await.unwrap();
    publish(&log, "a", ["ann"]).await;
    let js_info = || async {
        let consumer = js.get_consumer_from_stream::<Config, _, _>("c", "EVENTS").await.ok()?;
        let info = consumer.cached_info();
        (info.num_ack_pending == 1).then_some(())
    };
    eventually(SOON, js_info).await;
    // It is no secret that nothing more is given up.
    let check = || health.report().checks["c: dead letters"].clone();
    let told = eventually(SOON, || async { Some(check()).filter(|told| !told.ready) }).await;
    assert!(told.detail.starts_with("dead letters cannot be stored"), "{}", told.detail);
    config.subjects = subjects;
    js.update_stream(&config).await.unwrap();
    assert_eq!(dead_letters(&client, 1).await[0].class, FailureClass::Rejected);
    settled(&client, "c").await;
    assert!(check().ready, "{}", check().detail);
    running.stop().await;
}

#[tokio::test]
async fn headers_without_room_for_more_stop_no_dead_letter() {
    let (_server, client, log) = toy::server().await;
    let notes = Notes::default();
    let running = run(quick("c").on::<LampLit>(note(&notes)), &client);
    let (mut one, mut many) = (HeaderMap::new(), HeaderMap::new());
    one.insert("X-Big", "a".repeat(65_450));
    one.insert("X-Small", "b");
    for n in 0..1000 {
        // Longer in a dead letter, where they are `Original-Nats-…`.
        many.insert(format!("Nats-{n:04}"), "c".repeat(50));
    }
    for (lamp, headers) in [("one", one), ("many", many)] {
        let subject = format!("lamp.lit.{lamp}.1");
        client.publish_with_headers(subject, headers, b"\xff no event".as_slice().into()).await.unwrap();
    }
    publish(&log, "other", ["ann"]).await;
    notes.reach(1).await;
    let letters = dead_letters(&client, 2).await;
    for letter in &letters {
        assert_eq!(letter.original.payload, b"\xff no event".as_slice());
        letter.redrive(&client, None).await.unwrap();
    }
    let again = dead_letters(&client, 4).await.split_off(2);
    for (again, first) in again.iter().zip(&letters) {
        assert_eq!((again.redrives, again.id()), (1, first.id()));
        assert_eq!(again.original.payload, first.original.payload);
        assert_eq!(again.original.headers, first.original.headers);
        assert_eq!(again.original.headers_dropped, first.original.headers_dropped);
    }
    let of = |lamp: &str| letters.iter().find(|letter| letter.original.subject.contains(lamp)).unwrap();
    assert_eq!((of("one").original.headers.len(), of("one").original.headers_dropped), (1, 1));
    assert!(of("one").original.headers.get("X-Small").is_some());
    let Original { headers, headers_dropped, .. } = &of("many").original;
    assert!(
        (1..1000).contains(headers_dropped) && headers.len() + headers_dropped == 1000,
        "{headers_dropped}"
    );

    let mended = r#"{"specversion":"1.0","id":"m","type":"lamp.lit","time":"2026-01-01T00:00:00Z","data":{"lamp_id":"one","by":"eve"}}"#;
    let one = again.iter().find(|letter| letter.original.subject.contains("one")).unwrap();
    one.redrive(&client, Some(mended.into())).await.unwrap();
    assert_eq!(notes.reach(2).await, ["ann", "eve"]);
    again[0].dismiss(&client).await.unwrap();
    settled(&client, "c").await;
    running.stop().await;
}

#[tokio::test]
async fn redriving_reaches_only_the_consumer_that_failed() {
    let (_server, client, log) = toy::server().await;
    let (notes, other) = (Notes::default(), Notes::default());
    let noted = notes.clone();
    let picky = On(move |event: Recorded<LampLit>| {
        let noted = noted.clone();
        async move {
            event.by.parse::<u32>().or_reject()?;
            noted.add(&*event.by);
            Ok(())
        }
    });
    let running = [
        run(quick("picky").on::<LampLit>(picky), &client),
        run(quick("other").on::<LampLit>(note(&other)), &client),
    ];
    publish(&log, "a", ["bad"]).await;
    let letter = dead_letters(&client, 1).await.remove(0);
    other.reach(1).await;
    // As it was: it fails again, as a dead letter of its own that knows of the redrive.
    letter.redrive(&client, None).await.unwrap();
    let again = dead_letters(&client, 2).await.remove(1);
    assert_eq!((again.redrives, again.id()), (1, letter.id()));
    assert_eq!(again.original.payload, letter.original.payload);
    // Mended.
    let mended = String::from_utf8(letter.original.payload.to_vec()).unwrap().replace("bad", "17");
    again.redrive(&client, Some(mended.into())).await.unwrap();
    assert_eq!(notes.reach(1).await, ["17"]);
    assert_eq!(other.all(), ["bad"], "nobody else saw the event again");
    for running in running {
        running.stop().await;
    }
}

#[tokio::test]
async fn a_subject_that_cannot_be_repeated_stops_no_dead_letter() {
    let (_server, client, _log) = toy::server().await;
    let notes = Notes::default();
    let running = run(quick("owner").adopt::<LampLit>(note(&notes)), &client);
    let js = async_nats::jetstream::new(client.clone());
    // The durables are there: nothing is missed.
    eventually(SOON, || async { js.get_consumer_from_stream::<Config, _, _>("owner", "EVENTS").await.ok() })
        .await;
    let headers = |sequence: usize, subject: &str| {
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in [
            ("Dlq-Consumer", "owner"),
            ("Dlq-Class", "rejected"),
            ("Dlq-Errors", "[]"),
            ("Dlq-Attempts", "1"),
            ("Dlq-First-Failed-At", "2026-01-01T00:00:00Z"),
            ("Dlq-Last-Failed-At", "2026-01-01T00:00:00Z"),
            ("Dlq-Service-Version", "1"),
            ("Dlq-Redrives", "4294967295"),
            ("Dlq-Stream", "EVENTS"),
            ("Dlq-Sequence", &sequence.to_string()),
            ("Dlq-Subject", subject),
        ] {
            headers.insert(name, value);
        }
        headers
    };
    let unheard = ["", "lamp", "lamp.a b", "lamp.*.x.1", ".."];
    for (n, subject) in unheard.iter().enumerate() {
        let headers = headers(n + 100, subject);
        let sent = js.publish_with_headers("dlq.redrive.owner", headers, "nonsense".into()).await;
        sent.unwrap().await.unwrap();
    }
    // With it, the dead letter's would be longer than the server takes.
    let long = format!("lamp.{}.x", "a".repeat(4045));
    client.publish(long, "nonsense".into()).await.unwrap();
    let letters = dead_letters(&client, unheard.len() + 1).await;
    assert!(letters.iter().all(|letter| letter.original.payload == "nonsense"));
    settled(&client, "owner").await;
    running.stop().await;
}

#[tokio::test]
async fn an_adopted_event_that_waits_holds_up_nothing_that_it_may_be_waiting_for() {
    let (_server, client, log) = toy::server().await;
    /// Adopts a lamp when it has been lit, and waits until then.
    struct Later(Notes);
    impl Handler<LampFitted> for Later {
        async fn handle(&self, _: Recorded<LampFitted>) -> HandlerResult {
            if self.0.all().is_empty() {
                return Err(HandlerError::Retry(anyhow::anyhow!("not lit yet")));
            }
            self.0.add("fitted");
            Ok(())
        }
    }
    let notes = Notes::default();
    let consumer = quick("owner").ordered_by(OrderingKey::Correlation).max_attempts(1000);
    let consumer = consumer.adopt::<LampFitted>(Later(notes.clone())).on::<LampLit>(note(&notes));
    let running = run(consumer, &client);
    let request = cause();
    let fitted = r#"{"specversion":"1.0","id":"e-1","source":"/script","type":"lamp.fitted","time":"2024-01-01T00:00:00Z","dataversion":2,"correlationid":"CORRELATION","data":{"lamp_id":"b","watts":60}}"#;
    let fitted = fitted.replace("CORRELATION", request.correlation_id().as_str());
    client.publish("lamp.fitted", fitted.into()).await.unwrap();
    log.publisher().publish(&lit("b", "ann"), &request).await.unwrap();
    assert_eq!(notes.reach(2).await, ["ann", "fitted"]);
    settled(&client, "owner").await;
    running.stop().await;
}

#[tokio::test]
async fn other_producers_events_are_adopted_and_their_nonsense_is_a_dead_letter() {
    let (_server, client, _log) = toy::server().await;
    struct Adopter(Notes);
    impl Handler<LampFitted> for Adopter {
        async fn handle(&self, event: Recorded<LampFitted>) -> HandlerResult {
            self.0.add(format!("{} {} W, version {}", event.lamp_id, event.watts, event.version));
            Ok(())
        }
    }
    let notes = Notes::default();
    let running = run(quick("owner").adopt::<LampFitted>(Adopter(notes.clone())), &client);
    let flat = r#"{"event_id":"e-1","event_type":"LampFitted","timestamp":"2024-01-01T00:00:00Z","version":1,"lamp_id":"a","power":"40 W"}"#;
    let cloud = r#"{"specversion":"1.0","id":"e-2","source":"/script","type":"lamp.fitted","time":"2024-01-01T00:00:00Z","dataversion":2,"data":{"lamp_id":"b","watts":60}}"#;
    let js = async_nats::jetstream::new(client.clone());
    for (subject, body) in [
        ("lamp.fitted", flat),
        ("lamp.fitted.b", cloud),
        ("lamp.fitted", "nonsense"),
        ("lamp.eaten.c", cloud),
        // Another lamp under the id of the first: not a repetition of it.
        ("lamp.fitted", &flat.replace("\"a\"", "\"z\"")),
    ] {
        js.publish(subject, body.to_owned().into()).await.unwrap().await.unwrap();
    }
    let mut adopted = notes.reach(3).await;
    adopted.sort();
    assert_eq!(adopted[0], "a 40 W, version 0");
    assert_eq!(adopted[1..], ["b 60 W, version 0", "z 40 W, version 0"]);
    settled(&client, "owner").await;
    let mut letters = dead_letters(&client, 2).await;
    letters.sort_by_key(|letter| letter.original.sequence);
    assert_eq!(letters[0].original.payload, "nonsense");
    assert!(letters[1].errors[0].contains("stands on lamp.eaten.c"), "{:?}", letters[1].errors);
    running.stop().await;
}

#[tokio::test]
async fn timers_are_kept_apart_come_when_due_and_survive_the_server() {
    timers_come_when_due().await;
}

#[tokio::test]
async fn no_timer_comes_early_by_a_clock_that_is_twenty_minutes_behind() {
    let test = "consumer::no_timer_comes_early_by_a_clock_that_is_twenty_minutes_behind";
    if WrongClock::of_test(test, -TimeDelta::minutes(20)).is_some() {
        timers_come_when_due().await;
    }
}

#[tokio::test]
async fn no_timer_comes_late_by_a_clock_that_is_a_day_ahead() {
    let test = "consumer::no_timer_comes_late_by_a_clock_that_is_a_day_ahead";
    if WrongClock::of_test(test, TimeDelta::days(1)).is_some() {
        timers_come_when_due().await;
    }
}

async fn timers_come_when_due() {
    let (mut server, client, log) = toy::server().await;
    let (notes, why) = (Notes::default(), cause());
    let (now, later) = (Duration::ZERO, Duration::from_secs(2));
    let start = Utc::now();
    for (lamp, after) in [("a", later), ("b", now), ("c", later)] {
        log.timers("c").set(after, &lit(lamp, lamp), &why).await.unwrap();
    }
    let passed = chrono::DateTime::UNIX_EPOCH;
    log.timers("c").set_at(passed, &lit("d", "d"), &why).await.unwrap();
    log.timers("other").set(now, &lit("x", "not ours"), &why).await.unwrap();
    // Set again, as after a redelivery: it is the same timer.
    log.timers("c").set(now, &lit("b", "b"), &why).await.unwrap();
    server.kill();
    server.restart().await;
    let running = run(quick("c").on_timer::<LampLit>(note(&notes)), &client);
    let mut all = notes.reach(4).await;
    all.sort();
    assert_eq!(all, ["a", "b", "c", "d"]);
    assert!(Utc::now() > start + TimeDelta::seconds(1), "none came before its time");
    running.stop().await;
}

#[tokio::test]
async fn a_timer_that_was_cancelled_never_comes_and_the_others_do() {
    let (mut server, client, log) = toy::server().await;
    let (timers, notes, second) = (log.timers("c"), Notes::default(), Duration::from_secs(1));
    for (lamp, after) in [("a", second), ("b", second), ("c", second * 3)] {
        timers.set(after, &lit(lamp, lamp), &cause()).await.unwrap();
    }
    timers.cancel::<LampLit>(&toy::id("a")).await.unwrap();
    timers.cancel::<LampLit>(&toy::id("never-set")).await.unwrap();
    // Not even by a server that reads its timers anew.
    server.kill();
    server.restart().await;
    let running = run(quick("c").on_timer::<LampLit>(note(&notes)), &client);
    let mut all = notes.reach(2).await;
    all.sort();
    assert_eq!(all, ["b", "c"], "c was due two seconds after a would have been");
    running.stop().await;
}

/// The other process of the test below: handles lamps, and is killed by one of them.
#[tokio::test]
async fn child_that_a_message_kills() {
    let Ok(url) = std::env::var("EVENTKIT_TEST_CHILD_OF") else { return };
    let client = async_nats::connect(url).await.unwrap();
    let handler = On(|event: Recorded<LampLit>| async move {
        if event.by == "killer" {
            std::process::exit(9);
        }
        // Slow enough that the killer takes it along.
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    });
    let consumer = quick("c").max_attempts(4).on::<LampLit>(handler);
    consumer.run(client, CancellationToken::new()).await.unwrap();
}

#[tokio::test]
async fn a_message_that_kills_its_process_is_dead_lettered_and_takes_no_other_along() {
    a_message_kills_its_process_by_a_clock_wrong_by(TimeDelta::zero()).await;
}

#[tokio::test]
async fn a_message_that_kills_its_process_is_dead_lettered_as_soon_by_a_slow_clock() {
    a_message_kills_its_process_by_a_clock_wrong_by(-TimeDelta::minutes(10)).await;
}

async fn a_message_kills_its_process_by_a_clock_wrong_by(wrong_by: TimeDelta) {
    let (server, client, log) = toy::server().await;
    for lamp in 0..8 {
        publish(&log, &format!("l{lamp}"), ["innocent"]).await;
    }
    publish(&log, "k", ["killer"]).await;
    for lamp in 8..16 {
        publish(&log, &format!("l{lamp}"), ["innocent"]).await;
    }
    let url = server.url();
    let children = tokio::task::spawn_blocking(move || {
        let clock = WrongClock::new(wrong_by);
        let mut ends = Vec::new();
        for _ in 0..4 {
            let mut child = Command::new(std::env::current_exe().unwrap());
            clock.give_to(&mut child);
            child.args(["--exact", "consumer::child_that_a_message_kills", "--nocapture"]);
            ends.push(child.env("EVENTKIT_TEST_CHILD_OF", &url).output().unwrap().status.code());
        }
        ends
    });
    assert_eq!(children.await.unwrap(), [Some(9); 4], "the message killed four processes");
    let notes = Notes::default();
    let running = run(quick("c").max_attempts(4).on::<LampLit>(note(&notes)), &client);
    settled(&client, "c").await;
    let letters = dead_letters(&client, 1).await;
    assert_eq!((letters.len(), letters[0].class, letters[0].attempts), (1, FailureClass::Crashed, 4));
    assert_eq!(notes.count("killer"), 0, "it was not started once more");
    assert_eq!(
        async_nats::jetstream::new(client).get_stream("DLQ").await.unwrap().cached_info().state.messages,
        1
    );
    running.stop().await;
}

#[tokio::test]
async fn a_set_in_memory_serves_a_consumer_too() {
    let (_server, client, log) = toy::server().await;
    let notes = Notes::default();
    let inbox = Arc::new(MemoryInbox::new(Duration::from_secs(1)));
    let running = run(quick("c").inbox(inbox).on::<LampLit>(note(&notes)), &client);
    publish(&log, "a", 0..10).await;
    notes.reach(10).await;
    settled(&client, "c").await;
    running.stop().await;
}

#[tokio::test]
async fn a_recreated_stream_is_read_from_its_beginning() {
    let (_server, client, log) = toy::server().await;
    let notes = Notes::default();
    publish(&log, "a", 0..20).await;
    let running = run(quick("c").on::<LampLit>(note(&notes)), &client);
    notes.reach(20).await;
    settled(&client, "c").await;
    let js = async_nats::jetstream::new(client.clone());
    js.delete_stream("EVENTS").await.unwrap();
    provision::streams(&client, &toy::catalog(), 1).await.unwrap();
    publish(&log, "a", ["new", "newer"]).await;
    let all = notes.reach(22).await;
    assert_eq!(all[20..], ["new", "newer"]);
    settled(&client, "c").await;
    running.stop().await;
}
