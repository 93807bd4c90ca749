//! The routes of consumer-dlq, with a consumer that fails and a real stream of dead letters.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use axum::http::{Method, StatusCode};
use common::order::{OrderConfirmed, OrderEvent};
use consumer_dlq::archive::Archive;
use consumer_dlq::http::Api;
use jetkit::http::HttpApi as _;
use jetkit::testing::{Harness, Routes, Running, SOON, eventually, id};
use jetkit::{Consumer, Handler, HandlerError, HandlerResult, OrUnavailable, Recorded};
use serde_json::{Value, json};

/// Refuses some orders, and remembers what it saw and what it did.
#[derive(Default)]
struct Picky {
    refused: Mutex<HashSet<&'static str>>,
    seen: Mutex<Vec<String>>,
    done: Mutex<Vec<(String, String)>>,
}

impl Handler<OrderConfirmed> for Picky {
    async fn handle(&self, order: Recorded<OrderConfirmed>) -> HandlerResult {
        let order_id = order.order_id.to_string();
        self.seen.lock().unwrap().push(order_id.clone());
        if self.refused.lock().unwrap().contains(order_id.as_str()) {
            return Err(HandlerError::reject(anyhow::anyhow!("<b>no</b>").context("looking at the order")));
        }
        self.done.lock().unwrap().push((order_id, order.payment_id.to_string()));
        Ok(())
    }
}

/// A log, two consumers of which one is picky, and the archive.
struct Shop {
    harness: Harness,
    picky: Arc<Picky>,
    other: Arc<Picky>,
    http: Routes,
    running: Vec<Running>,
}

impl Shop {
    async fn start(refused: impl IntoIterator<Item = &'static str>) -> Self {
        let harness = Harness::start(&common::catalog()).await;
        let (picky, other) = (Arc::new(Picky::default()), Arc::new(Picky::default()));
        picky.refused.lock().unwrap().extend(refused);
        let archive = Archive::new(harness.client.clone(), harness.read_model());
        let http = Routes::new(Api { archive, catalog: Arc::new(common::catalog()) }.routes());
        let mut shop = Self { harness, picky, other, http, running: Vec::new() };
        shop.start_consumers();
        shop
    }

    fn start_consumers(&mut self) {
        let run = |name: &str, handler: &Arc<Picky>| {
            self.harness.run(Consumer::new(name).on::<OrderConfirmed>(Arc::clone(handler)))
        };
        self.running = vec![run("picky", &self.picky), run("other", &self.other)];
    }

    async fn confirmed(&self, order_id: &str) {
        let confirmed = OrderConfirmed { order_id: id(order_id), payment_id: id("p-1") };
        self.harness.happens::<OrderEvent, _>(confirmed).await;
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let body = body.map_or(String::new(), |body| body.to_string());
        let answer = self.http.send(method, path, &[], body).await;
        (answer.status, answer.body)
    }

    async fn list(&self, query: &str) -> Vec<Value> {
        let (status, body) = self.ask(Method::GET, &format!("/dead-letters?{query}"), None).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let items = body["items"].as_array().unwrap().clone();
        assert_eq!(body["total"], items.len());
        items
    }

    /// The list, as soon as it has that many entries.
    async fn listed(&self, query: &str, count: usize) -> Vec<Value> {
        eventually(SOON, async || {
            let items = self.list(query).await;
            (items.len() == count).then_some(items)
        })
        .await
    }

    async fn done(&self) -> Vec<(String, String)> {
        eventually(SOON, async || {
            let done = self.picky.done.lock().unwrap().clone();
            (!done.is_empty()).then_some(done)
        })
        .await
    }
}

#[tokio::test]
async fn a_dead_letter_is_listed_and_shown_whole() {
    let shop = Shop::start(["o-1"]).await;
    shop.confirmed("o-1").await;
    let items = shop.listed("consumer=picky&type=order.confirmed&class=rejected", 1).await;
    let item = &items[0];
    assert_eq!(item["status"], "open");
    assert_eq!(item["error"], "looking at the order");
    assert_eq!(item["subject"], "order.confirmed.o-1.1");
    let id = item["id"].as_str().unwrap();
    let (status, whole) = shop.ask(Method::GET, &format!("/dead-letters/{id}"), None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(whole["errors"], json!(["looking at the order", "<b>no</b>"]));
    assert_eq!(whole["payload"]["json"]["data"]["order_id"], "o-1");
    assert_eq!(whole["headers"]["Nats-Msg-Id"][0], whole["payload"]["json"]["id"]);
    assert_eq!(whole["headers_dropped"], 0);
    for nothing in ["consumer=other", "type=order.placed", "class=crashed", "status=dismissed"] {
        assert_eq!(shop.list(nothing).await, [] as [Value; 0], "{nothing}");
    }
    for bad in ["class=sad", "status=lost", "page=0"] {
        let (status, _) = shop.ask(Method::GET, &format!("/dead-letters?{bad}"), None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

/// Finds the shelf full.
struct Shelf;

impl Handler<OrderConfirmed> for Shelf {
    async fn handle(&self, _: Recorded<OrderConfirmed>) -> HandlerResult {
        Err(anyhow::anyhow!("<b>full</b>")).or_unavailable("shelf")
    }
}

#[tokio::test]
async fn a_consumer_that_waits_for_what_is_down_is_shown_and_makes_no_dead_letter() {
    let shop = Shop::start([]).await;
    let circuits = async || {
        let (status, body) = shop.ask(Method::GET, "/circuits", None).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["circuits"].as_array().unwrap().clone()
    };
    assert_eq!(circuits().await, [] as [Value; 0]);
    let consumer = Consumer::new("shelves").max_attempts(1).on::<OrderConfirmed>(Shelf);
    let _shelves = shop.harness.run(consumer);
    shop.confirmed("o-1").await;
    let open = eventually(SOON, async || circuits().await.pop()).await;
    assert_eq!((&open["consumer"], &open["dependency"]), (&json!("shelves"), &json!("shelf")));
    assert_eq!(open["reason"], "<b>full</b>");
    assert_eq!(shop.list("").await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_dead_letter_with_any_headers_is_shown_and_redriven() {
    let shop = Shop::start([]).await;
    let first_lines = ["NATS/1.0\r404 No Messages", "NATS/1.0 404 No Messages", "NATS/1.0 503", "no colon"];
    for (n, first_line) in first_lines.iter().enumerate() {
        let headers = format!(
            "{first_line}\r\nno colon\r\nX-Cr: a\rb\r\nNats-Sequence: 99\r\nDlq-Consumer: picky\r\n\
             Dlq-Class: rejected\r\nDlq-Errors: [\"no\"]\r\nDlq-Attempts: 1\r\nDlq-Service-Version: 1\r\n\
             Dlq-First-Failed-At: 2026-01-01T00:00:00Z\r\nDlq-Last-Failed-At: 2026-01-01T00:00:00Z\r\n\
             Dlq-Redrives: 0\r\nDlq-Stream: EVENTS\r\nDlq-Sequence: {n}\r\nDlq-Subject: order.confirmed.o-1.1\r\n\r\n"
        );
        shop.harness.server.publish_raw(b"dlq.events.picky.order.confirmed", headers.as_bytes(), b"{}").await;
    }
    shop.listed("consumer=picky", first_lines.len()).await;
    for (n, first_line) in first_lines.iter().enumerate() {
        let path = format!("/dead-letters/picky-EVENTS-{n}");
        let (status, whole) = shop.ask(Method::GET, &path, None).await;
        assert_eq!((status, &whole["errors"]), (StatusCode::OK, &json!(["no"])), "{first_line}: {whole}");
        let (status, body) = shop.ask(Method::POST, &format!("{path}/redrive"), None).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{first_line}: {body}");
    }
}

#[tokio::test]
async fn what_is_no_json_is_shown_byte_for_byte() {
    let shop = Shop::start([]).await;
    shop.harness.client.publish("order.confirmed.o-1.1", b"\xff\x00poison".as_slice().into()).await.unwrap();
    let items = shop.listed("class=undecodable&consumer=picky", 1).await;
    let (_, whole) =
        shop.ask(Method::GET, &format!("/dead-letters/{}", items[0]["id"].as_str().unwrap()), None).await;
    assert_eq!(whole["payload"], json!({"bytes": 8, "json": null, "text": null, "base64": "/wBwb2lzb24="}));
    assert!(shop.picky.seen.lock().unwrap().is_empty(), "the handler must not see it");
}

#[tokio::test]
async fn a_redrive_reaches_the_consumer_that_failed_and_no_other() {
    let shop = Shop::start(["o-1"]).await;
    shop.confirmed("o-1").await;
    let items = shop.listed("", 1).await;
    let path = format!("/dead-letters/{}", items[0]["id"].as_str().unwrap());

    let (status, entry) = shop.ask(Method::POST, &format!("{path}/redrive"), None).await;
    assert_eq!((status, &entry["redrives"]), (StatusCode::ACCEPTED, &json!(1)));
    // It fails again: one entry, open again.
    eventually(SOON, async || {
        let items = shop.list("status=open").await;
        (items.len() == 1 && items[0]["redrives"] == 1).then_some(())
    })
    .await;
    shop.picky.refused.lock().unwrap().clear();
    let (status, entry) = shop.ask(Method::POST, &format!("{path}/redrive"), None).await;
    assert_eq!((status, &entry["status"]), (StatusCode::ACCEPTED, &json!("redriven")));
    assert_eq!(shop.done().await, [("o-1".to_owned(), "p-1".to_owned())]);
    assert_eq!(*shop.other.seen.lock().unwrap(), ["o-1"], "the other consumer has seen it once");
    assert_eq!(shop.list("status=redriven").await.len(), 1);
}

#[tokio::test]
async fn a_redrive_with_new_data_is_handled_with_the_new_data() {
    let shop = Shop::start(["o-1"]).await;
    shop.confirmed("o-1").await;
    let items = shop.listed("", 1).await;
    let path = format!("/dead-letters/{}/redrive", items[0]["id"].as_str().unwrap());
    for (body, expected) in [
        (json!({"data": {"order_id": "o-2"}}), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"date": {}}), StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let (status, problem) = shop.ask(Method::POST, &path, Some(body)).await;
        assert_eq!(status, expected, "{problem}");
    }
    shop.picky.refused.lock().unwrap().clear();
    let mended = json!({"data": {"order_id": "o-1", "payment_id": "p-2"}});
    let (status, _) = shop.ask(Method::POST, &path, Some(mended)).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(shop.done().await, [("o-1".to_owned(), "p-2".to_owned())]);
}

#[tokio::test]
async fn many_are_redriven_by_filter() {
    let shop = Shop::start(["o-1", "o-2", "o-3"]).await;
    for order_id in ["o-1", "o-2", "o-3"] {
        shop.confirmed(order_id).await;
    }
    shop.listed("status=open", 3).await;
    let redrive = async |filter: Value| {
        shop.ask(Method::POST, "/dead-letters/redrive", Some(json!({ "filter": filter }))).await
    };
    assert_eq!(redrive(json!({"consumer": "other"})).await.1, json!({"redriven": 0, "left": 0}));
    assert_eq!(redrive(json!({"consumers": "picky"})).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    shop.picky.refused.lock().unwrap().clear();
    let (status, answer) = redrive(json!({"consumer": "picky", "type": "order.confirmed"})).await;
    assert_eq!((status, answer), (StatusCode::ACCEPTED, json!({"redriven": 3, "left": 0})));
    eventually(SOON, async || (shop.picky.done.lock().unwrap().len() == 3).then_some(())).await;
    assert_eq!(shop.list("status=open").await.len(), 0);
}

#[tokio::test]
async fn what_is_dismissed_is_put_away_and_not_lost() {
    let shop = Shop::start(["o-1"]).await;
    shop.confirmed("o-1").await;
    let items = shop.listed("", 1).await;
    let path = format!("/dead-letters/{}", items[0]["id"].as_str().unwrap());
    for _ in 0..2 {
        assert_eq!(shop.ask(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    }
    assert_eq!(shop.list("").await.len(), 0);
    assert_eq!(shop.list("status=dismissed").await.len(), 1);
    let (status, whole) = shop.ask(Method::GET, &path, None).await;
    assert_eq!((status, &whole["status"]), (StatusCode::OK, &json!("dismissed")));
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_strangers_on_the_stream_are_left_out() {
    let shop = Shop::start(["o-1"]).await;
    shop.harness.client.publish("dlq.events.x.y.z", "hello".into()).await.unwrap();
    shop.confirmed("o-1").await;
    shop.listed("", 1).await;
    for (method, path) in [
        (Method::GET, "/dead-letters/nothing"),
        (Method::DELETE, "/dead-letters/nothing"),
        (Method::POST, "/dead-letters/nothing/redrive"),
    ] {
        assert_eq!(shop.ask(method, path, None).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere_and_writes_no_html_of_others() {
    let shop = Shop::start([]).await;
    let page = shop.http.get("/").await;
    assert_eq!(page.status, StatusCode::OK);
    for foreign in ["http://", "https://", "src=", "@import", "url(", "innerHTML", "insertAdjacent"] {
        assert!(!page.text.contains(foreign), "{foreign}");
    }
}

#[tokio::test]
async fn many_redrives_of_one_letter_at_once_are_one() {
    let shop = Shop::start(["o-1"]).await;
    shop.confirmed("o-1").await;
    let items = shop.listed("", 1).await;
    shop.picky.refused.lock().unwrap().clear();
    let path = format!("/dead-letters/{}/redrive", items[0]["id"].as_str().unwrap());
    let answers = futures::future::join_all((0..20).map(|_| shop.ask(Method::POST, &path, None))).await;
    for (status, entry) in answers {
        assert_eq!((status, &entry["redrives"]), (StatusCode::ACCEPTED, &json!(1)), "{entry}");
    }
    shop.done().await;
    // What is handled after it has been handled after all of them.
    shop.confirmed("o-2").await;
    eventually(SOON, async || {
        let done = shop.picky.done.lock().unwrap().clone();
        done.iter().any(|(order_id, _)| order_id == "o-2").then_some(())
    })
    .await;
    let done = shop.picky.done.lock().unwrap().clone();
    assert_eq!(done.iter().filter(|(order_id, _)| order_id == "o-1").count(), 1, "{done:?}");
}

#[tokio::test]
async fn a_redrive_waits_for_its_consumer_and_new_data_that_it_would_not_read_are_refused() {
    let mut shop = Shop::start(["o-1"]).await;
    shop.confirmed("o-1").await;
    let items = shop.listed("", 1).await;
    for running in shop.running.drain(..) {
        running.stop().await;
    }
    shop.picky.refused.lock().unwrap().clear();
    let path = format!("/dead-letters/{}/redrive", items[0]["id"].as_str().unwrap());
    let mended = |payment_id: &str| json!({"data": {"order_id": "o-1", "payment_id": payment_id}});
    // Both have seen it open; one of them is first.
    let both = [mended("p-2"), mended("p-3")].map(|body| shop.ask(Method::POST, &path, Some(body)));
    let answers = futures::future::join_all(both).await;
    let accepted: Vec<_> = answers.iter().map(|(status, _)| *status == StatusCode::ACCEPTED).collect();
    assert_eq!(accepted.iter().filter(|accepted| **accepted).count(), 1, "{answers:?}");
    let (status, problem) = shop.ask(Method::POST, &path, Some(mended("p-4"))).await;
    assert_eq!((status, &problem["type"]), (StatusCode::CONFLICT, &json!("urn:problem:already-redriven")));
    assert_eq!(shop.ask(Method::POST, &path, None).await.0, StatusCode::ACCEPTED, "the same again");

    shop.start_consumers();
    let expected = if accepted[0] { "p-2" } else { "p-3" };
    assert_eq!(shop.done().await, [("o-1".to_owned(), expected.to_owned())]);
}

#[tokio::test]
async fn bodies_and_filters_that_make_no_sense_are_refused_and_redrive_nothing() {
    let shop = Shop::start(["o-1"]).await;
    shop.confirmed("o-1").await;
    let items = shop.listed("", 1).await;
    let one = format!("/dead-letters/{}/redrive", items[0]["id"].as_str().unwrap());
    for (path, body) in [
        (&*one, json!([{"order_id": "o-1", "payment_id": "p-1"}])),
        (&*one, json!("data")),
        (&*one, json!({"data": {}, "filter": {}})),
        ("/dead-letters/redrive", json!({"filter": ["picky", null, null, null]})),
        ("/dead-letters/redrive", json!({"filter": null})),
        ("/dead-letters/redrive", json!({})),
    ] {
        let (status, problem) = shop.ask(Method::POST, path, Some(body.clone())).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path} {body} {problem}");
    }
    let long = "x".repeat(300 * 1024);
    let (status, _) = shop.ask(Method::POST, &one, Some(json!({ "data": long }))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let long = "x".repeat(8 * 1024);
    for nobody in ["%25", "_icky", "picky%00", "%27%20OR%201=1--", &long] {
        assert_eq!(shop.list(&format!("consumer={nobody}")).await, [] as [Value; 0], "{nobody}");
        let (status, _) = shop.ask(Method::GET, &format!("/dead-letters/{nobody}"), None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{nobody}");
    }
    let (status, page) = shop.ask(Method::GET, "/dead-letters?page=1000", None).await;
    assert_eq!((status, &page["items"], &page["total"]), (StatusCode::OK, &json!([]), &json!(1)));
    let (status, _) = shop.ask(Method::GET, "/dead-letters?page=1001", None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(shop.list("status=open").await[0]["redrives"], 0);
}

#[tokio::test]
async fn garbage_on_the_stream_hides_no_dead_letter() {
    let shop = Shop::start(["o-1"]).await;
    let whole = [
        ("Dlq-Consumer", "picky"),
        ("Dlq-Class", "rejected"),
        ("Dlq-Errors", "[]"),
        ("Dlq-Attempts", "1"),
        ("Dlq-First-Failed-At", "2026-01-02T12:00:00Z"),
        ("Dlq-Last-Failed-At", "2026-01-02T12:00:00Z"),
        ("Dlq-Service-Version", "0.1.0"),
        ("Dlq-Redrives", "0"),
        ("Dlq-Stream", "EVENTS"),
        ("Dlq-Sequence", "7"),
        ("Dlq-Subject", "order.confirmed.o-7.1"),
    ];
    let publish = async |subject: &str, (name, value): (&str, &str)| {
        let mut headers = async_nats::HeaderMap::new();
        for (known, good) in whole {
            headers.insert(known, if known == name { value } else { good });
        }
        shop.harness.client.publish_with_headers(subject.to_owned(), headers, "{}".into()).await.unwrap();
    };
    for garbage in [
        ("Dlq-Consumer", "a.b"),
        ("Dlq-Class", "sad"),
        ("Dlq-Errors", "{}"),
        ("Dlq-Redrives", "-1"),
        ("Dlq-First-Failed-At", "yesterday"),
        ("Dlq-Sequence", "18446744073709551615"),
        ("Dlq-Sequence", "18446744073709551616"),
    ] {
        publish("dlq.events.picky.order.confirmed", garbage).await;
    }
    publish("dlq.nonsense", ("Dlq-Stream", "EVENTS")).await;
    publish("dlq.dismissed.picky", ("Dlq-Stream", "ELSEWHERE")).await;
    // The same with nothing wrong is listed.
    publish("dlq.events.picky.order.confirmed", ("Dlq-Class", "crashed")).await;
    shop.confirmed("o-1").await;
    let classes: Vec<_> = shop.listed("", 2).await.iter().map(|entry| entry["class"].clone()).collect();
    assert!(classes.contains(&json!("rejected")) && classes.contains(&json!("crashed")), "{classes:?}");
}
