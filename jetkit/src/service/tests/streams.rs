//! A service whose streams go, fill up or are changed under it.

use async_nats::jetstream::stream::Config;
use async_nats::jetstream::{self, Context};

use super::*;
use crate::{Cause, EventId, PublishError, Recorded};

async fn publish(log: &EventLog, text: &str) -> Result<(), PublishError> {
    let clock = Tick { clock_id: "c-1".parse().unwrap() };
    let cause = Cause::request(EventId::generate()).by_user(text);
    log.publisher().publish(&clock, &cause).await.map(drop)
}

async fn started(nats: &NatsServer) -> (Running, EventLog, Context) {
    let mut log = None;
    let toy = Running::start(nats, |service| log = Some(service.log().clone())).await;
    toy.becomes_ready().await;
    (toy, log.unwrap(), jetstream::new(nats.client().await))
}

impl Running {
    /// Waits until it is not ready, with this in the reason.
    async fn says(&self, reason: &str) {
        eventually(PATIENCE, || async {
            let (status, body) = see(self.addr, "/health/ready").await?;
            (status == 503 && body.contains(reason)).then_some(())
        })
        .await;
    }
}

async fn config(js: &Context, stream: &str) -> Option<Config> {
    Some(js.get_stream(stream).await.ok()?.cached_info().config.clone())
}

#[tokio::test]
async fn a_full_log_refuses_at_once_says_so_and_recovers_when_it_is_raised() {
    let nats = NatsServer::start().await;
    let (toy, log, js) = started(&nats).await;
    let events = config(&js, "EVENTS").await.unwrap();
    js.update_stream(Config { max_bytes: 20_000, ..events.clone() }).await.unwrap();
    let mut stored = 0;
    let refusal = loop {
        match publish(&log, &"x".repeat(1000)).await {
            Ok(()) => stored += 1,
            Err(refusal) => break refusal.to_string(),
        }
    };
    assert!(refusal.contains("takes nothing more") && refusal.contains("maximum bytes"), "{refusal}");
    toy.says("maximum bytes").await;
    let state = js.get_stream("EVENTS").await.unwrap().cached_info().state.clone();
    assert_eq!((state.first_sequence, state.messages), (1, stored), "history is kept");
    js.update_stream(Config { max_bytes: 1_000_000_000, ..events }).await.unwrap();
    publish(&log, "room").await.unwrap();
    toy.becomes_ready().await;
}

#[tokio::test]
async fn a_server_without_room_makes_it_unready_although_nobody_writes() {
    let store = "jetstream { store_dir: $STORE, max_mem: 1MB, max_file: 400KB }";
    let nats = NatsServer::with_config(store).await;
    let (toy, _log, js) = started(&nats).await;
    let other = Config { name: "OTHER".into(), subjects: vec!["other".into()], ..Config::default() };
    js.create_stream(other).await.unwrap();
    loop {
        let stored = js.publish("other", vec![0; 4000].into()).await.unwrap().await;
        if stored.is_err() {
            break;
        }
    }
    toy.says("storage").await;
    toy.says("resources").await;
    js.delete_stream("OTHER").await.unwrap();
    toy.becomes_ready().await;
}

#[tokio::test]
async fn a_sealed_log_is_reported() {
    let nats = NatsServer::start().await;
    let (toy, log, js) = started(&nats).await;
    let events = config(&js, "EVENTS").await.unwrap();
    js.update_stream(Config { sealed: true, ..events }).await.unwrap();
    publish(&log, "x").await.unwrap_err();
    toy.says("sealed").await;
}

#[tokio::test]
async fn a_stream_that_is_gone_is_made_again_and_the_log_is_not() {
    let nats = NatsServer::start().await;
    let (toy, log, js) = started(&nats).await;
    publish(&log, "x").await.unwrap();
    for stream in ["TIMERS", "DLQ", "KV_SNAPSHOTS", "ADVISORIES"] {
        js.delete_stream(stream).await.unwrap();
        eventually(PATIENCE, || config(&js, stream)).await;
    }
    toy.becomes_ready().await;
    js.delete_stream("EVENTS").await.unwrap();
    toy.says("EVENTS is gone").await;
    assert!(config(&js, "EVENTS").await.is_none(), "an empty log is not made in its place");
    // Another service starts, and begins a new one.
    let other = Running::start(&nats, |_| ()).await;
    other.becomes_ready().await;
    toy.says("is another one than this service began with").await;
}

#[tokio::test]
async fn drift_is_put_right_once_while_it_runs_and_reported_when_it_comes_again() {
    let nats = NatsServer::start().await;
    let (toy, _log, js) = started(&nats).await;
    let ours = config(&js, "EVENTS").await.unwrap();
    let drifted = Config { max_message_size: 10, no_ack: true, ..ours.clone() };
    js.update_stream(drifted.clone()).await.unwrap();
    let put_right = || async { (config(&js, "EVENTS").await? == ours).then_some(()) };
    eventually(PATIENCE, put_right).await;
    js.update_stream(drifted).await.unwrap();
    toy.says("was changed again after it had been put right").await;
}

/// A handler that does nothing.
struct Idle;

impl crate::Handler<Tick> for Idle {
    async fn handle(&self, _tick: Recorded<Tick>) -> crate::HandlerResult {
        Ok(())
    }
}

#[tokio::test]
async fn an_account_that_requires_sizes_is_served_with_the_setting() {
    let account = "no_auth_user: x\naccounts { A { jetstream: { max_file: 5GB, max_bytes_required: true }, \
                   users: [{user: x, password: x}] } }";
    let nats = NatsServer::with_config(account).await;
    let refusal = launch(settings(&nats.url(), 10)).await.unwrap_err().to_string();
    assert!(refusal.contains("STREAM_MAX_MIB"), "{refusal}");
    let sized =
        CommonSettings { stream_max_mib: "10,EVENTS=100".parse().unwrap(), ..settings(&nats.url(), 10) };
    let toy = Running::start_with(sized, |service| {
        service.consume(Consumer::new("c").on::<Tick>(Idle));
    })
    .await;
    toy.becomes_ready().await;
    let js = jetstream::new(nats.client().await);
    for (stream, mebibytes) in [("EVENTS", 100), ("DLQ", 10), ("TIMERS", 10), ("INBOX_c", 10)] {
        assert_eq!(config(&js, stream).await.unwrap().max_bytes, mebibytes << 20, "{stream}");
    }
}
