//! The development commands' command line: `cargo xtask --help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::demo::{self, Demo};
use xtask::new_consumer::{self, NewConsumer};
use xtask::up::Up;
use xtask::{Workspace, check, up};

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
    Up(Up),
    /// Start everything, drive orders through every path, audit what became of them, and stop
    Demo(Demo),
    /// Run every test
    Test {
        /// Only tests whose names contain one of these
        only: Vec<String>,
    },
    /// Run everything that CI runs: formatting, lints, documentation, dependencies, tests
    Check,
    /// Compare the kit's speed with async-nats doing the same work by hand: `cargo xtask bench --help`
    Bench {
        /// What to run and how
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write a consumer crate and add it to the workspace, to `up` and to docker-compose.yml
    NewConsumer(NewConsumer),
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "what went wrong, for the person who gave the command")]
async fn main() -> ExitCode {
    match run(CommandLine::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}"); // without the backtrace: it says nothing about what to do
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match command {
        Command::Up(place) => up::up(&workspace, place).await,
        Command::Demo(wanted) => demo::demo(&workspace, wanted).await,
        Command::Test { only } => check::test(&workspace, &only),
        Command::Check => check::check(&workspace),
        Command::Bench { arguments } => check::bench(&workspace, &arguments),
        Command::NewConsumer(wanted) => new_consumer::new_consumer(&workspace, &wanted).map(drop),
    }
}
