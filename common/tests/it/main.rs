//! The contract's tests: every event and version that was ever written still decodes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod first_generation;
mod golden;
