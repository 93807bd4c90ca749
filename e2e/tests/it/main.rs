//! The whole system as processes, black box: orders in, an audit of everything at the end.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod cluster;
mod crashes;
mod documents;
mod identities;
mod orders;
mod outsider;
mod pages;
mod storm;
