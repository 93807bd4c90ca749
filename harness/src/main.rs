//! The command line behind `cargo xtask up`, `demo` and `new-consumer`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use harness::demo::{self, Demo};
use harness::new_consumer::{self, NewConsumer};
use harness::up::{self, Up};
use harness::{Workspace, nats_server};

/// Starts the shop, drives orders through it, writes new consumers
#[derive(Debug, Parser)]
#[command(name = "harness", bin_name = "cargo xtask")]
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
    /// Write a consumer crate and add it to the workspace, to `up` and to docker-compose.yml
    NewConsumer(NewConsumer),
    /// Print the path of the nats-server that tests use, fetching the pinned one if there is none
    #[command(hide = true)]
    NatsServer,
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

#[expect(clippy::print_stdout, reason = "a path, for `cargo xtask` to read")]
async fn run(command: Command) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match command {
        Command::Up(place) => up::up(&workspace, place).await,
        Command::Demo(wanted) => demo::demo(&workspace, wanted).await,
        Command::NewConsumer(wanted) => new_consumer::new_consumer(&workspace, &wanted).map(drop),
        Command::NatsServer => {
            println!("{}", nats_server::find_or_fetch(&workspace)?.display());
            Ok(())
        }
    }
}
