//! Tests of consumer-email: rules and letters without a broker, the mailer on a real nats-server and a real SMTP session.

#![expect(clippy::unwrap_used, reason = "a test's own functions fail the test by panicking")]

mod addresses;
mod eml;
mod hostile_server;
mod http;
mod letter;
mod mail;
mod mailer;
mod openapi;
mod outage;
mod smtp_server;

use std::sync::Arc;

use common::money::{Currency, Money};
use common::order::{
    CancelReason, OrderCancelled, OrderConfirmed, OrderItem, OrderPlaced, OrderShipped, PaymentMethod,
};
use common::payment::{PaymentMethodKind, PaymentOutcome, PaymentProcessed};
use consumer_email::letter::Sender;
use consumer_email::mailer::Mailer;
use consumer_email::transport::MailTransport;
use jetkit::testing::{Harness, id};

use crate::smtp_server::SmtpServer;

fn eur(minor: i64) -> Money {
    Money::new(minor, Currency::EUR).unwrap()
}

fn sender() -> Sender {
    Sender::new("The Shop <shop@example.com>").unwrap()
}

/// An order of two things by somebody who can be written to.
fn order(order_id: &str) -> OrderPlaced {
    let item = |product_id, name: &str, quantity, price| OrderItem {
        product_id: id(product_id),
        product_name: name.to_owned(),
        quantity,
        unit_price: eur(price),
    };
    OrderPlaced {
        order_id: id(order_id),
        customer_id: id("c-1"),
        customer_email: Some("alice@example.org".to_owned()),
        items: vec![item("p-1", "Teapot", 1, 1999), item("p-2", "Cup", 3, 500)],
        total: eur(3499),
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
    OrderCancelled { order_id: id(order_id), reason: CancelReason::OutOfStock, detail: None }
}

fn payment(order_id: &str, status: PaymentOutcome) -> PaymentProcessed {
    PaymentProcessed {
        payment_id: id(order_id),
        order_id: id(order_id),
        amount: eur(3499),
        payment_method: PaymentMethodKind::Card,
        status,
        failure: (status == PaymentOutcome::Failed).then(|| "card_declined".to_owned()),
        reference: None,
    }
}

/// A server with the shop's streams, and one for mail.
async fn servers() -> (Harness, SmtpServer) {
    (Harness::start(&common::catalog()).await, SmtpServer::start().await)
}

/// A mailer that remembers nothing.
fn mailer(harness: &Harness, transport: impl MailTransport + 'static) -> Mailer {
    Mailer::new(harness.log.clone(), sender(), Arc::new(transport))
}
