//! `cargo xtask bench`: how fast the kit is, beside async-nats doing the same work by hand.
//!
//! Every line compares two sides in pairs, in turn (A B, B A, …), on the same private nats-server in the same run, and
//! reports the median of the pairs' ratios: a machine that is busy with something else slows both. In reading order:
//! `scenarios` (what is compared, and the targets), `scenario` (one of them), `measure` (time, CPU, memory), `arena` (the server), `raw` (the other
//! side's messages), then one file per kind of work, and `report`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to the person who gave it")]

mod arena;
mod consume;
mod execute;
mod loads;
mod measure;
mod memory;
mod project;
mod publish;
mod raw;
mod report;
mod scenario;
mod scenarios;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use metrics_exporter_prometheus::PrometheusBuilder;

use arena::Arena;
use report::{Line, Report};
use scenario::Scenario;

/// Compare the kit with async-nats doing the same work by hand
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct CommandLine {
    /// A short run: a tenth of the messages, three pairs
    #[arg(long)]
    quick: bool,

    /// Only what has this name, or else what has this in its name; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,

    /// How many pairs to run [default: 15 where the target is near 1, 5 elsewhere; 3 with --quick]
    #[arg(long, value_name = "N")]
    pairs: Option<usize>,

    /// How many messages each run handles, instead of each comparison's own number
    #[arg(long, value_name = "N")]
    messages: Option<usize>,

    /// Where to write the results as JSON
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,

    /// Run one side only and compare nothing: for a profiler
    #[arg(long, value_name = "SIDE")]
    profile: Option<OneSide>,

    /// Show what there is, and stop
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OneSide {
    Kit,
    Raw,
}

impl CommandLine {
    fn wants(&self, name: &str) -> bool {
        let known = |only: &str| names().contains(&only);
        let matches = |only: &String| if known(only) { name == only } else { name.contains(only.as_str()) };
        self.only.is_empty() || self.only.iter().any(matches)
    }

    /// Refuses an `--only` that nothing has in its name: it would measure nothing and succeed.
    fn check(&self) -> anyhow::Result<()> {
        let unknown = |only: &&String| !names().iter().any(|name| name.contains(only.as_str()));
        match self.only.iter().find(unknown) {
            Some(only) => anyhow::bail!("nothing is called {only:?}; there are {}", names().join(", ")),
            None => Ok(()),
        }
    }
}

/// Everything that can be measured, by name.
fn names() -> Vec<&'static str> {
    let scenarios = scenarios::all().into_iter().map(|scenario| scenario.name);
    scenarios.chain([loads::NAME, memory::NAME]).collect()
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&CommandLine::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command_line: &CommandLine) -> anyhow::Result<()> {
    command_line.check()?;
    let scenarios = scenarios::all();
    if command_line.list {
        for Scenario { name, about, .. } in &scenarios {
            println!("{name:22} {about}");
        }
        println!("{:22} {}", loads::NAME, loads::ABOUT);
        println!("{:22} {}", memory::NAME, memory::ABOUT);
        return Ok(());
    }
    // What a service has too: a metric costs nothing while nobody collects it.
    PrometheusBuilder::new().install_recorder().context("starting the metrics")?;
    tracing_subscriber::fmt().with_env_filter("warn").with_writer(std::io::stderr).init();

    if command_line.wants(memory::NAME) && command_line.profile.is_none() {
        memory::binary()?;
    }
    let pairs =
        |scenario: &Scenario| command_line.pairs.unwrap_or_else(|| scenario.pairs(command_line.quick)).max(1);
    if let Some(side) = command_line.profile {
        for scenario in scenarios.iter().filter(|scenario| command_line.wants(scenario.name)) {
            run_one_side(scenario, side, pairs(scenario)).await?;
        }
        return Ok(());
    }
    let mut report = Report::default();
    for scenario in scenarios.iter().filter(|scenario| command_line.wants(scenario.name)) {
        let usual = if command_line.quick { scenario.messages / 10 } else { scenario.messages };
        let messages = command_line.messages.unwrap_or(usual).max(1);
        let line = compare(scenario, pairs(scenario), messages).await;
        report.add(line.with_context(|| scenario.name)?);
    }
    if command_line.wants(loads::NAME) {
        report.loads = Some(loads::measure(command_line.quick).await.context(loads::NAME)?);
    }
    if command_line.wants(memory::NAME) {
        report.memory = Some(memory::measure(command_line.quick).await.context(memory::NAME)?);
    }
    println!("\n{report}");
    report.write(&command_line.json).with_context(|| format!("writing {}", command_line.json.display()))?;
    println!("\nwritten to {}", command_line.json.display());
    Ok(())
}

/// Runs both sides in pairs on a server of their own. The side that starts changes with every pair; a first pair
/// warms up and does not count.
async fn compare(scenario: &Scenario, pairs: usize, messages: usize) -> anyhow::Result<Line> {
    let mut arena = Arena::open(scenario.sync_always).await?;
    let mut line = Line::new(scenario, messages);
    for pair in 0..=pairs {
        let mut sample = async |side| arena.sample(scenario, side, messages).await;
        let (kit, raw) = if pair % 2 == 0 {
            let kit = sample(scenario.kit).await?;
            (kit, sample(scenario.raw).await?)
        } else {
            let raw = sample(scenario.raw).await?;
            (sample(scenario.kit).await?, raw)
        };
        eprintln!("{:22} pair {pair}: kit {:>8.0}/s  raw {:>8.0}/s", scenario.name, kit.rate(), raw.rate());
        if pair > 0 {
            line.pairs.push((kit, raw));
        }
    }
    Ok(line)
}

async fn run_one_side(scenario: &Scenario, side: OneSide, times: usize) -> anyhow::Result<()> {
    let mut arena = Arena::open(scenario.sync_always).await?;
    let side = if side == OneSide::Kit { scenario.kit } else { scenario.raw };
    for _ in 0..times {
        let sample = arena.sample(scenario, side, scenario.messages).await?;
        println!("{:22} {:>8.0}/s", scenario.name, sample.rate());
    }
    Ok(())
}
