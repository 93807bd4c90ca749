//! The routes of consumer-inventory.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use consumer_inventory::http::router;
use consumer_inventory::storekeeper::Storekeeper;
use eventkit::testing::NatsServer;
use eventkit::{EventLog, ReadModel};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

struct Shop {
    _server: NatsServer,
    _dir: TempDir,
    routes: Router,
}

impl Shop {
    async fn start() -> Self {
        let server = NatsServer::start().await;
        let client = server.client().await;
        eventkit::provision::streams(&client, &common::catalog(), 1).await.unwrap();
        let log = EventLog::new(client, "/consumer-inventory");
        let dir = TempDir::new().unwrap();
        let stock = ReadModel::follow(&log, dir.path());
        let routes = router(Storekeeper::new(log.store()).unwrap(), stock);
        Self { _server: server, _dir: dir, routes: eventkit::http::complete(routes) }
    }

    async fn ask(&self, request: Request<Body>) -> (StatusCode, Option<u64>, Value) {
        let answer = self.routes.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let sequence =
            answer.headers().get("event-sequence").map(|value| value.to_str().unwrap().parse().unwrap());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, sequence, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.ask(Request::get(path).body(Body::empty()).unwrap()).await;
        (status, body)
    }

    async fn put(&self, path: &str, key: Option<&str>, body: Value) -> (StatusCode, Option<u64>, Value) {
        let request = Request::put(path);
        let request = match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        self.ask(request.body(Body::from(body.to_string())).unwrap()).await
    }
}

#[tokio::test]
async fn receipts_add_up_and_are_read_back() {
    let shop = Shop::start().await;
    assert_eq!(shop.put("/stock/p-1", None, json!({"received": 3})).await.0, StatusCode::OK);
    let (status, sequence, body) = shop.put("/stock/p-1", None, json!({"received": 4})).await;
    let expected = json!({"product_id": "p-1", "on_hand": 7, "reserved": 0, "shipped": 0, "received": 7});
    assert_eq!((status, &body), (StatusCode::OK, &expected));
    let sequence = sequence.unwrap();
    let (status, body) = shop.get(&format!("/stock/p-1?min_sequence={sequence}")).await;
    assert_eq!((status, &body), (StatusCode::OK, &expected));
    let (status, body) = shop.get("/stock").await;
    assert_eq!(
        (status, body["total"].clone(), body["items"][0].clone()),
        (StatusCode::OK, json!(1), expected)
    );
}

#[tokio::test]
async fn a_repeated_receipt_adds_nothing() {
    let shop = Shop::start().await;
    let first = shop.put("/stock/p-1", Some("truck-7"), json!({"received": 3})).await;
    let again = shop.put("/stock/p-1", Some("truck-7"), json!({"received": 3})).await;
    assert_eq!(first, again);
    assert_eq!(again.2["received"], 3);
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
        let (status, _, problem) = shop.put("/stock/p-1", None, body.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body} {problem}");
    }
    assert_eq!(
        shop.put("/stock/a.b", None, json!({"received": 1})).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(shop.get("/stock/p-1").await.0, StatusCode::NOT_FOUND);
    assert_eq!(shop.get("/reservations/o-1").await.0, StatusCode::NOT_FOUND);
}
