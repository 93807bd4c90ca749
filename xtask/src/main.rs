//! The development commands' command line: `cargo xtask --help`.
//!
//! It compiles in seconds: what needs more than a command line is in `harness` and `bench`, whose programs it builds and
//! becomes.

use std::ffi::OsString;
use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use xtask::{check, programs};

/// Development commands of the shop
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything, show what runs where, and stay until Ctrl-C
    Up(Passed),
    /// Start everything, drive orders through every path, audit what became of them, and stop
    Demo(Passed),
    /// Run every test
    Test {
        /// Only tests whose names contain one of these
        only: Vec<String>,
    },
    /// Run everything that CI runs: formatting, lints, documentation, dependencies, tests
    Check,
    /// Compare the kit's speed with async-nats doing the same work by hand
    Bench(Passed),
    /// Write a consumer crate and add it to the workspace, to `up` and to docker-compose.yml
    NewConsumer(Passed),
    /// Write a service: its events in `common`, its rules, a read model, routes, a consumer, tests
    NewService(Passed),
}

/// Arguments for another program, `--help` included.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
struct Passed {
    /// What to do and how; `--help` lists it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Up(passed) => programs::harness("up", &passed.arguments),
        Command::Demo(passed) => programs::harness("demo", &passed.arguments),
        Command::NewConsumer(passed) => programs::harness("new-consumer", &passed.arguments),
        Command::NewService(passed) => programs::harness("new-service", &passed.arguments),
        Command::Bench(passed) => programs::bench(&passed.arguments),
        Command::Test { only } => check::test(&only),
        Command::Check => check::check(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace: it says nothing about what to do.
            drop(writeln!(stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
