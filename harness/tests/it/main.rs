//! The commands that change the tree, in a copy of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod new_consumer;
