//! The kit against a real nats-server, one per test.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test every surprise is a failure, also in the functions that tests share"
)]

mod circuit;
mod cluster;
mod consumer;
mod follow;
mod held;
mod http;
mod identity;
mod inbox;
mod large;
mod link;
mod live;
mod projection;
mod projection_damage;
mod provision;
mod publisher;
mod readiness;
mod snapshot;
mod store;
mod toy;
mod wire;
mod wire_fuzz;
