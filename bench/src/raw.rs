//! The other side's messages: the same events in the same bytes, built by hand with serde and async-nats.

use anyhow::Result;
use async_nats::jetstream::Context;
use async_nats::jetstream::message::PublishMessage;
use chrono::{DateTime, Utc};
use common::account::MoneyDeposited;
use common::money::{Currency, Money};
use common::order::{OrderItem, OrderPlaced, PaymentMethod};
use jetkit::EntityId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Subject and message.
pub(crate) type Message = (String, PublishMessage);

/// A CloudEvents document.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Document<T> {
    specversion: String,
    id: String,
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    subject: String,
    time: DateTime<Utc>,
    datacontenttype: String,
    dataversion: u32,
    correlationid: String,
    causationid: String,
    pub(crate) data: T,
}

impl<T> Document<T> {
    fn new(event_type: &str, dataversion: u32, subject: &EntityId, data: T) -> Self {
        let request = Uuid::now_v7().to_string();
        Self {
            specversion: "1.0".into(),
            id: Uuid::now_v7().to_string(),
            source: "/bench".into(),
            event_type: event_type.into(),
            subject: subject.to_string(),
            time: Utc::now(),
            datacontenttype: "application/json".into(),
            dataversion,
            correlationid: request.clone(),
            causationid: request,
            data,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

/// An order with two lines, as the shop has them.
pub(crate) fn order(n: usize) -> Result<OrderPlaced> {
    let price = Money::new(4_995, Currency::EUR)?;
    let line = |product: &str, quantity: u32| -> Result<OrderItem> {
        let product_id = EntityId::new(product)?;
        Ok(OrderItem { product_id, product_name: format!("The {product}"), quantity, unit_price: price })
    };
    Ok(OrderPlaced {
        order_id: EntityId::new(format!("order-{n:08}"))?,
        customer_id: EntityId::new(format!("customer-{}", n % 1_000))?,
        customer_email: Some(format!("customer-{}@example.com", n % 1_000)),
        items: vec![line("lamp-17", 1)?, line("table-4", 2)?],
        total: price.times(3)?,
        payment_method: PaymentMethod::Account { account_id: EntityId::new("account-1")? },
    })
}

pub(crate) fn order_message(order: &OrderPlaced, version: u64) -> Result<Message> {
    let document = Document::new("order.placed", 2, &order.order_id, order);
    message(&document, version)
}

/// The same without a message id.
pub(crate) fn order_message_without_id(order: &OrderPlaced, version: u64) -> Result<Message> {
    let document = Document::new("order.placed", 2, &order.order_id, order);
    message_without_id(&document, version)
}

/// A deposit to one of the accounts.
pub(crate) fn deposit(account: usize) -> Result<MoneyDeposited> {
    let account_id = EntityId::new(format!("account-{account}"))?;
    Ok(MoneyDeposited { account_id, amount: Money::new(1_000, Currency::EUR)?, refund_of: None })
}

pub(crate) fn deposit_message(deposit: &MoneyDeposited, version: u64) -> Result<Message> {
    let document = Document::new("account.deposited", 1, &deposit.account_id, deposit);
    message(&document, version)
}

fn message<T: Serialize>(document: &Document<T>, version: u64) -> Result<Message> {
    let (subject, message) = message_without_id(document, version)?;
    Ok((subject, message.message_id(&document.id)))
}

fn message_without_id<T: Serialize>(document: &Document<T>, version: u64) -> Result<Message> {
    let subject = format!("{}.{}.{version}", document.event_type, document.subject);
    let body = serde_json::to_vec(document)?;
    let message =
        PublishMessage::build().header("content-type", "application/cloudevents+json").payload(body.into());
    Ok((subject, message))
}

/// Publishes and awaits the ack; gives back the sequence.
pub(crate) async fn publish(js: &Context, message: Result<Message>) -> Result<u64> {
    let (subject, message) = message?;
    Ok(js.send_publish(subject, message).await?.await?.sequence)
}
