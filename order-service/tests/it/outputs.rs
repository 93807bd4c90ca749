//! The binary while nobody reads what it says, and by a clock that is wrong: it works, and it ends when it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use chrono::TimeDelta;
use jetkit::testing::{NatsServer, SOON, WrongClock, eventually, spawn_tied, tied_command};
use serde_json::Value;
use tempfile::TempDir;

/// More lines than a pipe holds (64 KiB).
const BAD_MESSAGES: u64 = 440;

/// The service, killed when dropped.
struct Running {
    child: Child,
    url: String,
    /// What it says, read up to where it listens.
    said: Option<BufReader<ChildStdout>>,
}

impl Running {
    async fn start(nats: &NatsServer, data: &TempDir, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(nats, data);
        command.env("HTTP_ADDR", "127.0.0.1:0").stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = spawn_tied(command).unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let addr = said.by_ref().lines().find_map(|line| {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            line["http.addr"].as_str().map(str::to_owned)
        });
        let running = Self { child, url: format!("http://{}", addr.unwrap()), said: Some(said) };
        eventually(SOON, || async { (running.ready().await?["ready"] == true).then_some(()) }).await;
        running
    }

    async fn ready(&self) -> Option<Value> {
        reqwest::get(format!("{}/health/ready", self.url)).await.ok()?.json().await.ok()
    }

    /// SIGTERM, and how it ended.
    async fn stopped(&mut self) -> ExitStatus {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
        ended(&mut self.child).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for one that has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn command(nats: &NatsServer, data: &TempDir) -> Command {
    let mut command = tied_command(env!("CARGO_BIN_EXE_order-service"));
    command.env("NATS_URL", nats.url()).env("DATA_DIR", data.path()).stdin(Stdio::null());
    command.env("RUST_LOG", "info").env("LOG_FORMAT", "json");
    command
}

async fn ended(child: &mut Child) -> ExitStatus {
    let child = std::cell::RefCell::new(child);
    eventually(SOON, || async { child.borrow_mut().try_wait().unwrap() }).await
}

/// Each of them is a line in the log, and a dead letter.
async fn bad_messages_are_dead_letters(nats: &NatsServer) {
    let js = async_nats::jetstream::new(nats.client().await);
    for n in 0..BAD_MESSAGES {
        js.publish(format!("order.placed.bad-{n}.1"), "nonsense".into()).await.unwrap().await.unwrap();
    }
    eventually(SOON, || async {
        let stream = js.get_stream("DLQ").await.unwrap();
        (stream.cached_info().state.messages == BAD_MESSAGES).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_no_work_and_no_end() {
    let (nats, data) = (NatsServer::start().await, TempDir::new().unwrap());
    let mut service = Running::start(&nats, &data, |_| {}).await;
    bad_messages_are_dead_letters(&nats).await;
    assert_eq!(service.ready().await.unwrap()["ready"], true);
    assert_eq!(service.stopped().await.code(), Some(0));
    // It was full, or there would be a line for each of them.
    let mut said = String::new();
    service.said.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(u64::try_from(said.lines().count()).unwrap() < BAD_MESSAGES, "{said}");
}

#[tokio::test]
async fn closed_outputs_stop_no_work_and_no_end() {
    let (nats, data) = (NatsServer::start().await, TempDir::new().unwrap());
    let mut service = Running::start(&nats, &data, |_| {}).await;
    drop((service.said.take(), service.child.stderr.take()));
    bad_messages_are_dead_letters(&nats).await;
    assert_eq!(service.ready().await.unwrap()["ready"], true);
    assert_eq!(service.stopped().await.code(), Some(0));
}

#[tokio::test]
async fn an_error_that_nobody_reads_does_not_keep_a_process_from_ending() {
    let (nats, data) = (NatsServer::start().await, TempDir::new().unwrap());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_reader, mut full) = std::io::pipe().unwrap();
    full.write_all(&vec![b'x'; 64 * 1024]).unwrap();
    let mut command = command(&nats, &data);
    command.env("HTTP_ADDR", taken.local_addr().unwrap().to_string());
    command.stdout(full.try_clone().unwrap()).stderr(full);
    let mut child = spawn_tied(command).unwrap();
    assert_eq!(ended(&mut child).await.code(), Some(1));
}

#[tokio::test]
async fn the_last_lines_of_a_process_reach_a_reader_that_reads() {
    let (nats, data) = (NatsServer::start().await, TempDir::new().unwrap());
    let mut service = Running::start(&nats, &data, |_| {}).await;
    assert_eq!(service.stopped().await.code(), Some(0));
    let mut said = String::new();
    service.said.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.lines().any(|line| line.contains(r#""message":"stopped""#)), "{said}");
    let help = command(&nats, &data).arg("--help").output().unwrap();
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("NATS_URL"));
}

#[tokio::test]
async fn readiness_tells_how_wrong_the_clock_is_and_stays_green() {
    let (nats, data) = (NatsServer::start().await, TempDir::new().unwrap());
    for (ahead, told) in [
        (TimeDelta::zero(), "agrees with the server's"),
        (TimeDelta::seconds(60), "60.0 s ahead of the server's"),
        (-TimeDelta::minutes(20), "1200.0 s behind the server's"),
    ] {
        let clock = WrongClock::new(ahead);
        let service = Running::start(&nats, &data, |command| clock.give_to(command)).await;
        let detail = |report: &Value| report["checks"]["clock"]["detail"].as_str().unwrap().to_owned();
        let compared = async || {
            let report = service.ready().await?;
            (detail(&report) != "not compared with the server's yet").then_some(report)
        };
        let report = eventually(SOON, compared).await;
        assert!(report["ready"] == true && about(&detail(&report), told), "{report}");
    }
}

/// Whether a detail says that, to the second.
fn about(detail: &str, told: &str) -> bool {
    let number = |text: &str| text.split(' ').next().and_then(|first| first.parse::<f64>().ok());
    match (number(detail), number(told)) {
        (Some(is), Some(wanted)) => {
            (is - wanted).abs() < 1.0 && detail.contains(told.split_once(' ').unwrap().1)
        }
        _ => detail == told,
    }
}
