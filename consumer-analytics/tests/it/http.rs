//! The routes of consumer-analytics, over a read model of a real log.

use common::money::Money;
use common::order::OrderEvent;
use common::payment::{PaymentEvent, PaymentMethodKind};
use consumer_analytics::http::Api;
use consumer_analytics::shop_metrics::ShopMetrics;
use jetkit::http::HttpApi as _;
use jetkit::testing::{NatsServer, Routes, records_anything};
use jetkit::{Aggregate, Cause, EventId, EventLog, EventSet, ReadModel};
use serde_json::Value;
use tempfile::TempDir;

use crate::{confirmed, eur, paid, placed};

records_anything!(AnyOrder, "order", OrderEvent);
records_anything!(AnyPayment, "payment", PaymentEvent);

/// Gives the command twice for one cause, as a retry does, and says where it stands.
async fn happens<A>(log: &EventLog, event: A::Event) -> u64
where
    A: Aggregate<Command = <A as Aggregate>::Event>,
{
    let cause = Cause::request(EventId::generate());
    let stored = log.store::<A>().execute(event.entity_id(), &event, &cause).await.unwrap();
    let again = log.store::<A>().execute(event.entity_id(), &event, &cause).await.unwrap();
    assert!(again.repeated);
    stored.sequence
}

async fn get(http: &Routes, path: &str) -> Value {
    let answer = http.get(path).await;
    assert_eq!(answer.status, 200, "{path} {}", answer.text);
    answer.body
}

#[tokio::test]
async fn the_numbers_are_those_of_the_log() {
    let server = NatsServer::start().await;
    let client = server.client().await;
    jetkit::provision::streams(&client, &common::catalog(), 1).await.unwrap();
    let log = EventLog::new(client, "/test");
    let dir = TempDir::new().unwrap();
    let metrics = ReadModel::<ShopMetrics>::follow(&log, dir.path());
    let http = Routes::new(Api { metrics }.routes());

    let price: Money = eur(1_050);
    let mut last = 0;
    for n in 0..5 {
        let order_id = format!("o-{n}");
        happens::<AnyOrder>(&log, placed(&order_id, "alice", &[("p-1", 2, price)]).into()).await;
        happens::<AnyPayment>(&log, paid(&order_id, eur(2_100), PaymentMethodKind::Card).into()).await;
        last = happens::<AnyOrder>(&log, confirmed(&order_id).into()).await;
    }

    let summary = get(&http, &format!("/metrics/summary?min_sequence={last}")).await;
    assert_eq!(summary["orders"]["confirmed"], 5);
    assert_eq!(summary["revenue"].to_string(), "105.0");
    assert_eq!(summary["sequence"], last);
    let products = get(&http, "/metrics/products?per_page=1&sort=units_sold").await;
    assert_eq!((&products["total"], &products["items"][0]["units_sold"]), (&1.into(), &10.into()));
    let customers = get(&http, "/metrics/customers").await;
    assert_eq!(customers["items"][0]["orders"], 5);
    let days = get(&http, "/metrics/days").await;
    // It may be midnight.
    let orders = days["items"].as_array().unwrap().iter().map(|day| day["orders"].as_i64().unwrap());
    assert_eq!(orders.sum::<i64>(), 5);
    let payments = get(&http, "/metrics/payments").await;
    assert_eq!(payments["methods"][0]["method"], "card");
    for ranking in ["/metrics/products?sort=orders&per_page=1", "/metrics/customers?sort=orders&per_page=1"] {
        let ranked = http.get(ranking).await;
        assert_eq!(
            (ranked.status.as_u16(), &ranked.body["next"], ranked.header("link")),
            (200, &Value::Null, "")
        );
    }
    http.get("/metrics/products?sort=luck").await.assert_problem(400, "bad-request");
    http.get("/metrics/products?per_page=0").await.assert_problem(400, "bad-request");
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let server = NatsServer::start().await;
    let log = EventLog::new(server.client().await, "/test");
    let dir = TempDir::new().unwrap();
    let metrics = ReadModel::follow(&log, dir.path());
    let http = Routes::new(Api { metrics }.routes());
    let page = http.get("/").await;
    assert_eq!(page.status, 200);
    for foreign in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.text.contains(foreign), "{foreign}");
    }
    assert!(!page.text.contains("innerHTML"), "what comes from events is text, never HTML");
}
