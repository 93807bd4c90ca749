//! What happens to a mail. Its id is derived from the event that caused it, so an event leads to one mail.

use jetkit::{EntityId, Event};
use serde::{Deserialize, Serialize};

/// A mail is about to be handed to the mail server. If no [`MailSent`] follows, nobody knows whether it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MailAttempted {
    /// The mail.
    pub mail_id: EntityId,
    /// The order that it is about.
    pub order_id: EntityId,
    /// What it says.
    pub kind: MailKind,
    /// To whom.
    pub to: String,
    /// Its `Message-ID`, the same on every attempt.
    pub message_id: String,
}

impl Event for MailAttempted {
    const TYPE: &'static str = "mail.attempted";

    fn entity_id(&self) -> &EntityId {
        &self.mail_id
    }
}

/// The mail server took a mail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MailSent {
    /// The mail.
    pub mail_id: EntityId,
    /// The order that it is about.
    pub order_id: EntityId,
    /// What it says.
    pub kind: MailKind,
    /// To whom.
    pub to: String,
    /// Its `Message-ID`.
    pub message_id: String,
}

impl Event for MailSent {
    const TYPE: &'static str = "mail.sent";

    fn entity_id(&self) -> &EntityId {
        &self.mail_id
    }
}

/// An order's mails have nowhere to go: its address is invalid. Recorded once, for the mail that would have been its first;
/// no other is attempted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MailSkipped {
    /// The mail that is not sent.
    pub mail_id: EntityId,
    /// The order that it is about.
    pub order_id: EntityId,
    /// What it would have said.
    pub kind: MailKind,
    /// The address, as far as it can be shown.
    pub to: String,
    /// What is wrong with it, for people.
    pub reason: String,
}

impl Event for MailSkipped {
    const TYPE: &'static str = "mail.skipped";

    fn entity_id(&self) -> &EntityId {
        &self.mail_id
    }
}

/// What a mail says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MailKind {
    /// The order was received.
    OrderPlaced,
    /// The order is paid.
    OrderConfirmed,
    /// The order is on its way.
    OrderShipped,
    /// The order was cancelled.
    OrderCancelled,
    /// The payment failed.
    PaymentFailed,
}

jetkit::events! {
    /// What can happen to a mail.
    pub enum MailEvent {
        Attempted(MailAttempted),
        Sent(MailSent),
        Skipped(MailSkipped),
    }
}
