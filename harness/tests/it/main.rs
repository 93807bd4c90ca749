//! The commands: those that change the tree, in a copy of it; and without a reader.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod copy;
mod new_consumer;
mod new_service;
mod outputs;
