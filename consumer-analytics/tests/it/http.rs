//! The routes of consumer-analytics, over a read model of a real log.

use common::money::Money;
use common::order::OrderEvent;
use common::payment::{PaymentEvent, PaymentMethodKind};
use consumer_analytics::http::Api;
use jetkit::http::HttpApi as _;
use jetkit::testing::{Harness, Routes};
use serde_json::Value;

use crate::{confirmed, eur, paid, placed};

async fn get(http: &Routes, path: &str) -> Value {
    let answer = http.get(path).await;
    assert_eq!(answer.status, 200, "{path} {}", answer.text);
    answer.body
}

#[tokio::test]
async fn the_numbers_are_those_of_the_log() {
    let harness = Harness::start(&common::catalog()).await;
    let http = Routes::new(Api { metrics: harness.read_model() }.routes());

    let price: Money = eur(1_050);
    let mut last = 0;
    for n in 0..5 {
        let order_id = format!("o-{n}");
        harness.happens::<OrderEvent, _>(placed(&order_id, "alice", &[("p-1", 2, price)])).await;
        harness.happens::<PaymentEvent, _>(paid(&order_id, eur(2_100), PaymentMethodKind::Card)).await;
        last = harness.happens::<OrderEvent, _>(confirmed(&order_id)).await.sequence;
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
    let harness = Harness::start(&common::catalog()).await;
    let http = Routes::new(Api { metrics: harness.read_model() }.routes());
    let page = http.get("/").await;
    assert_eq!(page.status, 200);
    for foreign in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.text.contains(foreign), "{foreign}");
    }
    assert!(!page.text.contains("innerHTML"), "what comes from events is text, never HTML");
}
