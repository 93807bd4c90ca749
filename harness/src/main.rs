//! The command line behind `cargo xtask up`, `demo`, `new-consumer` and `new-service`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use harness::demo::{self, Demo};
use harness::new_consumer::{self, NewConsumer};
use harness::new_service::{self, NewService};
use harness::up::{self, Up};
use harness::{Workspace, nats_server};
use jetkit::Console;

/// Starts the shop, drives orders through it, writes new consumers and services
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
    /// Write a service: its events in `common`, its rules, a read model, routes, a consumer, tests
    NewService(NewService),
    /// Print the path of the nats-server that tests use, fetching the pinned one if there is none
    #[command(hide = true)]
    NatsServer,
}

/// How long the last lines wait for whoever reads them.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = run(CommandLine::parse().command).await;
    Console::stdout().flush_within(LAST_LINES_WITHIN);
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    // Without the backtrace: it says nothing about what to do.
    Console::stderr().write(format!("error: {error:#}\n").as_bytes());
    Console::stderr().flush_within(LAST_LINES_WITHIN);
    ExitCode::FAILURE
}

async fn run(command: Command) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match command {
        Command::Up(place) => up::up(&workspace, place).await,
        Command::Demo(wanted) => demo::demo(&workspace, wanted).await,
        Command::NewConsumer(wanted) => new_consumer::new_consumer(&workspace, &wanted).map(drop),
        Command::NewService(wanted) => new_service::new_service(&workspace, &wanted),
        Command::NatsServer => {
            let found = nats_server::find_or_fetch(&workspace)?;
            Console::stdout().write(format!("{}\n", found.display()).as_bytes());
            Ok(())
        }
    }
}
