//! What a service shows of the log, from its start to its end: read models and live histories.

use std::convert::Infallible;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::*;
use crate::http::{History, HistoryRequest};
use crate::projection::{Seen, Tables};
use crate::subject::EVENTS;
use crate::{Aggregate, Cause, EntityId, EventId, EventSet, EventStore, Recorded};

crate::events! {
    enum ClockEvent { Ticked(Tick) }
}

/// A clock ticks whenever it is told to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Clock;

impl Aggregate for Clock {
    const ENTITY: &'static str = "clock";
    type Event = ClockEvent;
    type Command = Tick;
    type Rejection = Infallible;

    fn decide(&self, tick: &Tick) -> Result<Vec<ClockEvent>, Infallible> {
        Ok(vec![tick.clone().into()])
    }

    fn apply(&mut self, _: &ClockEvent) {}
}

async fn tick(clocks: &EventStore<Clock>, clock: &str) {
    let clock_id = EntityId::new(clock).unwrap();
    let cause = Cause::request(EventId::generate());
    clocks.execute(&clock_id, &Tick { clock_id: clock_id.clone() }, &cause).await.unwrap();
}

/// How often each clock has ticked. It takes nothing in while the test holds its gate, of which each test has its own.
struct Ticks<const GATE: usize>;

static GATES: [Mutex<()>; 3] = [const { Mutex::const_new(()) }; 3];

impl<const GATE: usize> Projection for Ticks<GATE> {
    const NAME: &'static str = "ticks";
    const SCHEMA: &'static str =
        "CREATE TABLE ticks (clock TEXT PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID";
    type Event = Recorded<ClockEvent>;

    fn apply(tables: &Tables<'_>, event: &Recorded<ClockEvent>) -> anyhow::Result<()> {
        drop(GATES[GATE].blocking_lock());
        let clock = event.entity_id();
        tables
            .run("INSERT INTO ticks VALUES (?1, 1) ON CONFLICT DO UPDATE SET times = times + 1", [clock])?;
        Ok(())
    }
}

async fn ticks<const GATE: usize>(
    State(model): State<ReadModel<Ticks<GATE>>>,
) -> Result<Seen<Json<Vec<(String, u64)>>>, Problem> {
    let all = |tables: &Tables<'_>| {
        tables.all("SELECT clock, times FROM ticks", [], |row| Ok((row.get(0)?, row.get(1)?)))
    };
    Ok(model.read(all).await?.map(Json))
}

/// A service with that read model, kept in the directory and shown at `/ticks`; `/hello` reads nothing.
async fn counting<const GATE: usize>(nats: &NatsServer, directory: &TempDir) -> Running {
    let settings = CommonSettings { data_dir: directory.path().to_owned(), ..settings(&nats.url(), 10) };
    let wire = |service: &mut Service| {
        let model = service.read_model::<Ticks<GATE>>().unwrap();
        let routes = Router::new().route("/ticks", get(ticks::<GATE>)).route("/hello", get("hello"));
        service.serve(routes.with_state(model));
    };
    Running::start_with(settings, wire).await
}

/// A log on which clock `a` has ticked twice, and who writes it.
async fn ticked(nats: &NatsServer) -> EventStore<Clock> {
    let client = nats.client().await;
    provision::streams(&client, &Catalog::new().with::<Tick>(), 1).await.unwrap();
    let clocks = EventLog::new(client, "/clocks").store();
    tick(&clocks, "a").await;
    tick(&clocks, "a").await;
    clocks
}

/// Waits until readiness says this of the read model; returns the status.
async fn says(toy: &Running, what: &str) -> u16 {
    eventually(PATIENCE, || async {
        let (status, report) = see(toy.addr, "/health/ready").await?;
        let report: Value = serde_json::from_str(&report).ok()?;
        report["checks"]["read model ticks"]["detail"].as_str()?.contains(what).then_some(status)
    })
    .await
}

#[tokio::test]
async fn until_its_read_model_has_caught_up_a_service_is_starting() {
    let nats = NatsServer::start().await;
    let clocks = ticked(&nats).await;
    let directory = TempDir::new().unwrap();
    let gate = GATES[0].lock().await;
    let toy = counting::<0>(&nats, &directory).await;

    assert_eq!(says(&toy, "building version 1: 0 events taken in, 2 to come").await, 503);
    for path in ["/ticks", "/hello"] {
        let (status, problem) = see(toy.addr, path).await.unwrap();
        assert!(status == 503 && problem.contains("urn:problem:starting"), "{path}: {status} {problem}");
    }

    drop(gate);
    toy.becomes_ready().await;
    assert_eq!(see(toy.addr, "/hello").await.unwrap().0, 200);
    assert_eq!(see(toy.addr, "/ticks").await.unwrap(), (200, r#"[["a",2]]"#.into()));
    assert_eq!(says(&toy, "at 2, 0 events behind").await, 200);

    // From now on being behind is told, and is no reason not to serve.
    let gate = GATES[0].lock().await;
    tick(&clocks, "a").await;
    assert_eq!(says(&toy, "at 2, 1 events behind").await, 200);
    assert_eq!(see(toy.addr, "/ticks").await.unwrap(), (200, r#"[["a",2]]"#.into()));
    drop(gate);
    assert_eq!(says(&toy, "at 3, 0 events behind").await, 200);
    assert_eq!(see(toy.addr, "/ticks").await.unwrap(), (200, r#"[["a",3]]"#.into()));
}

#[tokio::test]
async fn a_read_model_is_rebuilt_while_the_service_runs_and_serves() {
    let nats = NatsServer::start().await;
    let clocks = ticked(&nats).await;
    let directory = TempDir::new().unwrap();
    let toy = counting::<1>(&nats, &directory).await;
    toy.becomes_ready().await;
    // Somebody spoils it.
    let file = directory.path().join("ticks.v1.sqlite");
    rusqlite::Connection::open(&file).unwrap().execute("UPDATE ticks SET times = 7", ()).unwrap();
    assert_eq!(see(toy.addr, "/ticks").await.unwrap(), (200, r#"[["a",7]]"#.into()));

    let gate = GATES[1].lock().await;
    rebuild(directory.path(), Some("ticks")).unwrap();
    assert_eq!(says(&toy, "building version 1: 0 events taken in, 2 to come").await, 200);
    assert_eq!(see(toy.addr, "/ticks").await.unwrap(), (200, r#"[["a",7]]"#.into()), "the old one serves");

    drop(gate);
    eventually(PATIENCE, || async {
        let (status, shown) = see(toy.addr, "/ticks").await?;
        assert_eq!(status, 200, "{shown}");
        (shown == r#"[["a",2]]"#).then_some(())
    })
    .await;
    assert!(file.exists());
    tick(&clocks, "a").await;
    assert_eq!(says(&toy, "at 3, 0 events behind").await, 200);
    assert_eq!(see(toy.addr, "/ticks").await.unwrap(), (200, r#"[["a",3]]"#.into()));
    toy.signals.send("SIGTERM").await.unwrap();
    toy.end().await.unwrap();
}

#[tokio::test]
async fn a_read_model_whose_stream_cannot_be_followed_is_not_ready() {
    let nats = NatsServer::start().await;
    ticked(&nats).await;
    let directory = TempDir::new().unwrap();
    let toy = counting::<2>(&nats, &directory).await;
    toy.becomes_ready().await;
    let client = nats.client().await;
    async_nats::jetstream::new(client.clone()).delete_stream(EVENTS).await.unwrap();
    assert_eq!(says(&toy, "could not be followed").await, 503);
    // Another log is read, and is not taken for the one that is gone.
    tick(&ticked(&nats).await, "a").await;
    eventually(PATIENCE, || async { (see(toy.addr, "/ticks").await?.1 == r#"[["a",3]]"#).then_some(()) })
        .await;
    eventually(PATIENCE, || async {
        let (status, report) = see(toy.addr, "/health/ready").await?;
        (status == 503 && report.contains("is another one than this service began with")).then_some(())
    })
    .await;
}

/// What clients see of an event.
#[derive(Serialize)]
#[serde(tag = "type")]
enum Entry {
    Ticked,
}

impl From<ClockEvent> for Entry {
    fn from(ClockEvent::Ticked(_): ClockEvent) -> Self {
        Self::Ticked
    }
}

async fn history(
    State(clocks): State<EventStore<Clock>>,
    Path(clock): Path<EntityId>,
    asked: HistoryRequest,
) -> Result<History<Entry>, Problem> {
    asked.answer(&clocks, &clock).await?.ok_or_else(|| Problem::not_found("no such clock"))
}

/// Waits until the stream has told of that version.
async fn hears(stream: &mut TcpStream, heard: &mut Vec<u8>, version: u64) {
    let told = format!("id: {version}\n");
    while !String::from_utf8_lossy(heard).contains(&told) {
        let more = tokio::time::timeout(PATIENCE, stream.read_buf(heard)).await;
        assert_ne!(more.expect("more in time").unwrap(), 0, "{}", String::from_utf8_lossy(heard));
    }
}

#[tokio::test]
async fn a_live_history_ends_with_its_service_and_does_not_hold_it_up() {
    let nats = NatsServer::start().await;
    let clocks = ticked(&nats).await;
    // The deadline is far away: nothing is cut off, the stream ends by itself.
    let toy = Running::start_with(settings(&nats.url(), 3600), |service| {
        let clocks = service.log().store::<Clock>();
        service.serve(Router::new().route("/clocks/{id}/events", get(history)).with_state(clocks));
    })
    .await;
    toy.becomes_ready().await;
    let mut stream = TcpStream::connect(toy.addr).await.unwrap();
    let request = "GET /clocks/a/events HTTP/1.1\r\nHost: toy\r\nAccept: text/event-stream\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    hears(&mut stream, &mut heard, 2).await;
    tick(&clocks, "a").await;
    hears(&mut stream, &mut heard, 3).await;

    toy.signals.send("SIGTERM").await.unwrap();
    toy.end().await.unwrap();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("an end").unwrap();
    assert!(heard.ends_with(b"\r\n0\r\n\r\n"), "it is whole: {}", String::from_utf8_lossy(&heard));
}

/// Writes down which clocks have ticked.
#[derive(Clone, Default)]
struct Heard(Arc<std::sync::Mutex<Vec<EntityId>>>);

impl crate::Handler<Tick> for Heard {
    async fn handle(&self, tick: Recorded<Tick>) -> crate::HandlerResult {
        self.0.lock().unwrap().push(tick.event.clock_id);
        Ok(())
    }
}

#[tokio::test]
async fn consumers_wait_for_what_is_loaded_first_and_readiness_says_so() {
    let nats = NatsServer::start().await;
    let client = nats.client().await;
    provision::streams(&client, &Catalog::new().with::<Tick>(), 1).await.unwrap();
    let log = EventLog::new(client.clone(), "/test");
    let [whole, broken] = ["whole", "broken"].map(|id| EntityId::new(id).unwrap());
    for clock in [&whole, &broken] {
        tick(&log.store(), clock.as_str()).await;
    }
    // Its load never comes to an end.
    client.publish("clock.ticked.broken.2", "no event".into()).await.unwrap();
    client.flush().await.unwrap();
    let heard = Heard::default();
    let start = async |clock: &EntityId| {
        Running::start(&nats, |service| {
            service.load_first(&service.log().store::<Clock>(), clock);
            service.consume(Consumer::new("hearer").on::<Tick>(heard.clone()));
        })
        .await
    };

    let toy = start(&broken).await;
    eventually(PATIENCE, async || {
        let (status, checks) = see(toy.addr, "/health/ready").await?;
        (status == 503 && checks.contains("\"clock broken\"") && checks.contains("loading was interrupted"))
            .then_some(())
    })
    .await;
    let js = async_nats::jetstream::new(client.clone());
    js.get_stream(EVENTS).await.unwrap().consumer_info("hearer").await.unwrap_err();
    toy.signals.send("SIGTERM").await.unwrap();
    toy.end().await.unwrap();
    assert_eq!(*heard.0.lock().unwrap(), []);

    let toy = start(&whole).await;
    toy.becomes_ready().await;
    eventually(PATIENCE, async || heard.0.lock().unwrap().contains(&whole).then_some(())).await;
    toy.signals.send("SIGTERM").await.unwrap();
    toy.end().await.unwrap();
}
