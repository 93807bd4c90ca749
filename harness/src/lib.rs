//! Starts the shop as processes, drives orders through it and audits what became of them, as a library: `main.rs` is its
//! command line, which `cargo xtask` calls, and the `e2e` tests start the system with the same [`System`] as
//! `cargo xtask up`.
//!
//! In reading order: what the workspace holds, which nats-server runs, one process, all of them, the commands.

/// Says something to the person who gave the command. It waits for no terminal, and goes on without one: children would
/// stand still behind it.
macro_rules! say {
    ($($text:tt)*) => {
        jetkit::Console::stdout().write(format!("{}\n", format_args!($($text)*)).as_bytes())
    };
}

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
pub mod demo;
pub mod new_consumer;
pub mod new_service;
mod scaffold;
pub mod up;
