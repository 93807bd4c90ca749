//! Order service against a real nats-server.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod adoption;
mod openapi;
mod orders;
mod outputs;
mod pages;
mod process;
mod saga;
mod test_service;
mod users;
