//! The fold of the log into numbers.

use chrono::TimeDelta;
use common::money::{Currency, Money};
use common::payment::PaymentMethodKind;
use consumer_analytics::report::{
    CustomerRanking, CustomerReport, DayReport, PaymentReport, ProductRanking, ProductReport, Summary, Totals,
};
use consumer_analytics::shop_metrics::{OTHER, SalesEvent, ShopMetrics};
use jetkit::Recorded;
use jetkit::http::{Page, PageQuery};
use jetkit::projection::{Tables, rusqlite};
use jetkit::testing::Folded;
use proptest::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{at, cancelled, confirmed, declined, eur, fold, id, paid, placed, refunded, shipped};

const FIRST_PAGE: PageQuery = PageQuery::number(1, 100);

fn summary(metrics: &Folded<ShopMetrics>) -> Value {
    json(Summary { sequence: 0, totals: metrics.read(Totals::read) })
}

fn days(metrics: &Folded<ShopMetrics>) -> Value {
    json(metrics.read(|tables| DayReport::list(tables, &FIRST_PAGE)).items)
}

fn products(metrics: &Folded<ShopMetrics>, ranking: ProductRanking) -> Value {
    json(metrics.read(|tables| ProductReport::list(tables, Some(ranking), &FIRST_PAGE)).items)
}

fn customers(metrics: &Folded<ShopMetrics>) -> Value {
    json(
        metrics.read(|tables| CustomerReport::list(tables, Some(CustomerRanking::Orders), &FIRST_PAGE)).items,
    )
}

fn payments(metrics: &Folded<ShopMetrics>) -> Value {
    json(metrics.read(PaymentReport::read))
}

fn json(report: impl Serialize) -> Value {
    serde_json::to_value(report).unwrap()
}

fn account() -> PaymentMethodKind {
    PaymentMethodKind::Account { account_id: id("acc-1") }
}

/// Three orders: one shipped, one confirmed and then cancelled and refunded, one whose card was declined.
fn a_day() -> Vec<Recorded<SalesEvent>> {
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
    let products = products(&fold(a_day()), ProductRanking::UnitsOrdered);
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
    let customers = customers(&fold(a_day()));
    assert_eq!(customers[0]["customer_id"], "alice");
    assert_eq!((&customers[0]["orders"], &customers[0]["cancelled"]), (&json!(2), &json!(1)));
    assert_eq!(customers[0]["paid"][0]["amount"].to_string(), "20.01");
    assert_eq!(customers[1]["customer_id"], "bob");
    assert_eq!(customers[1]["paid"], json!([]), "paid and given back is nothing");
}

#[test]
fn payments_are_told_apart_by_method_and_by_failure() {
    let report = payments(&fold(a_day()));
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
    let summary = summary(&fold([]));
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
    let report = metrics.read(PaymentReport::read);
    assert_eq!(report.methods.len(), 51);
    assert!(report.methods.iter().all(|method| method.method.chars().count() <= 64));
    assert_eq!(report.methods.iter().map(|method| method.total).sum::<i64>(), 1_000);
    assert_eq!((&*report.methods[0].method, report.methods[0].total), (OTHER, 950));
}

#[test]
fn a_day_has_what_happened_on_it() {
    let day = TimeDelta::days(1).num_milliseconds();
    let metrics = fold([
        at(0, placed("o-1", "alice", &[("p-1", 1, eur(1_000))])),
        at(1, paid("o-1", eur(1_000), PaymentMethodKind::Card)),
        at(2, placed("o-2", "bob", &[("p-1", 2, eur(1_000))])),
        at(3, declined("o-2", eur(2_000))),
        at(day / 2, placed("o-3", "bob", &[("p-1", 3, eur(1_000))])), // midnight belongs to the new day
        at(day / 2 + 1, cancelled("o-1")),
        at(day / 2 + 2, refunded("o-1", eur(1_000))),
    ]);
    let days = days(&metrics);
    assert_eq!(
        days[0],
        json!({
            "day": "2026-01-03", "orders": 1, "cancelled": 1,
            "currency": "EUR", "revenue": -10.0, "average_order_value": 30.0,
            "money": [{"currency": "EUR", "orders": 1, "ordered": 30.0, "average_order_value": 30.0,
                       "paid": 0.0, "refunded": 10.0, "revenue": -10.0}],
            "payments": {"total": 0, "succeeded": 0, "failed": 0, "refunds": 1, "voided": 0, "success_rate": null},
        })
    );
    assert_eq!(
        (&days[1]["day"], &days[1]["orders"], &days[1]["cancelled"]),
        (&json!("2026-01-02"), &json!(2), &json!(0))
    );
    assert_eq!((&days[1]["revenue"], &days[1]["average_order_value"]), (&json!(10.0), &json!(15.0)));
    assert_eq!(days[1]["payments"]["success_rate"], 0.5);
    assert_eq!(summary(&metrics)["revenue"].to_string(), "0.0");
    assert_eq!(summary(&metrics)["orders"]["cancelled"], 1);
}

#[test]
fn lists_are_read_a_page_at_a_time() {
    let metrics = fold(
        (0..5)
            .map(|n| at(n, placed(&format!("o-{n}"), &format!("c-{n}"), &[(&format!("p-{n}"), 1, eur(1))]))),
    );
    let page = PageQuery::number(2, 2);
    let customers = metrics.read(|tables| CustomerReport::list(tables, None, &page));
    assert_eq!((customers.total, &customers.items[0].customer_id), (5, &id("c-2")));
    let products = metrics.read(|tables| ProductReport::list(tables, Some(ProductRanking::UnitsSold), &page));
    assert_eq!((products.total, &products.items[1].product_id), (5, &id("p-3")));
}

/// The ids on every page, as a reader finds them who follows cursors while more and more is sold.
fn walk<T>(
    metrics: &mut Folded<ShopMetrics>,
    list: impl Fn(&Tables<'_>, &PageQuery) -> rusqlite::Result<Page<T>>,
    id_of: impl Fn(&T) -> String,
) -> Vec<String> {
    let (mut ids, mut page, mut order) = (Vec::new(), PageQuery::number(1, 2), 0);
    loop {
        let found = metrics.read(|tables| list(tables, &page));
        ids.extend(found.items.iter().map(&id_of));
        let Some(next) = found.next else { return ids };
        page = PageQuery::after(next, 2);
        // What was last by any count is first now.
        for n in [0, 2, 4] {
            order += 1;
            let (order_id, customer) = (format!("more-{n}-{order}"), format!("c-{n}"));
            let sold = placed(&order_id, &customer, &[(&format!("p-{n}"), 1_000 * order, eur(1))]);
            metrics.apply(&at(order.into(), sold)).unwrap();
        }
    }
}

#[test]
fn cursors_show_each_product_customer_and_day_once_while_sales_go_on() {
    let five = |kind: &str| (0..5).map(|n| format!("{kind}-{n}")).collect::<Vec<_>>();
    let sold = || {
        (0..5).map(|n| {
            let order = placed(&format!("o-{n}"), &format!("c-{n}"), &[(&format!("p-{n}"), 1, eur(1))]);
            at(n * 86_400_000, order)
        })
    };
    let products = walk(
        &mut fold(sold()),
        |tables, page| ProductReport::list(tables, None, page),
        |product| product.product_id.to_string(),
    );
    assert_eq!(products, five("p"));
    let customers = walk(
        &mut fold(sold()),
        |tables, page| CustomerReport::list(tables, None, page),
        |customer| customer.customer_id.to_string(),
    );
    assert_eq!(customers, five("c"));
    let days = walk(&mut fold(sold()), DayReport::list, |day| day.day.to_string());
    assert!(days.len() == 5 && days.is_sorted_by(|one, next| one > next), "{days:?}");
}

#[test]
fn what_a_producers_clock_says_names_no_product_and_measures_no_time() {
    let of_year_9999 = |mut event: Recorded<SalesEvent>| {
        event.meta.time = "9999-12-31T00:00:00Z".parse().unwrap();
        event
    };
    let named = |order_id, name: &str| {
        let mut order = placed(order_id, "alice", &[("p-1", 1, eur(5))]);
        name.clone_into(&mut order.items[0].product_name);
        order
    };
    let metrics = fold([
        of_year_9999(at(0, named("o-1", "Wrong"))),
        at(100, named("o-2", "Right")),
        at(300, paid("o-1", eur(5), account())),
        of_year_9999(at(400, paid("o-2", eur(5), account()))),
    ]);
    assert_eq!(products(&metrics, ProductRanking::UnitsOrdered)[0]["name"], "Right");
    assert_eq!(summary(&metrics)["time_to_payment"]["average_ms"], 300);
    let last = customers(&metrics)[0]["last_order_at"].as_str().unwrap().to_owned();
    assert!(last.starts_with("2026-01-02T12:00:00.1"), "{last}");
}

/// Another producer may write any of these; an aggregate writes none.
#[test]
fn what_no_aggregate_has_appended_is_not_counted() {
    let mut metrics = fold(a_day());
    let straight = [summary(&metrics), days(&metrics), customers(&metrics), payments(&metrics)];
    let again = |version, event| Recorded { version, ..event };
    for stray in [
        again(1, at(500, placed("o-1", "mallory", &[("p-1", 7, eur(1))]))), // placed before
        again(4, at(500, placed("o-1", "mallory", &[("p-1", 7, eur(1))]))), // the next one, but placed
        again(9, at(500, cancelled("o-1"))),                                // a version ahead
        again(1, at(500, cancelled("o-9"))),                                // of an order that is not placed
        again(1, at(500, paid("o-1", eur(2_001), account()))),              // paid before
        again(5, at(500, refunded("o-1", eur(2_001)))),
    ] {
        assert!(metrics.apply(&stray).is_err(), "{stray:?}");
        assert_eq!([summary(&metrics), days(&metrics), customers(&metrics), payments(&metrics)], straight);
    }
}

#[test]
fn a_sum_beyond_64_bits_is_refused_and_never_rounded() {
    let most = Money::new(Money::MAX_MAJOR * 1_000, Currency::new("KWD").unwrap()).unwrap();
    let mut metrics = fold([]);
    let counted = (0..10_000).take_while(|n| {
        let payment = paid(&format!("o-{n}"), most, PaymentMethodKind::Card);
        metrics.apply(&at(0, payment)).is_ok()
    });
    let counted = counted.count();
    assert_eq!(counted, 9_223); // 2^63 / 10^15
    assert_eq!(summary(&metrics)["payments"]["succeeded"], counted);
    assert_eq!(metrics.read(Totals::read).sales.money[0].paid.to_string(), "9223000000000000.000");
    // Another day's sum has room, and so has the total over both.
    let method = PaymentMethodKind::Account { account_id: id("acc-1") };
    let tomorrow = TimeDelta::days(1).num_milliseconds();
    for n in 0..5_000 {
        metrics.apply(&at(tomorrow, paid(&format!("p-{n}"), most, method.clone()))).unwrap();
    }
    assert_eq!(metrics.read(Totals::read).sales.money[0].paid.to_string(), "14223000000000000.000");
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
        prop_assert_eq!(days(&moved), days(&straight));
        prop_assert_eq!(customers(&moved), customers(&straight));
        let order = ProductRanking::Orders;
        prop_assert_eq!(products(&moved, order), products(&straight, order));
    }
}
