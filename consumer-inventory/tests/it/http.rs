//! The routes of consumer-inventory.

use axum::http::Method;
use consumer_inventory::http::Api;
use jetkit::http::HttpApi as _;
use jetkit::testing::{Answer, Harness, Routes};
use serde_json::{Value, json};

use crate::{harness, keeper};

struct Shop {
    _harness: Harness,
    http: Routes,
}

impl Shop {
    async fn start() -> Self {
        let harness = harness().await;
        let api = Api { storekeeper: keeper(&harness), stock: harness.read_model() };
        Self { http: Routes::new(api.routes()), _harness: harness }
    }

    async fn receive(&self, product: &str, body: Value) -> Answer {
        self.http.post(&format!("/stock/{product}/receipts"), body).await
    }
}

#[tokio::test]
async fn receipts_add_up_and_are_read_back() {
    let shop = Shop::start().await;
    assert_eq!(shop.receive("p-1", json!({"received": 3})).await.status, 200);
    let received = shop.receive("p-1", json!({"received": 4})).await;
    let expected = json!({"product_id": "p-1", "on_hand": 7, "reserved": 0, "shipped": 0, "received": 7});
    assert_eq!((received.status.as_u16(), &received.body), (200, &expected));
    let sequence = received.header("event-sequence");
    let shown = shop.http.get(&format!("/stock/p-1?min_sequence={sequence}")).await;
    assert_eq!((shown.status.as_u16(), &shown.body), (200, &expected));
    let listed = shop.http.get("/stock").await;
    assert_eq!(listed.status, 200);
    assert_eq!((&listed.body["total"], &listed.body["items"][0]), (&json!(1), &expected));
}

#[tokio::test]
async fn a_repeated_receipt_adds_nothing() {
    let shop = Shop::start().await;
    let receive = async || {
        let key = [("idempotency-key", "truck-7")];
        let answer = shop.http.send(Method::POST, "/stock/p-1/receipts", &key, json!({"received": 3})).await;
        (answer.status, answer.header("event-sequence").to_owned(), answer.body)
    };
    let first = receive().await;
    assert_eq!(first, receive().await);
    assert_eq!(first.2["received"], 3);
}

#[tokio::test]
async fn a_put_that_would_add_is_refused_and_names_the_route_that_receives() {
    let shop = Shop::start().await;
    let put = shop.http.send(Method::PUT, "/stock/p-1", &[], json!({"received": 3})).await;
    put.assert_problem(405, "method-not-allowed");
    assert_eq!(put.header("allow"), "GET,HEAD");
    assert!(put.body["detail"].as_str().unwrap().contains("POST /stock/p-1/receipts"), "{}", put.text);
    shop.http.get("/stock/p-1").await.assert_problem(404, "not-found");

    let deleted = shop.http.send(Method::DELETE, "/stock/p-1", &[], "").await;
    deleted.assert_problem(405, "method-not-allowed");
    assert_eq!(deleted.header("allow"), "GET,HEAD");
}

#[tokio::test]
async fn nonsense_is_refused_and_stores_nothing() {
    let shop = Shop::start().await;
    for body in [
        json!({"received": 0}),
        json!({"received": -1}),
        json!({"received": 1.5}),
        json!({"received": "1"}),
        json!({"received": 1_000_000_001}),
        json!({"received": 1, "more": 1}),
        json!({}),
    ] {
        shop.receive("p-1", body).await.assert_problem(422, "invalid");
    }
    shop.receive("a.b", json!({"received": 1})).await.assert_problem(422, "invalid");
    shop.http.get("/stock/p-1").await.assert_problem(404, "not-found");
    shop.http.get("/reservations/o-1").await.assert_problem(404, "not-found");
}

#[tokio::test]
async fn weird_ids_and_pages_beyond_the_end_break_nothing() {
    let shop = Shop::start().await;
    shop.receive("p-1", json!({"received": 3})).await;
    let long = "x".repeat(8 * 1024);
    for weird in ["a.b", "a%00b", "%2A", "%3E", "a%20b", "%F0%9F%A6%80", "%27", &long] {
        for path in ["/stock", "/reservations"] {
            shop.http.get(&format!("{path}/{weird}")).await.assert_problem(422, "invalid");
        }
        shop.receive(weird, json!({"received": 1})).await.assert_problem(422, "invalid");
    }
    let beyond = shop.http.get("/stock?page=1000").await;
    assert_eq!((beyond.status.as_u16(), &beyond.body["items"]), (200, &json!([])));
    assert_eq!(beyond.body["total"], 1);
    for bad in ["page=0", "page=1001", "per_page=101", "min_sequence=-1", "min_sequence=18446744073709551616"]
    {
        assert_eq!(shop.http.get(&format!("/stock?{bad}")).await.status, 400, "{bad}");
    }
    for body in [json!([1]), json!(1), json!(null)] {
        shop.receive("p-1", body).await.assert_problem(422, "invalid");
    }
    assert_eq!(shop.http.get("/stock/p-1").await.body["received"], 3);
}
