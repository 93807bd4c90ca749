//! Payment service: the ledger of accounts, and the payments of orders.
//!
//! Read first: `account`, `payment` and `bill` are the rules, without I/O; `cashier` reacts to reservations and
//! cancellations; `main.rs` wires it all.

pub mod account;
pub mod account_list;
pub mod adopter;
pub mod bill;
pub mod cashier;
pub mod gateway;
pub mod http;
pub mod payment;
pub mod payment_list;
pub mod silence;

use common::order::OrderCancelled;
use common::payment::PaymentProcessed;
use common::stock::StockReserved;
use jetkit::{Consumer, OrderingKey};

/// The service's one consumer. Its name is the durable's: renaming it handles the whole log again.
pub fn consumer(cashier: cashier::Cashier, adopter: adopter::PaymentAdopter) -> Consumer {
    Consumer::new("payment-service")
        .on::<StockReserved>(cashier.clone())
        .on::<OrderCancelled>(cashier)
        .adopt::<PaymentProcessed>(adopter)
        // A warehouse's events are one entity's; what must wait for one another is one order's.
        .ordered_by(OrderingKey::Correlation)
        // A card's bank should be back before a payment is given up. The gateway's own outage uses up no attempt.
        .max_attempts(10)
}
