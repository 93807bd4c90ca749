//! Tests of consumer-inventory: its rules without a broker, its handlers and routes on a real nats-server.

#![expect(clippy::unwrap_used, reason = "a test's own functions fail the test by panicking")]

mod http;
mod openapi;
mod scale;
mod stock;
mod storekeeper;

use common::money::{Currency, Money};
use common::order::{OrderItem, OrderPlaced, PaymentMethod};
use consumer_inventory::stock::Stock;
use consumer_inventory::storekeeper::Storekeeper;
use jetkit::testing::{Harness, id};

/// A server with the shop's streams.
async fn harness() -> Harness {
    Harness::start(&common::catalog()).await
}

/// A storekeeper that remembers nothing.
fn keeper(harness: &Harness) -> Storekeeper {
    Storekeeper::new(harness.log.store()).unwrap()
}

/// The warehouse, as the log has it.
async fn warehouse(harness: &Harness) -> Stock {
    harness.log.store::<Stock>().load(&id("main")).await.unwrap().state
}

/// An order for so many of each product.
fn order(order_id: &str, lines: &[(&str, u32)]) -> OrderPlaced {
    let price = Money::new(100, Currency::EUR).unwrap();
    let item = |(product_id, quantity): &(&str, u32)| OrderItem {
        product_id: id(product_id),
        product_name: (*product_id).to_owned(),
        quantity: *quantity,
        unit_price: price,
    };
    OrderPlaced {
        order_id: id(order_id),
        customer_id: id("c-1"),
        customer_email: None,
        items: lines.iter().map(item).collect(),
        total: price,
        payment_method: PaymentMethod::External {},
    }
}
