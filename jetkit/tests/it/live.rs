//! Histories as live streams, against a real server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::{Body as Bytes, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::get;
use futures::StreamExt;
use jetkit::EntityId;
use jetkit::EventStore;
use jetkit::http::{History, HistoryRequest, Path, Problem, complete};
use jetkit::testing::{Answer, NatsServer, Routes};
use serde::Serialize;
use serde_json::json;
use tower::ServiceExt;

use crate::toy::{self, Lamp, LampCommand, LampEvent, SOON, cause, id};

#[derive(Debug, Serialize)]
#[serde(tag = "type")]
enum LampEntry {
    Fitted,
    Lit { by: String },
}

impl From<LampEvent> for LampEntry {
    fn from(event: LampEvent) -> Self {
        match event {
            LampEvent::Fitted(_) => Self::Fitted,
            LampEvent::Lit(lit) => Self::Lit { by: lit.by },
        }
    }
}

async fn history(
    State(lamps): State<EventStore<Lamp>>,
    Path(lamp): Path<EntityId>,
    asked: HistoryRequest,
) -> Result<History<LampEntry>, Problem> {
    asked.answer(&lamps, &lamp).await?.ok_or_else(|| Problem::not_found("no such lamp"))
}

struct Hall {
    server: NatsServer,
    lamps: EventStore<Lamp>,
    routes: Router,
}

impl Hall {
    async fn new() -> Self {
        let (server, _client, log) = toy::server().await;
        let lamps = log.store::<Lamp>();
        let routes = Router::new().route("/lamps/{id}/events", get(history)).with_state(lamps.clone());
        Self { server, lamps, routes: complete(routes) }
    }

    async fn fit(&self, lamp: &str) {
        let fit = LampCommand::Fit { lamp_id: id(lamp), watts: 60 };
        self.lamps.execute(&id(lamp), &fit, &cause()).await.unwrap();
    }

    async fn light(&self, lamp: &str, by: &str) {
        let light = LampCommand::Light { lamp_id: id(lamp), by: by.to_owned() };
        self.lamps.execute(&id(lamp), &light, &cause()).await.unwrap();
    }

    /// A part of a history as a list, by entity and query: `a?after=3`.
    async fn list(&self, lamp: &str) -> Answer {
        let (lamp, query) = lamp.split_once('?').unwrap_or((lamp, ""));
        let routes = Router::new().route("/lamps/{id}/events", get(history)).with_state(self.lamps.clone());
        Routes::new(routes).get(&format!("/lamps/{lamp}/events?{query}")).await
    }

    /// How many messages the server has sent so far.
    async fn read(&self) -> u64 {
        let client = self.lamps.log().client();
        client.flush().await.unwrap();
        client.statistics().in_messages.load(Ordering::Relaxed)
    }

    async fn ask(&self, lamp: &str, headers: &[(&str, &str)]) -> axum::response::Response {
        let (lamp, query) = lamp.split_once('?').unwrap_or((lamp, ""));
        let mut request = Request::get(format!("/lamps/{lamp}/events?{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.routes.clone().oneshot(request.body(Bytes::empty()).unwrap()).await.unwrap()
    }

    async fn follow(&self, lamp: &str, after: Option<u64>) -> Heard {
        let after = after.map(|after| after.to_string());
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(after.iter().map(|after| ("last-event-id", after.as_str())));
        let answer = self.ask(lamp, &headers).await;
        assert_eq!(
            (answer.status(), &answer.headers()["content-type"] == "text/event-stream"),
            (StatusCode::OK, true)
        );
        Heard { stream: answer.into_body().into_data_stream(), text: String::new(), events: VecDeque::new() }
    }
}

/// The events of one live stream, as `3 Lit ann`.
struct Heard {
    stream: BodyDataStream,
    text: String,
    events: VecDeque<String>,
}

impl Heard {
    async fn next(&mut self) -> String {
        tokio::time::timeout(SOON, async {
            while self.events.is_empty() {
                self.text += std::str::from_utf8(&self.stream.next().await.unwrap().unwrap()).unwrap();
                while let Some((event, rest)) = self.text.split_once("\n\n") {
                    let line = |name: &str| event.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
                    if let (Some(id), Some(kind), Some(data)) = (line("id:"), line("event:"), line("data:")) {
                        let data: serde_json::Value = serde_json::from_str(data).unwrap();
                        assert_eq!(
                            (&data["type"], data["metadata"]["version"].to_string()),
                            (&kind.into(), id.into())
                        );
                        self.events
                            .push_back(format!("{id} {kind} {}", data["by"].as_str().unwrap_or_default()));
                    }
                    let taken = self.text.len() - rest.len();
                    self.text.drain(..taken);
                }
            }
            self.events.pop_front().unwrap()
        })
        .await
        .expect("an event in time")
    }
}

#[tokio::test]
async fn a_live_history_tells_what_was_and_then_what_happens() {
    let hall = Hall::new().await;
    hall.fit("a").await;
    hall.fit("b").await;
    hall.light("a", "ann").await;
    let mut heard = hall.follow("a", None).await;
    assert_eq!((heard.next().await, heard.next().await), ("1 Fitted ".into(), "2 Lit ann".into()));
    hall.light("b", "eve").await;
    for (version, by) in (3..).zip(["bob", "cat", "dan"]) {
        hall.light("a", by).await;
        assert_eq!(heard.next().await, format!("{version} Lit {by}"));
    }
}

#[tokio::test]
async fn a_stream_goes_on_after_the_last_event_that_was_heard() {
    let hall = Hall::new().await;
    hall.fit("a").await;
    for by in ["ann", "bob", "cat"] {
        hall.light("a", by).await;
    }
    let mut heard = hall.follow("a", Some(2)).await;
    assert_eq!((heard.next().await, heard.next().await), ("3 Lit bob".into(), "4 Lit cat".into()));
    let mut nothing_new = hall.follow("a", Some(4)).await;
    hall.light("a", "dan").await;
    assert_eq!((heard.next().await, nothing_new.next().await), ("5 Lit dan".into(), "5 Lit dan".into()));
}

#[tokio::test]
async fn a_restart_of_the_server_leaves_no_gap_and_repeats_nothing() {
    let mut hall = Hall::new().await;
    hall.fit("a").await;
    let mut heard = hall.follow("a", None).await;
    assert_eq!(heard.next().await, "1 Fitted ");
    let writer = {
        let lamps = hall.lamps.clone();
        async move |from: u64, to: u64| {
            for n in from..=to {
                let light = LampCommand::Light { lamp_id: id("a"), by: n.to_string() };
                lamps.execute(&id("a"), &light, &cause()).await.unwrap();
            }
        }
    };
    writer(2, 20).await;
    // Some of it is heard and some is under way when the server goes.
    for version in 2..=10 {
        assert_eq!(heard.next().await, format!("{version} Lit {version}"));
    }
    hall.server.restart().await;
    writer(21, 40).await;
    for version in 11..=40 {
        assert_eq!(heard.next().await, format!("{version} Lit {version}"));
    }
}

#[tokio::test]
async fn many_readers_of_one_history_all_hear_all_of_it() {
    let hall = Arc::new(Hall::new().await);
    hall.fit("a").await;
    let mut readers = Vec::new();
    for _ in 0..50 {
        readers.push(hall.follow("a", Some(1)).await);
    }
    for by in ["ann", "bob"] {
        hall.light("a", by).await;
    }
    for reader in &mut readers {
        assert_eq!((reader.next().await, reader.next().await), ("2 Lit ann".into(), "3 Lit bob".into()));
    }
}

#[tokio::test]
async fn the_number_of_live_streams_is_limited() {
    let hall = Hall::new().await;
    hall.fit("a").await;
    let mut open = Vec::new();
    for _ in 0..256 {
        open.push(hall.follow("a", None).await);
    }
    let live = [("accept", "text/event-stream")];
    assert_eq!(hall.ask("a", &live).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(hall.ask("a", &[]).await.status(), StatusCode::OK, "a list is no stream");
    open.pop();
    assert_eq!(hall.ask("a", &live).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn what_never_happened_and_what_is_no_version_is_refused() {
    let hall = Hall::new().await;
    let status = async |lamp: &str, last: &str| {
        hall.ask(lamp, &[("accept", "text/html, text/event-stream;q=0.9"), ("last-event-id", last)])
            .await
            .status()
    };
    assert_eq!(status("a", "0").await, StatusCode::NOT_FOUND);
    hall.fit("a").await;
    for bad in ["x", "-1", "+1", "", "18446744073709551615", "1000000000000000000"] {
        assert_eq!(status("a", bad).await, StatusCode::BAD_REQUEST, "{bad}");
    }
    let list = [("last-event-id", "x")];
    assert_eq!(hall.ask("a", &list).await.status(), StatusCode::BAD_REQUEST, "a list begins nowhere else");
    let twice = [("last-event-id", "1"), ("last-event-id", "1")];
    assert_eq!(hall.ask("a", &twice).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(status("a", "0").await, StatusCode::OK);
}

#[tokio::test]
async fn a_version_ahead_of_the_log_is_refused_and_not_waited_for() {
    let hall = Hall::new().await;
    hall.fit("a").await;
    hall.light("a", "ann").await;
    let live = ("accept", "text/event-stream");
    for ahead in ["3", "999999999999999999"] {
        for headers in [vec![live, ("last-event-id", ahead)], vec![live]] {
            let query = if headers.len() == 1 { format!("?after={ahead}") } else { String::new() };
            let answer = hall.ask(&format!("a{query}"), &headers).await;
            assert_eq!(answer.status(), StatusCode::CONFLICT, "{ahead}");
        }
        let list = hall.list(&format!("a?after={ahead}")).await;
        list.assert_problem(409, "ahead-of-history");
    }
    // The last version that there is, is not ahead: what comes next is heard.
    let mut heard = hall.follow("a", Some(2)).await;
    hall.light("a", "bob").await;
    assert_eq!(heard.next().await, "3 Lit bob");
    // Nor does a list end before it.
    assert_eq!(hall.list("a?after=3").await.body, json!([]));
    hall.list("b?after=3").await.assert_problem(404, "not-found");
    for bad in ["after=-1", "after=x", "after=1000000000000000000", "limit=0", "limit=1001"] {
        hall.list(&format!("a?{bad}")).await.assert_problem(400, "bad-request");
    }
}

#[tokio::test]
async fn a_long_history_is_read_in_parts_of_a_bounded_size() {
    let hall = Hall::new().await;
    hall.fit("a").await;
    for n in 2..=2_345 {
        hall.light("a", &n.to_string()).await;
    }
    let (mut versions, mut sizes, mut path) = (Vec::new(), Vec::new(), Some("a".to_owned()));
    while let Some(part) = path {
        let before = hall.read().await;
        let answer = hall.list(&part).await;
        let entries = answer.body.as_array().unwrap();
        versions.extend(entries.iter().map(|entry| entry["metadata"]["version"].as_u64().unwrap()));
        sizes.push(entries.len());
        // What the server has sent for it: these events, and a few more messages around them.
        let read = hall.read().await - before;
        assert!(read < entries.len() as u64 + 100, "{read} messages for {} events", entries.len());
        path = next(&answer);
    }
    assert_eq!(sizes, [1_000, 1_000, 345]);
    assert!(versions.into_iter().eq(1..=2_345));
    let few = hall.list("a?limit=2&after=7").await;
    assert_eq!(
        (few.body.as_array().unwrap().len(), next(&few).unwrap()),
        (2, "a?limit=2&after=9".to_owned())
    );

    // A client that takes one event of a live stream, and then none, has few read for it.
    let before = hall.read().await;
    let mut heard = hall.follow("a", None).await;
    assert_eq!(heard.next().await, "1 Fitted ");
    let read = hall.read().await - before;
    assert!(read < 100, "{read} messages were read for one event");
}

#[tokio::test]
async fn large_events_make_a_part_of_a_history_shorter() {
    let hall = Hall::new().await;
    hall.fit("a").await;
    let long = "x".repeat(200_000);
    for _ in 2..=12 {
        hall.light("a", &long).await;
    }
    let (mut count, mut parts, mut path) = (0, 0, Some("a".to_owned()));
    while let Some(part) = path {
        let answer = hall.list(&part).await;
        assert!(answer.text.len() < 1_300_000, "{}", answer.text.len());
        (count, parts) = (count + answer.body.as_array().unwrap().len(), parts + 1);
        path = next(&answer);
    }
    assert_eq!((count, parts), (12, 2));
}

/// The entity and the query of the address in `Link`.
fn next(answer: &Answer) -> Option<String> {
    let address = answer.header("link").strip_prefix("</lamps/")?.strip_suffix(">; rel=\"next\"")?;
    Some(address.replace("/events", ""))
}
