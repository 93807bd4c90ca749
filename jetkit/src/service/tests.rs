//! A whole service in the test's process: real server, real sockets; only the signals come from the test.

mod old_server;
mod reading;
mod streams;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use async_nats::client::RequestErrorKind;
use axum::Router;
use axum::routing::get;
use clap::Parser;
use futures::StreamExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::*;
use crate::http::{MinSequence, Path, Problem, Versioned};
use crate::testing::{NatsServer, eventually};

const PATIENCE: Duration = Duration::from_secs(20);
const INFO: ServiceInfo = ServiceInfo { name: "toy", version: "1.2.3", description: "A toy", port: 0 };

thread_local! {
    /// A test's own, gone when the test is.
    static DATA: TempDir = TempDir::new().unwrap();
}

/// With a data directory of its own each time.
fn settings(nats: &str, shutdown_secs: u64) -> CommonSettings {
    let shutdown = shutdown_secs.to_string();
    let data = DATA.with(|data| data.path().join(uuid::Uuid::new_v4().to_string()));
    let flags = [
        "toy",
        "--nats-url",
        nats,
        "--http-addr",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
        "--shutdown-secs",
        &shutdown,
    ];
    CommandLine::<NoSettings>::parse_from(flags).common
}

async fn launch(settings: CommonSettings) -> anyhow::Result<(Service, mpsc::Sender<&'static str>)> {
    let (signals, received) = mpsc::channel(2);
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    Ok((Service::launch(INFO, &Catalog::new().with::<Tick>(), settings, metrics, received).await?, signals))
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Tick {
    clock_id: crate::EntityId,
}

impl crate::Event for Tick {
    const TYPE: &'static str = "clock.ticked";

    fn entity_id(&self) -> &crate::EntityId {
        &self.clock_id
    }
}

/// A running service, told to stop by the test.
struct Running {
    addr: SocketAddr,
    signals: mpsc::Sender<&'static str>,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn start(nats: &NatsServer, wire: impl FnOnce(&mut Service)) -> Self {
        Self::start_with(settings(&nats.url(), 10), wire).await
    }

    async fn start_with(settings: CommonSettings, wire: impl FnOnce(&mut Service)) -> Self {
        let (mut service, signals) = launch(settings).await.unwrap();
        wire(&mut service);
        let addr = service.http.addr();
        Self { addr, signals, ended: tokio::spawn(service.run()) }
    }

    async fn becomes_ready(&self) {
        eventually(PATIENCE, || async { (see(self.addr, "/health/ready").await?.0 == 200).then_some(()) })
            .await;
    }

    async fn end(self) -> anyhow::Result<()> {
        tokio::time::timeout(PATIENCE, self.ended).await.expect("an end").expect("no panic")
    }
}

/// The status and the body; [`None`] if nobody listens.
async fn see(addr: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(addr).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: toy\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

#[tokio::test]
async fn a_service_becomes_ready_serves_and_stops_in_peace() {
    let nats = NatsServer::start().await;
    let routes = Router::new().route("/hello", get(|| async { "hello" }));
    let toy = Running::start(&nats, |service| service.serve(routes)).await;
    toy.becomes_ready().await;
    assert_eq!(see(toy.addr, "/hello").await.unwrap(), (200, "hello".into()));
    assert_eq!(see(toy.addr, "/health/live").await.unwrap().0, 200);
    assert_eq!(see(toy.addr, "/metrics").await.unwrap().0, 200);
    let (status, document) = see(toy.addr, "/openapi.json").await.unwrap();
    assert!(status == 200 && document.contains("/health/ready") && document.contains("A toy"), "{document}");
    let (status, page) = see(toy.addr, "/docs").await.unwrap();
    assert!(
        status == 200 && !page.contains("http://") && !page.contains("https://"),
        "works offline: {page}"
    );
    assert_eq!(see(toy.addr, "/nowhere").await.unwrap().0, 404);
    server::ask_ready(toy.addr).await.unwrap();
    toy.signals.send("SIGTERM").await.unwrap();
    toy.end().await.unwrap();
}

#[tokio::test]
async fn before_its_server_is_there_a_service_is_alive_and_not_ready() {
    let mut nats = NatsServer::start().await;
    nats.kill();
    // The port is known before the service listens on it, because `launch` does not return yet.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let settings = CommonSettings { http_addr: free, ..settings(&nats.url(), 10) };
    let launched = tokio::spawn(launch(settings));
    eventually(PATIENCE, || async { (see(free, "/health/live").await?.0 == 200).then_some(()) }).await;
    let (status, checks) = see(free, "/health/ready").await.unwrap();
    assert!(status == 503 && checks.contains("\"nats\""), "{checks}");
    assert_eq!(see(free, "/orders").await.unwrap().0, 503);
    assert!(server::ask_ready(free).await.is_err());
    nats.restart().await;
    let (service, signals) = launched.await.unwrap().unwrap();
    let toy = Running { addr: free, signals, ended: tokio::spawn(service.run()) };
    toy.becomes_ready().await;
}

#[tokio::test]
async fn a_lost_server_makes_it_unready_until_it_is_back() {
    let mut nats = NatsServer::start().await;
    let toy = Running::start(&nats, |_| ()).await;
    toy.becomes_ready().await;
    nats.kill();
    eventually(PATIENCE, || async { (see(toy.addr, "/health/ready").await?.0 == 503).then_some(()) }).await;
    assert_eq!(see(toy.addr, "/health/live").await.unwrap().0, 200);
    nats.restart().await;
    toy.becomes_ready().await;
}

#[tokio::test]
async fn health_does_not_stay_green_while_a_task_is_dead() {
    let nats = NatsServer::start().await;
    let toy = Running::start(&nats, |service| service.spawn("ticker", async { Ok(()) })).await;
    assert_eq!(toy.end().await.unwrap_err().to_string(), "ticker ended by itself");
    let toy = Running::start(&nats, |service| service.spawn("ticker", async { panic!("tock") })).await;
    assert!(toy.end().await.unwrap_err().to_string().starts_with("ticker panicked"));
}

#[tokio::test]
async fn a_request_that_runs_is_finished_before_the_end() {
    let nats = NatsServer::start().await;
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (begun, go_on) = (begun.clone(), go_on.clone());
        move || async move {
            begun.notify_one();
            go_on.notified().await;
            "done"
        }
    };
    let toy = Running::start(&nats, |service| service.serve(Router::new().route("/slow", get(slow)))).await;
    toy.becomes_ready().await;
    let answer = tokio::spawn(see(toy.addr, "/slow"));
    begun.notified().await;
    toy.signals.send("SIGTERM").await.unwrap();
    // It takes no more.
    eventually(PATIENCE, || async { see(toy.addr, "/health/live").await.is_none().then_some(()) }).await;
    go_on.notify_one();
    assert_eq!(answer.await.unwrap().unwrap(), (200, "done".into()));
    toy.end().await.unwrap();
}

async fn with_a_request_that_hangs(shutdown_secs: u64) -> (NatsServer, Running) {
    let nats = NatsServer::start().await;
    let begun = Arc::new(Notify::new());
    let hangs = {
        let begun = begun.clone();
        move || async move {
            begun.notify_one();
            std::future::pending::<()>().await;
        }
    };
    let settings = settings(&nats.url(), shutdown_secs);
    let wire = |service: &mut Service| service.serve(Router::new().route("/hangs", get(hangs)));
    let toy = Running::start_with(settings, wire).await;
    toy.becomes_ready().await;
    tokio::spawn(see(toy.addr, "/hangs"));
    begun.notified().await;
    (nats, toy)
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_off_and_named() {
    let (_nats, toy) = with_a_request_that_hangs(1).await;
    toy.signals.send("SIGTERM").await.unwrap();
    assert_eq!(toy.end().await.unwrap_err().to_string(), "not finished within 1s, cut off: http");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (_nats, toy) = with_a_request_that_hangs(3600).await;
    toy.signals.send("SIGINT").await.unwrap();
    toy.signals.send("SIGINT").await.unwrap();
    assert!(toy.end().await.unwrap_err().to_string().contains("second signal"));
}

#[tokio::test]
async fn a_signal_ends_the_start_too() {
    let mut nats = NatsServer::start().await;
    nats.kill();
    let (signals, received) = mpsc::channel(1);
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    signals.send("SIGTERM").await.unwrap();
    let launched = Service::launch(INFO, &Catalog::new(), settings(&nats.url(), 10), metrics, received).await;
    assert_eq!(launched.unwrap_err().to_string(), "SIGTERM before the start was complete");
}

#[tokio::test]
async fn the_data_directory_is_the_services_own_and_fails_only_when_it_is_asked_for() {
    let nats = NatsServer::start().await;
    let dir = TempDir::new().unwrap();
    let wanted: PathBuf = dir.path().join("a/b");
    let (service, _signals) =
        launch(CommonSettings { data_dir: wanted.clone(), ..settings(&nats.url(), 10) }).await.unwrap();
    assert_eq!(service.data_dir().unwrap(), wanted);
    assert!(wanted.join(".lock").is_file());
    std::fs::write(dir.path().join("file"), "").unwrap();
    let none = CommonSettings { data_dir: dir.path().join("file/a"), ..settings(&nats.url(), 10) };
    let (service, _signals) = launch(none).await.unwrap();
    assert!(service.data_dir().unwrap_err().to_string().contains("DATA_DIR"));
}

/// A clock, unless it is called `none`; shows what the query passed on.
async fn clock(
    Path(id): Path<crate::EntityId>,
    MinSequence(wanted): MinSequence,
) -> Result<Versioned<Value>, Problem> {
    if id.as_str() == "none" {
        return Err(Problem::not_found("There is no clock none"));
    }
    Ok(Versioned::ok(3, wanted.unwrap_or(1), json!({ "id": id })))
}

fn clocks(service: &mut Service) {
    service.serve(Router::new().route("/clocks/{id}", get(clock)));
    service.query("clock.get", "/clocks");
}

/// The reply, as soon as somebody answers at all.
async fn ask(client: &Client, subject: &str, body: &str) -> Message {
    let body = body.to_owned();
    eventually(PATIENCE, || async { client.request(subject.to_owned(), body.clone().into()).await.ok() })
        .await
}

fn read(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

#[tokio::test]
async fn a_query_is_answered_as_its_route_is() {
    let nats = NatsServer::start().await;
    let _toy = Running::start(&nats, clocks).await;
    let client = nats.client().await;
    let header = |message: &Message, name: &str| {
        message.headers.as_ref().and_then(|headers| Some(headers.get(name)?.to_string()))
    };

    let found = ask(&client, "clock.get", r#"{"id":"c-1","min_sequence":17}"#).await;
    assert_eq!(read(&found), json!({"id": "c-1"}));
    assert_eq!(header(&found, "etag").as_deref(), Some("\"3\""));
    assert_eq!(header(&found, "event-sequence").as_deref(), Some("17"));
    assert_eq!(header(&found, "Nats-Service-Error"), None);

    let unknown = ask(&client, "clock.get", r#"{"id":"none"}"#).await;
    assert_eq!(header(&unknown, "Nats-Service-Error-Code").as_deref(), Some("404"));
    assert_eq!(header(&unknown, "Nats-Service-Error").as_deref(), Some("Not found"));
    assert_eq!(header(&unknown, "content-type").as_deref(), Some("application/problem+json"));
    assert_eq!(read(&unknown)["detail"], "There is no clock none");

    let nonsense =
        ["", "c-1", "{}", r#"["c-1"]"#, r#"{"id":"a/b"}"#, r#"{"id":"a?x=1"}"#, r#"{"id":"c-1","x":1}"#];
    for body in nonsense {
        let refused = ask(&client, "clock.get", body).await;
        assert_eq!(header(&refused, "Nats-Service-Error-Code").as_deref(), Some("400"), "{body}");
        assert_eq!(read(&refused)["type"], "urn:problem:bad-request");
    }

    let info = read(&ask(&client, "$SRV.INFO.toy", "").await);
    assert_eq!((&info["name"], &info["version"]), (&json!("toy"), &json!("1.2.3")));
    let [endpoint] = &info["endpoints"].as_array().unwrap()[..] else { panic!("{info}") };
    assert_eq!(endpoint["subject"], "clock.get");
    assert_eq!(endpoint["metadata"]["response"], "the body of GET /clocks/{id}");
    let schema: Value = serde_json::from_str(endpoint["metadata"]["request"].as_str().unwrap()).unwrap();
    assert_eq!(schema["required"], json!(["id"]));

    // A request is counted after its answer has left.
    eventually(PATIENCE, || async {
        let stats = read(&ask(&client, "$SRV.STATS.toy", "").await);
        let counted = json!([stats["endpoints"][0]["num_requests"], stats["endpoints"][0]["num_errors"]]);
        (counted == json!([2 + nonsense.len(), 1 + nonsense.len()])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn replicas_share_queries_and_none_is_answered_twice() {
    let nats = NatsServer::start().await;
    let client = nats.client().await;
    let _toys = [Running::start(&nats, clocks).await, Running::start(&nats, clocks).await];
    /// What every replica says.
    async fn all(client: &Client, replicas: usize) -> Vec<Value> {
        eventually(PATIENCE, || async {
            let inbox = client.new_inbox();
            let mut replies = client.subscribe(inbox.clone()).await.unwrap();
            client.publish_with_reply("$SRV.STATS.toy", inbox, "".into()).await.unwrap();
            let replies = async {
                let mut stats = vec![];
                while stats.len() < replicas {
                    stats.push(read(&replies.next().await.unwrap()));
                }
                stats
            };
            let stats = tokio::time::timeout(Duration::from_millis(500), replies).await.ok()?;
            stats.iter().all(|stats| !stats["endpoints"].as_array().unwrap().is_empty()).then_some(stats)
        })
        .await
    }
    let count = |stats: Vec<Value>| -> u64 {
        stats.iter().map(|stats| stats["endpoints"][0]["num_requests"].as_u64().unwrap()).sum()
    };
    assert_eq!(count(all(&client, 2).await), 0);
    for n in 0..20 {
        assert_eq!(
            read(&ask(&client, "clock.get", &format!(r#"{{"id":"c-{n}"}}"#)).await)["id"],
            format!("c-{n}")
        );
    }
    eventually(PATIENCE, || async { (count(all(&client, 2).await) >= 20).then_some(()) }).await;
    assert_eq!(count(all(&client, 2).await), 20);
}

#[tokio::test]
async fn a_query_that_runs_is_finished_before_the_end() {
    let nats = NatsServer::start().await;
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (begun, go_on) = (begun.clone(), go_on.clone());
        move || async move {
            begun.notify_one();
            go_on.notified().await;
            "done"
        }
    };
    let toy = Running::start(&nats, |service| {
        service.serve(Router::new().route("/slow/{id}", get(slow)));
        service.query("slow.get", "/slow");
        clocks(service);
    })
    .await;
    let client = nats.client().await;
    let asking = client.clone();
    let answer = tokio::spawn(async move { ask(&asking, "slow.get", r#"{"id":"c-1"}"#).await });
    begun.notified().await;
    toy.signals.send("SIGTERM").await.unwrap();
    // It takes no more. (What reached it at the very moment gets no answer: it is not waited for long.)
    eventually(PATIENCE, || async {
        let asked = client.request("clock.get", r#"{"id":"c-1"}"#.into());
        let failure = tokio::time::timeout(Duration::from_millis(500), asked).await.ok()?.err()?;
        (failure.kind() == RequestErrorKind::NoResponders).then_some(())
    })
    .await;
    go_on.notify_one();
    assert_eq!(answer.await.unwrap().payload, "done");
    toy.end().await.unwrap();
}

#[tokio::test]
async fn a_service_that_answers_queries_ends_in_peace_also_while_its_server_is_away() {
    let mut nats = NatsServer::start().await;
    let toy = Running::start(&nats, clocks).await;
    ask(&nats.client().await, "clock.get", r#"{"id":"c-1"}"#).await;
    nats.kill();
    eventually(PATIENCE, || async { (see(toy.addr, "/health/ready").await?.0 == 503).then_some(()) }).await;
    toy.signals.send("SIGTERM").await.unwrap();
    toy.end().await.unwrap();
}

#[tokio::test]
async fn a_query_on_a_subject_of_the_stream_is_refused() {
    let nats = NatsServer::start().await;
    for subject in ["clock.ticked", "clock.look.up", "clock", "clock.*"] {
        let toy = Running::start(&nats, |service| service.query(subject, "/clocks")).await;
        let refused = toy.end().await.unwrap_err().to_string();
        assert!(refused.contains("cannot be the subject of a query"), "{subject}: {refused}");
    }
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_head_is_cut_off_and_delays_no_shutdown() {
    let nats = NatsServer::start().await;
    let toy = Running::start_with(settings(&nats.url(), 15), |_| ()).await;
    toy.becomes_ready().await;
    let mut slow = TcpStream::connect(toy.addr).await.unwrap();
    slow.write_all(b"GET /health/live HTTP/1.1\r\nHost: t").await.unwrap();
    toy.signals.send("SIGTERM").await.unwrap();
    toy.end().await.unwrap();
    let mut answer = Vec::new();
    // An answer that it took too long, or a closed connection.
    let _ = slow.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}
