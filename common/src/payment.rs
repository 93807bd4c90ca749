//! What happens to a payment. The shop's own payments carry the id of their order, so an order has at most one;
//! those of other producers keep theirs.

use jetkit::{EntityId, Event, Upcaster};
use serde::{Deserialize, Serialize};

use crate::first_generation;
use crate::money::Money;

/// A payment was tried, and this is how it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentProcessed {
    /// The payment.
    pub payment_id: EntityId,
    /// What it is for.
    pub order_id: EntityId,
    /// How much.
    pub amount: Money,
    /// By what.
    pub payment_method: PaymentMethodKind,
    /// Whether the money was taken.
    pub status: PaymentOutcome,
    /// Why it failed, as a code: `insufficient_funds`, `account_not_open`, `currency_mismatch`, `card_declined`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What the payment gateway knows it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Whether a payment took the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PaymentOutcome {
    /// The money was taken.
    Success,
    /// Nothing was taken.
    Failed,
}

/// What a payment was made with: enough to give it back, no secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PaymentMethodKind {
    /// An account in the shop's own ledger.
    Account {
        /// The account.
        account_id: EntityId,
    },
    /// A card.
    Card,
    /// Outside the shop.
    External {
        /// In the other producer's words: `credit_card`.
        method: String,
    },
}

impl PaymentMethodKind {
    /// One word for statistics and mails: `account`, `card`, or the other producer's word.
    pub fn label(&self) -> &str {
        match self {
            Self::Account { .. } => "account",
            Self::Card => "card",
            Self::External { method } => method,
        }
    }
}

impl Event for PaymentProcessed {
    const TYPE: &'static str = "payment.processed";
    const UPCASTERS: &'static [Upcaster] = &[first_generation::payment_processed];

    fn entity_id(&self) -> &EntityId {
        &self.payment_id
    }
}

/// A payment's money is to be given back, because its order was cancelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentRefunded {
    /// The payment.
    pub payment_id: EntityId,
    /// What it was for.
    pub order_id: EntityId,
    /// How much.
    pub amount: Money,
}

impl Event for PaymentRefunded {
    const TYPE: &'static str = "payment.refunded";

    fn entity_id(&self) -> &EntityId {
        &self.payment_id
    }
}

/// An order was cancelled before it was charged: nothing will be charged for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentVoided {
    /// The payment.
    pub payment_id: EntityId,
    /// What it would have been for.
    pub order_id: EntityId,
}

impl Event for PaymentVoided {
    const TYPE: &'static str = "payment.voided";

    fn entity_id(&self) -> &EntityId {
        &self.payment_id
    }
}

jetkit::events! {
    /// What can happen to a payment.
    pub enum PaymentEvent {
        Processed(PaymentProcessed),
        Refunded(PaymentRefunded),
        Voided(PaymentVoided),
    }
}
