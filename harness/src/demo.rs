//! `cargo xtask demo`: real orders through every path of the shop, and an audit of what became of them.
//!
//! In reading order: the shop as a client sees it, the traffic, waiting for the end of it, what can be seen then, and the
//! audit, which is pure. The end-to-end tests use the same pieces, and kill processes in between.

mod shop;
pub use shop::{Answer, Mailbox, Shop};
mod progress;
pub use progress::Progress;
mod traffic;
pub use traffic::{AccountOfOurs, Ending, Placed, Traffic};
mod ledger;
mod quiescence;
pub use ledger::{
    Content, DeliveredMail, Ledger, ListedLetter, ListedMail, ListedOrder, Logged, Position, Stock,
    StoredLetter,
};
mod audit;
mod reading;
pub use audit::analytics::Analytics;
pub use audit::{Audit, Check, audit};

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::up::told_to_stop;
use crate::{Options, PortLease, Ports, System, Workspace, nats_server};

/// How many orders are under way at once.
const AT_ONCE: usize = 8;

/// What the demo does, and where.
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// How many orders to place
    #[arg(long, value_name = "N", default_value_t = 36, value_parser = clap::value_parser!(u16).range(30..=5000))]
    pub orders: u16,

    /// Directory for everything that is kept; one with earlier orders is fine [default: a new one, removed at the end
    /// unless something is off]
    #[arg(long, value_name = "DIR", conflicts_with = "against")]
    pub data_dir: Option<PathBuf>,

    /// Listen from this port on: order-service on N+1 to consumer-dlq on N+6, NATS on N+22 [default: a free block]
    #[arg(long, value_name = "N", conflicts_with = "against")]
    pub port_base: Option<u16>,

    /// Leave the new data directory where it is
    #[arg(long, conflicts_with = "against")]
    pub keep: bool,

    /// Start nothing: use a shop that runs already
    #[arg(long)]
    pub against: Option<Against>,
}

/// A shop that runs already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Against {
    /// The containers of docker-compose.yml, on their fixed ports
    Compose,
}

/// Starts the shop, drives orders through it, audits what became of them, and stops it. Fails if anything is off.
pub async fn demo(workspace: &Workspace, demo: Demo) -> Result<()> {
    let orders = usize::from(demo.orders);
    let told = told_to_stop()?;
    if demo.against == Some(Against::Compose) {
        let shop = Shop::in_containers(workspace)
            .await
            .context("the containers do not answer; `docker compose up --build` starts them")?;
        return tokio::select! {
            audit = run(&shop, orders) => verdict(&audit?),
            signal = told => bail!("{signal}: stopped before the audit"),
        };
    }
    nats_server::find_or_fetch(workspace)?; // first, so that a missing one is known before the long build
    workspace.build_services()?;
    let lease = demo.port_base.is_none().then(|| PortLease::take(workspace)).transpose()?;
    let ports = Ports::from_base(demo.port_base.or(lease.as_ref().map(PortLease::base)))?;
    let (data_dir, ours) = data_dir(workspace, demo.data_dir)?;

    let started = Instant::now();
    let options =
        Options { data_dir: data_dir.clone(), ports, nats: None, show_logs: false, env: Vec::new() };
    let whole = async {
        let mut system = System::start(workspace, options).await?;
        say!("The shop is up, after {:.1} s.\n\n{}\n", started.elapsed().as_secs_f32(), system.table()?);
        let shop = Shop::of(&system).await?;
        let audit = tokio::select! {
            audit = run(&shop, orders) => audit?,
            ended = system.first_end() => bail!("{ended}"),
        };
        system.stop().await?;
        verdict(&audit)
    };
    let (done, stopped) = tokio::select! {
        done = whole => (done, false),
        signal = told => (Err(anyhow::anyhow!("{signal}: stopped before the audit")), true),
    };
    if ours && !demo.keep && (done.is_ok() || stopped) {
        std::fs::remove_dir_all(&data_dir).with_context(|| format!("removing {}", data_dir.display()))?;
    } else {
        say!("\nThe logs and all data are in {}", data_dir.display());
    }
    done
}

/// Drives orders through a running shop, waits until all is quiet, and audits what became of them.
async fn run(shop: &Shop, orders: usize) -> Result<Audit> {
    let started = Instant::now();
    let progress = Progress::shown();
    shop.ready().await?;
    let before = shop.position().await?;
    let traffic = Traffic::drive(shop, orders, AT_ONCE, &progress).await?;
    progress.step("waiting until nothing is left to be done");
    shop.quiet().await?;
    progress.step("reading the log, the stock, the accounts, the mails, the numbers and the dead letters");
    let ledger = Ledger::read(shop, before, traffic).await?;
    let audit = audit(&ledger);
    say!("\n{}\n\n{audit}", ledger.summary(started.elapsed()));
    Ok(audit)
}

fn verdict(audit: &Audit) -> Result<()> {
    match audit.wrong() {
        0 => {
            say!("\nEverything adds up.");
            Ok(())
        }
        wrong => bail!("the audit found {wrong} {} off", if wrong == 1 { "thing" } else { "things" }),
    }
}

/// The directory, and whether it is a new one of this run.
fn data_dir(workspace: &Workspace, wanted: Option<PathBuf>) -> Result<(PathBuf, bool)> {
    if let Some(dir) = wanted {
        return Ok((dir, false));
    }
    let parent = workspace.target.join("demo");
    std::fs::create_dir_all(&parent).with_context(|| format!("creating {}", parent.display()))?;
    let fresh = tempfile::Builder::new().prefix("shop-").tempdir_in(&parent);
    Ok((fresh.map(tempfile::TempDir::keep).context("a directory for the shop's data")?, true))
}
