//! Payment service against a real nats-server.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test every surprise is a failure, also in the functions that tests share"
)]

mod accounts;
mod adoption;
mod cashier;
mod consumer;
mod openapi;
mod test_service;
mod withdrawals;
