//! Tests of consumer-inventory: its rules without a broker, its handlers and routes on a real nats-server.

#![expect(clippy::unwrap_used, reason = "a test's own functions fail the test by panicking")]

mod http;
mod openapi;
mod scale;
mod stock;
mod storekeeper;

use common::money::{Currency, Money};
use common::order::{OrderEvent, OrderItem, OrderPlaced, PaymentMethod};
use jetkit::testing::records_anything;
use jetkit::{Cause, EntityId, EventId, EventLog, EventSet};

fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
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

records_anything!(AnyOrder, "order", OrderEvent);

/// Puts it on the log, as order-service does.
async fn happens(log: &EventLog, event: impl Into<OrderEvent>) {
    let (event, cause) = (event.into(), Cause::request(EventId::generate()));
    log.store::<AnyOrder>().execute(event.entity_id(), &event, &cause).await.unwrap();
}
