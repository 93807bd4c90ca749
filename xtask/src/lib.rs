//! The development commands, as a library: `main.rs` is their command line, and the `e2e` tests start the system with
//! the same [`System`] as `cargo xtask up`.
//!
//! In reading order: what the workspace holds, which nats-server runs, one process, all of them, the commands.

#![expect(clippy::print_stdout, reason = "a command talks to the person who gave it")]

mod workspace;
pub use workspace::{ServiceSpec, Workspace};
pub mod nats_server;
pub mod pip;
mod process;
pub use process::{Output, Process};
mod ports;
pub use ports::{PortLease, Ports};
mod system;
pub use system::{Ended, Options, System};
pub mod check;
pub mod demo;
pub mod new_consumer;
pub mod up;
