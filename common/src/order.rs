//! What happens to an order.

use std::fmt;

use jetkit::{EntityId, Event, Upcaster};
use serde::{Deserialize, Serialize};

use crate::first_generation;
use crate::money::Money;

/// An order was placed. Nothing is reserved or paid yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderPlaced {
    /// The order.
    pub order_id: EntityId,
    /// Who ordered: a user, or a guest's id at another producer.
    pub customer_id: EntityId,
    /// Where mails about the order go; none are sent without it, nor if it is no address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer_email: Option<String>,
    /// What was ordered.
    pub items: Vec<OrderItem>,
    /// What is to be paid. For an order of the shop's own, the sum of the items.
    pub total: Money,
    /// How it is to be paid.
    pub payment_method: PaymentMethod,
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderItem {
    /// The product.
    pub product_id: EntityId,
    /// Its name when it was ordered.
    pub product_name: String,
    /// How many.
    pub quantity: u32,
    /// The price of one.
    pub unit_price: Money,
}

/// How an order is to be paid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum PaymentMethod {
    /// From an account in the shop's own ledger.
    Account {
        /// The account.
        account_id: EntityId,
    },
    /// By card, through the payment gateway.
    Card {
        /// What the gateway knows the card by.
        token: CardToken,
    },
    /// Outside the shop: the order came from another producer, and so does the news of its payment. Nothing is
    /// charged for it here.
    External {},
}

/// What a payment gateway knows a card by. It is worth money to whoever holds it, so `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CardToken(pub String);

impl fmt::Debug for CardToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CardToken(…)")
    }
}

impl Event for OrderPlaced {
    const TYPE: &'static str = "order.placed";
    const UPCASTERS: &'static [Upcaster] = &[first_generation::order_placed];

    fn entity_id(&self) -> &EntityId {
        &self.order_id
    }
}

/// An order is reserved and paid: it can be shipped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderConfirmed {
    /// The order.
    pub order_id: EntityId,
    /// The payment that paid it.
    pub payment_id: EntityId,
}

impl Event for OrderConfirmed {
    const TYPE: &'static str = "order.confirmed";

    fn entity_id(&self) -> &EntityId {
        &self.order_id
    }
}

/// An order is on its way. This is its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderShipped {
    /// The order.
    pub order_id: EntityId,
    /// Who carries it.
    pub carrier: String,
    /// What the carrier knows it by.
    pub tracking_number: String,
}

impl Event for OrderShipped {
    const TYPE: &'static str = "order.shipped";
    const UPCASTERS: &'static [Upcaster] = &[first_generation::order_shipped];

    fn entity_id(&self) -> &EntityId {
        &self.order_id
    }
}

/// An order will not be fulfilled: what was reserved is released, what was paid is given back. This is its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderCancelled {
    /// The order.
    pub order_id: EntityId,
    /// Why.
    pub reason: CancelReason,
    /// More about it, for people: the customer's words, or the failure's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Why an order was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// Somebody asked for it.
    Requested,
    /// Not everything was in stock.
    OutOfStock,
    /// The payment failed.
    PaymentFailed,
    /// Stock or payment did not answer in time.
    TimedOut,
}

impl Event for OrderCancelled {
    const TYPE: &'static str = "order.cancelled";

    fn entity_id(&self) -> &EntityId {
        &self.order_id
    }
}

jetkit::events! {
    /// What can happen to an order.
    pub enum OrderEvent {
        Placed(OrderPlaced),
        Confirmed(OrderConfirmed),
        Shipped(OrderShipped),
        Cancelled(OrderCancelled),
    }
}
