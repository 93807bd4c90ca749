//! A consumer says that it is not ready when its work is not done, and why; and is ready again when it is.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{self, consumer};
use jetkit::testing::eventually;
use jetkit::{Check, Consumer, Event, EventLog, Handler, HandlerResult, Health, Recorded, provision};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::sync::Semaphore;

use crate::consumer::{On, note, quick, run, settled};
use crate::toy::{self, LampFitted, LampLit, Notes, SOON, cause, lit};

async fn publish(log: &EventLog, by: impl IntoIterator<Item = u32>) {
    for by in by {
        log.publisher().publish(&lit(&format!("l{}", by % 7), &by.to_string()), &cause()).await.unwrap();
    }
}

fn reporting(health: &Health, consumer: Consumer) -> Consumer {
    consumer.health(health.check("consumer c"))
}

async fn ready(health: &Health) {
    eventually(SOON, || async { health.report().ready.then_some(()) }).await;
}

/// The check, once it is not ready.
async fn red(health: &Health, check: &str) -> Check {
    eventually(SOON * 2, || async { health.report().checks.get(check).filter(|check| !check.ready).cloned() })
        .await
}

async fn info(client: &Client, stream: &str) -> consumer::Info {
    let js = jetstream::new(client.clone());
    let durable = js.get_consumer_from_stream::<consumer::pull::Config, _, _>("c", stream).await.unwrap();
    durable.cached_info().clone()
}

#[tokio::test]
async fn a_deleted_idempotency_set_is_made_again_and_the_consumer_goes_on() {
    let (_server, client, log) = toy::server().await;
    let (health, notes) = (Health::new(), Notes::default());
    let failing = Arc::new(Semaphore::new(2));
    let noted = notes.clone();
    let handler = On(move |event: Recorded<LampLit>| {
        let failed =
            event.by == "5" && failing.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_ok();
        if !failed {
            noted.add(&*event.by);
        }
        std::future::ready(if failed { Err(anyhow::anyhow!("not yet").into()) } else { Ok(()) })
    });
    let running = run(reporting(&health, quick("c").on::<LampLit>(handler)), &client);
    // Claims and marks stand in the stream that goes.
    publish(&log, 0..20).await;
    notes.reach(20).await;
    ready(&health).await;
    let js = jetstream::new(client.clone());
    js.delete_stream("INBOX_c").await.unwrap();
    publish(&log, 20..40).await;
    settled(&client, "c").await;
    assert!(js.get_stream("INBOX_c").await.unwrap().cached_info().state.messages > 0, "it has marks again");
    ready(&health).await;
    // One mark of each event before is in memory still, and new ones are read from the new stream.
    publish(&log, 40..41).await;
    notes.reach(41).await;
    running.stop().await;
}

#[tokio::test]
async fn marks_that_cannot_be_written_turn_readiness_red_until_they_can() {
    let (_server, client, log) = toy::server().await;
    let (health, notes) = (Health::new(), Notes::default());
    let running = run(reporting(&health, quick("c").on::<LampLit>(note(&notes))), &client);
    ready(&health).await;
    let js = jetstream::new(client.clone());
    let config = js.get_stream("INBOX_c").await.unwrap().cached_info().config.clone();
    js.update_stream(jetstream::stream::Config { max_bytes: 1, ..config.clone() }).await.unwrap();
    publish(&log, 0..3).await;
    let check = red(&health, "consumer c: idempotency set").await;
    assert!(check.detail.contains("maximum bytes exceeded"), "{check:?}");
    assert!(!check.detail.contains('\n'));
    js.update_stream(config).await.unwrap();
    ready(&health).await;
    running.stop().await;
}

impl Handler<LampFitted> for Notes {
    async fn handle(&self, event: Recorded<LampFitted>) -> HandlerResult {
        self.add(event.lamp_id.as_str());
        Ok(())
    }
}

#[tokio::test]
async fn every_puller_reports_for_itself() {
    let (_server, client, _log) = toy::server().await;
    let (health, notes) = (Health::new(), Notes::default());
    let consumer = quick("c").on::<LampLit>(note(&notes)).on_timer::<LampFitted>(notes.clone());
    let running = run(reporting(&health, consumer), &client);
    ready(&health).await;
    let js = jetstream::new(client.clone());
    for (stream, check) in [("TIMERS", "consumer c: timers"), ("DLQ", "consumer c: redrives")] {
        js.delete_stream(stream).await.unwrap();
        let check = red(&health, check).await;
        assert!(check.detail.contains(stream), "{check:?}");
        provision::streams(&client, &toy::catalog(), 1).await.unwrap();
        ready(&health).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn the_lag_of_a_paused_durable_is_asked_from_the_server_and_reported() {
    let (_server, client, log) = toy::server().await;
    // All tests of a process share the recorder: no other consumer has this name.
    let metrics = PrometheusBuilder::new().install_recorder().unwrap();
    let (health, notes) = (Health::new(), Notes::default());
    let running = run(reporting(&health, quick("paused").on::<LampLit>(note(&notes))), &client);
    ready(&health).await;
    let stream = jetstream::new(client.clone()).get_stream("EVENTS").await.unwrap();
    stream.pause_consumer("paused", chrono::Utc::now() + chrono::TimeDelta::hours(1)).await.unwrap();
    publish(&log, 0..30).await;
    let gauge = |name: &str, value: u32| {
        metrics.render().contains(&format!("{name}{{consumer=\"paused\",stream=\"EVENTS\"}} {value}\n"))
    };
    eventually(SOON, || async { (gauge("jetkit_pending", 30) && gauge("jetkit_paused", 1)).then_some(()) })
        .await;
    let check = red(&health, "consumer c: backlog").await;
    assert!(check.detail.contains("paused by somebody else"), "{check:?}");
    stream.resume_consumer("paused").await.unwrap();
    notes.reach(30).await;
    ready(&health).await;
    eventually(SOON, || async { (gauge("jetkit_pending", 0) && gauge("jetkit_paused", 0)).then_some(()) })
        .await;
    running.stop().await;
}

#[tokio::test]
async fn handlers_that_hang_are_reported_as_standing_still() {
    let (_server, client, log) = toy::server().await;
    let (health, gate) = (Health::new(), Arc::new(Semaphore::new(0)));
    let opened = Arc::clone(&gate);
    let handler = On(move |_| {
        let gate = Arc::clone(&opened);
        async move {
            drop(gate.acquire().await);
            Ok(())
        }
    });
    let consumer = quick("c").max_attempts(1000).on::<LampLit>(handler);
    let running = run(reporting(&health, consumer), &client);
    publish(&log, 0..700).await;
    let check = red(&health, "consumer c: backlog").await;
    assert!(check.detail.contains("standing still"), "{check:?}");
    assert!(info(&client, "EVENTS").await.num_ack_pending > 0);
    gate.add_permits(1000);
    ready(&health).await;
    running.stop().await;
}

#[tokio::test]
async fn a_body_that_a_durable_left_out_is_fetched_and_no_event_is_a_dead_letter() {
    let (_server, client, log) = toy::server().await;
    let notes = Notes::default();
    let running = run(Consumer::new("c").on::<LampLit>(note(&notes)), &client);
    publish(&log, 0..1).await;
    notes.reach(1).await;
    let js = jetstream::new(client.clone());
    let headers_only = consumer::Config { headers_only: true, ..info(&client, "EVENTS").await.config };
    let request = serde_json::json!({"stream_name": "EVENTS", "config": headers_only, "action": "update"});
    let updated: serde_json::Value =
        js.request("CONSUMER.CREATE.EVENTS.c".to_owned(), &request).await.unwrap();
    assert_eq!(updated["config"]["headers_only"], true, "{updated}");
    publish(&log, 1..50).await;
    assert_eq!(notes.reach(50).await.len(), 50);
    assert_eq!(js.get_stream("DLQ").await.unwrap().cached_info().state.messages, 0);
    assert!(!info(&client, "EVENTS").await.config.headers_only, "it is put back");
    running.stop().await;
}

#[tokio::test]
async fn a_filter_that_somebody_narrows_while_a_consumer_runs_is_reported() {
    let (_server, client, _log) = toy::server().await;
    let (health, notes) = (Health::new(), Notes::default());
    let consumer = || reporting(&health, quick("c").on::<LampLit>(note(&notes)));
    let running = run(consumer(), &client);
    ready(&health).await;
    let narrowed = consumer::Config {
        filter_subjects: vec![format!("{}.nobody.*", LampLit::TYPE)],
        ..info(&client, "EVENTS").await.config
    };
    let request = serde_json::json!({"stream_name": "EVENTS", "config": narrowed, "action": "update"});
    let js = jetstream::new(client.clone());
    let _updated: serde_json::Value =
        js.request("CONSUMER.CREATE.EVENTS.c".to_owned(), &request).await.unwrap();
    let check = red(&health, "consumer c: backlog").await;
    assert!(check.detail.contains("filter_subjects"), "{check:?}");
    running.stop().await;
    let running = run(consumer(), &client);
    ready(&health).await;
    running.stop().await;
}

#[tokio::test]
async fn a_consumer_without_a_server_for_a_moment_does_not_flap() {
    let (mut server, client, log) = toy::server().await;
    let (health, notes) = (Health::new(), Notes::default());
    let running = run(reporting(&health, quick("c").on::<LampLit>(note(&notes))), &client);
    ready(&health).await;
    server.restart().await;
    let watch = async {
        loop {
            assert!(health.report().ready, "{:?}", health.report());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = async { publish(&log, 0..5).await; notes.reach(5).await; } => {}
    }
    running.stop().await;
}
