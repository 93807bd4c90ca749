//! Tells customers by mail what becomes of their orders. [`mailer`] is the story of one mail: [`letter`] composes it,
//! [`mail`] has the rules that it is sent once, [`transport`] sends it ([`smtp`], or [`eml`] files without a server).
//! [`mail_list`] and [`http`] show what was sent. `main.rs` wires them.

pub mod eml;
pub mod http;
pub mod letter;
pub mod mail;
pub mod mail_list;
pub mod mailer;
pub mod smtp;
pub mod transport;

use std::sync::Arc;

use common::order::{OrderCancelled, OrderConfirmed, OrderPlaced, OrderShipped};
use common::payment::PaymentProcessed;
use jetkit::Consumer;

/// How often a mail is tried where it is not known whose fault a failure is: an order that is not on the log yet has three and a
/// half minutes at least. A mail server that is away, or that wants a mail later, uses up no attempt.
const MAX_ATTEMPTS: u32 = 20;

/// The one consumer. Its name is the durable's: renaming it handles the whole log again.
pub fn consumer(mailer: mailer::Mailer) -> Consumer {
    let mailer = Arc::new(mailer);
    Consumer::new("consumer-email")
        .on::<OrderPlaced>(Arc::clone(&mailer))
        .on::<OrderConfirmed>(Arc::clone(&mailer))
        .on::<OrderShipped>(Arc::clone(&mailer))
        .on::<OrderCancelled>(Arc::clone(&mailer))
        .on::<PaymentProcessed>(mailer)
        .max_attempts(MAX_ATTEMPTS)
}
