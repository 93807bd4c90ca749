//! The binary as its operator sees it: crashes, `rebuild`, and what it tells of itself.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use jetkit::projection::rusqlite::Connection;
use jetkit::testing::{NatsServer, SOON, eventually, spawn_tied, tied_command};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::test_service::order;

/// The service, killed when dropped.
struct Service {
    child: Child,
    url: String,
    http: Client,
}

/// What a client gets, apart from what differs each time.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    status: u16,
    etag: Option<String>,
    sequence: Option<String>,
    body: Value,
}

impl Service {
    /// Starts it, and waits until it is ready.
    async fn start(nats: &NatsServer, data: &TempDir) -> Self {
        let service = Self::of(spawn(nats, data.path()));
        eventually(SOON, || async { service.is_ready().await.then_some(()) }).await;
        service
    }

    /// A process, as soon as it listens.
    fn of(mut child: Child) -> Self {
        let mut log = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let addr = |line: String| {
            let line: Value = serde_json::from_str(&line).unwrap();
            line["http.addr"].as_str().map(str::to_owned)
        };
        let url = format!("http://{}", log.find_map(addr).unwrap());
        // A full pipe would stop it.
        thread::spawn(move || log.for_each(drop));
        Self { child, url, http: Client::new() }
    }

    async fn is_ready(&self) -> bool {
        let url = format!("{}/health/ready", self.url);
        self.http.get(url).send().await.is_ok_and(|answer| answer.status() == 200)
    }

    async fn send(&self, method: Method, path: &str, key: &str, body: &Value) -> Answer {
        let request = self.http.request(method, format!("{}{path}", self.url));
        let answer = request.header("idempotency-key", key).json(body).send().await.unwrap();
        let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (status, etag, sequence) = (answer.status().as_u16(), header("etag"), header("event-sequence"));
        Answer { status, etag, sequence, body: answer.json().await.unwrap() }
    }

    /// Two users and three orders, made once. Returns the sequence of the last event.
    async fn fill(&self) -> String {
        for name in ["alice", "bob"] {
            let user = json!({"username": name, "email": format!("{name}@example.com")});
            assert_eq!(self.send(Method::POST, "/users", name, &user).await.status, 201);
        }
        self.place("cart-1").await;
        self.place("cart-2").await;
        self.place("cart-3").await
    }

    /// Places an order. Returns the sequence of its event.
    async fn place(&self, key: &str) -> String {
        let placed = self.send(Method::POST, "/orders", key, &order()).await;
        assert_eq!(placed.status, 201, "{placed:?}");
        placed.sequence.unwrap()
    }

    /// What readers see, who are refused nothing.
    async fn see(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }

    /// Waits until the metrics say so.
    async fn tells(&self, sample: &str) {
        let url = format!("{}/metrics", self.url);
        eventually(SOON, || async {
            let metrics = self.http.get(&url).send().await.unwrap().text().await.unwrap();
            metrics.lines().any(|line| line == sample).then_some(())
        })
        .await;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail only for one that has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts it, with its log in a pipe.
fn spawn(nats: &NatsServer, data: &Path) -> Child {
    let mut command = command(data);
    command.env("NATS_URL", nats.url()).env("HTTP_ADDR", "127.0.0.1:0");
    command.env("RUST_LOG", "info").env("LOG_FORMAT", "json").stdout(Stdio::piped());
    spawn_tied(command).unwrap()
}

fn command(data: &Path) -> Command {
    let mut command = tied_command(env!("CARGO_BIN_EXE_order-service"));
    command.env("DATA_DIR", data).stdin(Stdio::null());
    command
}

/// `order-service rebuild …`
fn rebuild(data: &TempDir, names: &[&str]) -> Output {
    command(data.path()).arg("rebuild").args(names).output().unwrap()
}

fn file_of(data: &TempDir, read_model: &str) -> PathBuf {
    data.path().join(format!("{read_model}.v1.sqlite"))
}

/// Somebody empties what readers see.
fn spoil(data: &TempDir) {
    for table in ["orders", "users"] {
        let file = Connection::open(file_of(data, table)).unwrap();
        assert!(file.execute(&format!("DELETE FROM {table}"), ()).unwrap() > 0);
    }
}

#[tokio::test]
async fn a_request_repeated_after_a_crash_is_answered_as_before_and_has_no_second_effect() {
    let (nats, data) = (NatsServer::start().await, TempDir::new().unwrap());
    let service = Service::start(&nats, &data).await;
    let user = json!({"username": "alice", "email": "alice@example.com"});
    let created = service.send(Method::POST, "/users", "k-1", &user).await;
    let placed = service.send(Method::POST, "/orders", "k-1", &order()).await;
    let user_path = format!("/users/{}", created.body["id"].as_str().unwrap());
    let cancel_path = format!("/orders/{}/cancel", placed.body["id"].as_str().unwrap());
    let (rename, cancel) = (json!({"username": "bob"}), json!({"reason": "changed my mind"}));
    let renamed = service.send(Method::PATCH, &user_path, "k-1", &rename).await;
    let cancelled = service.send(Method::POST, &cancel_path, "k-1", &cancel).await;
    let statuses = [&created, &placed, &renamed, &cancelled].map(|answer| answer.status);
    assert_eq!(statuses, [201, 201, 200, 200]);
    let js = async_nats::jetstream::new(nats.client().await);
    let written = async || js.get_stream("EVENTS").await.unwrap().cached_info().state.last_sequence;
    assert_eq!(written().await, 4);

    drop(service);
    let service = Service::start(&nats, &TempDir::new().unwrap()).await;
    assert_eq!(service.send(Method::POST, "/users", "k-1", &user).await, created);
    assert_eq!(service.send(Method::POST, "/orders", "k-1", &order()).await, placed);
    assert_eq!(service.send(Method::PATCH, &user_path, "k-1", &rename).await, renamed);
    assert_eq!(service.send(Method::POST, &cancel_path, "k-1", &cancel).await, cancelled);
    assert_eq!(written().await, 4);
}

#[tokio::test]
async fn a_rebuild_beside_the_service_refuses_no_reader_and_touches_no_other_read_model() {
    let (nats, data) = (NatsServer::start().await, TempDir::new().unwrap());
    let service = Service::start(&nats, &data).await;
    let sequence = service.fill().await;
    let orders = service.see(&format!("/orders?min_sequence={sequence}")).await;
    assert_eq!(service.see(&format!("/users?min_sequence={sequence}")).await["total"], 2);
    spoil(&data);
    let (no_orders, no_users) = (service.see("/orders").await, service.see("/users").await);
    assert_eq!(
        (&orders["total"], &no_orders["total"], &no_users["total"]),
        (&json!(3), &json!(0), &json!(0))
    );

    let rebuilt = rebuild(&data, &["orders"]);
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    eventually(SOON, || async {
        assert!(service.is_ready().await);
        let seen = service.see("/orders").await;
        assert!(seen == no_orders || seen == orders, "half of it: {seen}");
        (seen == orders).then_some(())
    })
    .await;
    assert_eq!(service.see("/users").await, no_users);

    let sequence = service.place("cart-4").await;
    assert_eq!(service.see(&format!("/orders?min_sequence={sequence}")).await["total"], 4, "it goes on");
}

#[tokio::test]
async fn a_rebuild_without_the_service_loses_nothing_and_a_wrong_name_deletes_nothing() {
    let (nats, data) = (NatsServer::start().await, TempDir::new().unwrap());
    let service = Service::start(&nats, &data).await;
    let sequence = service.fill().await;
    let orders = service.see(&format!("/orders?min_sequence={sequence}")).await;
    let users = service.see(&format!("/users?min_sequence={sequence}")).await;
    drop(service);
    spoil(&data);
    let files = ["orders", "users"].map(|read_model| file_of(&data, read_model));

    let refused = rebuild(&data, &["parcels"]);
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && why.contains("there are: orders, users"), "{why}");
    assert!(files.iter().all(|file| file.exists()));
    let rebuilt = rebuild(&data, &[]);
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    assert!(!files.iter().any(|file| file.exists()));

    // As soon as it is ready, everything is there.
    let service = Service::start(&nats, &data).await;
    assert_eq!((service.see("/orders").await, service.see("/users").await), (orders, users));
}

#[tokio::test]
async fn a_read_model_that_is_behind_says_so_in_the_metrics_and_refuses_no_reader() {
    let (nats, data) = (NatsServer::start().await, TempDir::new().unwrap());
    let service = Service::start(&nats, &data).await;
    let sequence = service.fill().await;
    service.tells(&format!("jetkit_projection_watermark{{projection=\"orders\"}} {sequence}")).await;

    // Nobody else writes while this is open.
    let file = Connection::open(file_of(&data, "orders")).unwrap();
    file.execute_batch("BEGIN IMMEDIATE").unwrap();
    let sequence = service.place("cart-4").await;
    service.tells("jetkit_projection_lag{projection=\"orders\"} 1").await;
    assert_eq!(service.see("/orders").await["total"], 3);

    file.execute_batch("ROLLBACK").unwrap();
    service.tells("jetkit_projection_lag{projection=\"orders\"} 0").await;
    service.tells(&format!("jetkit_projection_watermark{{projection=\"orders\"}} {sequence}")).await;
    assert_eq!(service.see("/orders").await["total"], 4);
}

#[tokio::test]
async fn a_second_process_on_a_data_directory_serves_and_pulls_nothing_and_ends() {
    let (nats, data) = (NatsServer::start().await, TempDir::new().unwrap());
    let first = Service::start(&nats, &data).await;
    let second = spawn(&nats, data.path()).wait_with_output().unwrap();
    let log = String::from_utf8(second.stdout).unwrap();
    assert!(!second.status.success(), "{log}");
    assert!(!log.contains("http listening") && !log.contains("connected to NATS"), "{log}");
    assert!(log.contains("in use by another process"), "{log}");
    eventually(SOON, || async { first.is_ready().await.then_some(()) }).await;
    assert_eq!(first.place("cart-1").await, "1");
}

#[tokio::test]
async fn a_process_that_waits_for_a_data_directory_takes_over_when_the_other_has_ended() {
    let (nats, data) = (NatsServer::start().await, TempDir::new().unwrap());
    let mut first = Service::start(&nats, &data).await;
    let waiting = spawn(&nats, data.path());
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let second = Service::of(waiting);
    eventually(SOON, || async { second.is_ready().await.then_some(()) }).await;
    assert_eq!(second.place("cart-1").await, "1");
}

#[tokio::test]
async fn a_process_whose_data_directory_is_deleted_ends_before_another_one_begins() {
    let (nats, parent) = (NatsServer::start().await, TempDir::new().unwrap());
    let data = TempDir::new_in(parent.path()).unwrap();
    let mut first = Service::start(&nats, &data).await;
    std::fs::remove_dir_all(data.path()).unwrap();
    let mut second = Service::of(spawn(&nats, data.path()));
    // Stopped before the second listens, the first has only to leave.
    assert!(!first.child.wait().unwrap().success());
    eventually(SOON, || async { second.is_ready().await.then_some(()) }).await;
    assert_eq!(second.place("cart-1").await, "1");
    assert!(second.child.try_wait().unwrap().is_none());
}
