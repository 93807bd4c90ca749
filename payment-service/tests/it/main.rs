//! Payment service against a real nats-server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod adoption;
mod cashier;
mod consumer;
mod till;
