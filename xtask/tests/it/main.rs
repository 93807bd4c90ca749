//! Checks of the source tree that need no build of it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "in a test every surprise is a failure, also in the functions that tests share"
)]

mod documents;
