//! Tests of consumer-analytics: the fold without a broker, the routes on a real nats-server.

#![expect(clippy::unwrap_used, reason = "a test's own functions fail the test by panicking")]

mod http;
mod openapi;
mod shop_metrics;

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use common::money::{Currency, Money};
use common::order::{
    CancelReason, OrderCancelled, OrderConfirmed, OrderItem, OrderPlaced, OrderShipped, PaymentMethod,
};
use common::payment::{PaymentMethodKind, PaymentOutcome, PaymentProcessed, PaymentRefunded};
use consumer_analytics::shop_metrics::{SalesEvent, ShopMetrics};
use jetkit::testing::{Folded, id, metadata};
use jetkit::{EntityId, EventSet, Metadata, Recorded};

fn eur(minor: i64) -> Money {
    Money::new(minor, Currency::EUR).unwrap()
}

/// An order of the lines (product, quantity, price of one).
fn placed(order_id: &str, customer_id: &str, lines: &[(&str, u32, Money)]) -> OrderPlaced {
    let item = |(product_id, quantity, unit_price): &(&str, u32, Money)| OrderItem {
        product_id: id(product_id),
        product_name: format!("Product {product_id}"),
        quantity: *quantity,
        unit_price: *unit_price,
    };
    let amounts = lines.iter().map(|(_, quantity, price)| price.times(*quantity).unwrap());
    OrderPlaced {
        order_id: id(order_id),
        customer_id: id(customer_id),
        customer_email: None,
        items: lines.iter().map(item).collect(),
        total: amounts.reduce(|sum, amount| sum.plus(amount).unwrap()).unwrap(),
        payment_method: PaymentMethod::External {},
    }
}

fn confirmed(order_id: &str) -> OrderConfirmed {
    OrderConfirmed { order_id: id(order_id), payment_id: id(order_id) }
}

fn shipped(order_id: &str) -> OrderShipped {
    OrderShipped { order_id: id(order_id), carrier: "Post".into(), tracking_number: "T-1".into() }
}

fn cancelled(order_id: &str) -> OrderCancelled {
    OrderCancelled { order_id: id(order_id), reason: CancelReason::Requested, detail: None }
}

fn paid(order_id: &str, amount: Money, payment_method: PaymentMethodKind) -> PaymentProcessed {
    PaymentProcessed {
        payment_id: id(order_id),
        order_id: id(order_id),
        amount,
        payment_method,
        status: PaymentOutcome::Success,
        failure: None,
        reference: None,
    }
}

fn declined(order_id: &str, amount: Money) -> PaymentProcessed {
    PaymentProcessed {
        status: PaymentOutcome::Failed,
        failure: Some("card_declined".into()),
        ..paid(order_id, amount, PaymentMethodKind::Card)
    }
}

fn refunded(order_id: &str, amount: Money) -> PaymentRefunded {
    PaymentRefunded { payment_id: id(order_id), order_id: id(order_id), amount }
}

/// An event as the log gives it, so many milliseconds after noon: its entity's first.
fn at(ms: i64, event: impl Into<SalesEvent>) -> Recorded<SalesEvent> {
    let event = event.into();
    let noon: DateTime<Utc> = "2026-01-02T12:00:00Z".parse().unwrap();
    let meta = Metadata { time: noon + TimeDelta::milliseconds(ms), ..metadata(event.kind()) };
    Recorded { event, stored_at: meta.time, meta, version: 1, sequence: 1 }
}

/// These events, as they stand on the log: each the next one of its entity.
fn on_the_log(events: impl IntoIterator<Item = Recorded<SalesEvent>>) -> Vec<Recorded<SalesEvent>> {
    let mut versions: HashMap<(String, EntityId), u64> = HashMap::new();
    let place = |(place, event): (usize, Recorded<SalesEvent>)| {
        let entity = event.meta.event_type.split('.').next().unwrap().to_owned();
        let version = versions.entry((entity, event.entity_id().clone())).or_default();
        *version += 1;
        Recorded { version: *version, sequence: place as u64 + 1, ..event }
    };
    events.into_iter().enumerate().map(place).collect()
}

fn fold(events: impl IntoIterator<Item = Recorded<SalesEvent>>) -> Folded<ShopMetrics> {
    Folded::of(on_the_log(events))
}
