//! The fold of the log into numbers.

use common::ShopEvent;
use common::money::{Currency, Money};
use common::payment::PaymentMethodKind;
use consumer_analytics::report::ProductOrder;
use consumer_analytics::shop_metrics::ShopMetrics;
use eventkit::Recorded;
use eventkit::view::Projection;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{at, cancelled, confirmed, declined, eur, id, paid, placed, refunded, shipped};

fn fold(events: impl IntoIterator<Item = Recorded<ShopEvent>>) -> ShopMetrics {
    let mut metrics = ShopMetrics::default();
    events.into_iter().for_each(|event| metrics.apply(&event));
    metrics
}

fn summary(metrics: &ShopMetrics) -> Value {
    serde_json::to_value(metrics.summary(0)).unwrap()
}

fn account() -> PaymentMethodKind {
    PaymentMethodKind::Account { account_id: id("acc-1") }
}

/// Three orders: one shipped, one confirmed and then cancelled and refunded, one whose card was declined.
fn a_day() -> Vec<Recorded<ShopEvent>> {
    vec![
        at(0, placed("o-1", "alice", &[("p-1", 2, eur(1_000)), ("p-2", 1, eur(1))])),
        at(100, paid("o-1", eur(2_001), account())),
        at(101, confirmed("o-1")),
        at(102, placed("o-2", "bob", &[("p-1", 1, eur(1_000))])),
        at(402, paid("o-2", eur(1_000), PaymentMethodKind::Card)),
        at(403, confirmed("o-2")),
        at(404, cancelled("o-2")),
        at(405, refunded("o-2", eur(1_000))),
        at(406, placed("o-3", "alice", &[("p-2", 5, eur(1))])),
        at(407, declined("o-3", eur(5))),
        at(408, cancelled("o-3")),
        at(409, shipped("o-1")),
    ]
}

#[test]
fn a_day_in_numbers() {
    let metrics = fold(a_day());
    let summary = summary(&metrics);
    assert_eq!(
        summary["orders"],
        json!({"total": 3, "placed": 0, "confirmed": 0, "shipped": 1, "cancelled": 2})
    );
    assert_eq!(summary["currency"], "EUR");
    assert_eq!(summary["revenue"].to_string(), "20.01");
    assert_eq!(summary["average_order_value"].to_string(), "10.02"); // 30.06 / 3
    assert_eq!(summary["customers"], 2);
    assert_eq!(summary["products"], 2);
    assert_eq!(
        summary["payments"],
        json!({"total": 3, "succeeded": 2, "failed": 1, "refunds": 1, "voided": 0, "success_rate": 0.6667})
    );
    let times = &summary["time_to_payment"];
    assert_eq!(
        (&times["count"], &times["average_ms"], &times["p50_ms"], &times["p95_ms"]),
        (&json!(2), &json!(200), &json!(100), &json!(300))
    );
}

#[test]
fn products_are_ranked_by_what_was_ordered_and_earn_what_was_kept() {
    let products = serde_json::to_value(fold(a_day()).products(ProductOrder::UnitsOrdered)).unwrap();
    assert_eq!(
        products,
        json!([
            {"product_id": "p-2", "name": "Product p-2", "orders": 2, "units_ordered": 6, "units_sold": 1,
             "revenue": [{"currency": "EUR", "amount": 0.01}]},
            {"product_id": "p-1", "name": "Product p-1", "orders": 2, "units_ordered": 3, "units_sold": 2,
             "revenue": [{"currency": "EUR", "amount": 20.0}]},
        ])
    );
}

#[test]
fn customers_are_ranked_by_their_orders() {
    let customers = serde_json::to_value(fold(a_day()).customers()).unwrap();
    assert_eq!(customers[0]["customer_id"], "alice");
    assert_eq!((&customers[0]["orders"], &customers[0]["cancelled"]), (&json!(2), &json!(1)));
    assert_eq!(customers[0]["paid"][0]["amount"].to_string(), "20.01");
    assert_eq!(customers[1]["customer_id"], "bob");
    assert_eq!(customers[1]["paid"], json!([]), "paid and given back is nothing");
}

#[test]
fn payments_are_told_apart_by_method_and_by_failure() {
    let report = serde_json::to_value(fold(a_day()).payment_report()).unwrap();
    assert_eq!(report["methods"][0]["method"], "card");
    assert_eq!(report["methods"][0]["success_rate"], 0.5);
    assert_eq!(report["methods"][1]["method"], "account");
    assert_eq!(report["methods"][1]["share"], 0.3333);
    assert_eq!(report["failures"], json!([{"reason": "card_declined", "count": 1}]));
}

#[test]
fn currencies_are_told_apart_and_never_added_up() {
    let yen = Money::new(500, Currency::JPY).unwrap();
    let summary = summary(&fold([
        at(0, placed("o-1", "alice", &[("p-1", 1, eur(1_000))])),
        at(1, placed("o-2", "alice", &[("p-1", 1, yen)])),
        at(2, paid("o-2", yen, PaymentMethodKind::Card)),
    ]));
    assert_eq!((&summary["currency"], &summary["revenue"]), (&Value::Null, &Value::Null));
    assert_eq!(summary["money"][0]["currency"], "EUR");
    assert_eq!(summary["money"][0]["revenue"].to_string(), "0.0");
    assert_eq!(summary["money"][1]["currency"], "JPY");
    assert_eq!(summary["money"][1]["revenue"].to_string(), "500");
}

#[test]
fn an_empty_shop_knows_nothing_rather_than_zero() {
    let summary = summary(&ShopMetrics::default());
    assert_eq!(summary["orders"]["total"], 0);
    for unknown in
        [&summary["revenue"], &summary["average_order_value"], &summary["payments"]["success_rate"]]
    {
        assert_eq!(unknown, &Value::Null);
    }
}

#[test]
fn other_producers_cannot_make_names_without_end() {
    let metrics = fold((0..1_000).map(|n| {
        let method = PaymentMethodKind::External { method: format!("m-{n}").repeat(100) };
        at(n, paid(&format!("o-{n}"), eur(1), method))
    }));
    let report = metrics.payment_report();
    assert!(report.methods.len() <= 51);
    assert!(report.methods.iter().all(|method| method.method.chars().count() <= 64));
    assert_eq!(report.methods.iter().map(|method| method.total).sum::<i64>(), 1_000);
}

proptest! {
    /// A payment of another producer may stand on the log before its order.
    #[test]
    fn the_order_of_unrelated_events_does_not_matter(seed in any::<prop::sample::Index>()) {
        let mut events = a_day();
        let payment = events.remove(1);
        events.insert(seed.index(events.len() + 1).min(9), payment);
        let (moved, straight) = (fold(events), fold(a_day()));
        prop_assert_eq!(summary(&moved), summary(&straight));
        prop_assert_eq!(
            serde_json::to_value(moved.customers()).unwrap(),
            serde_json::to_value(straight.customers()).unwrap()
        );
        prop_assert_eq!(moved.products(ProductOrder::Orders), straight.products(ProductOrder::Orders));
    }
}
