//! Payment service: the ledger of accounts, and the payments of orders.
//!
//! Read first: `account` and `payment` are the rules, without I/O; `cashier` reacts to reservations and
//! cancellations; `main.rs` wires it all.

pub mod account;
pub mod adopter;
pub mod cashier;
pub mod gateway;
pub mod http;
pub mod payment;
pub mod payment_list;
