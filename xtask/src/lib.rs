//! The development commands, without what takes long to compile: running cargo, and what a change must pass.
//!
//! `main.rs` is the command line. Starting, driving and auditing the shop is in the crate `harness`.

mod cargo;
pub use cargo::{cargo, forget_this_crate, run};
pub mod check;
pub mod programs;
