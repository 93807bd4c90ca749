//! What a real service needs in memory: consumer-email, idle and after mails for many orders.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, Context};
use futures::{StreamExt, TryStreamExt};
use jetkit::subject::EVENTS;
use jetkit::testing::{NatsServer, eventually, spawn_tied, tied_command};
use serde_json::{Value, json};

use crate::measure::memory_of;
use crate::raw;

pub(crate) const NAME: &str = "memory";
pub(crate) const ABOUT: &str = "resident memory of consumer-email, idle and after many orders";

/// A service is to stay below this at its highest.
const TARGET_MIB: f64 = 20.0;

const SERVICE: &str = "consumer-email";

/// How long the service may take to start, and how long to handle everything.
const PATIENCE: Duration = Duration::from_mins(5);

/// Resident memory in MiB.
#[derive(Debug)]
pub(crate) struct Memory {
    idle: f64,
    orders: usize,
    after: f64,
    highest: f64,
}

impl Memory {
    pub(crate) fn met(&self) -> bool {
        self.highest < TARGET_MIB
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "service": SERVICE, "idle_mib": self.idle, "orders": self.orders, "after_mib": self.after,
            "highest_mib": self.highest, "target_mib": TARGET_MIB, "met": self.met(),
        })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { idle, orders, after, highest } = self;
        write!(
            f,
            "{SERVICE}: {idle:.1} MiB resident when idle, {after:.1} after {orders} orders, {highest:.1} at its highest \
             (target < {TARGET_MIB:.0})"
        )
    }
}

/// A running service, ended when dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail only for one that has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) async fn measure(quick: bool) -> Result<Memory> {
    let orders = if quick { 500 } else { 5_000 };
    let binary = binary()?;
    let server = NatsServer::start().await;
    let js = jetstream::new(server.client().await);
    let data = tempfile::tempdir()?;
    let mut command = tied_command(binary);
    // As in its image.
    command.env_remove("SMTP_URL").env("NATS_URL", server.url()).env("MALLOC_ARENA_MAX", "1");
    command.arg("--http-addr").arg(format!("{}:0", Ipv4Addr::LOCALHOST)).arg("--data-dir").arg(data.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let service = Service(spawn_tied(command).context("starting the service")?);
    let pid = service.0.id();

    eventually(PATIENCE, || async { settled(&js, 0).await }).await;
    let [idle, _] = memory_of(pid)?;
    futures::stream::iter(0..orders)
        .map(|n| raw::publish(&js, raw::order(n).and_then(|order| raw::order_message(&order, 1))))
        .buffered(256)
        .try_for_each(|_sequence| std::future::ready(Ok(())))
        .await?;
    eventually(PATIENCE, || async { settled(&js, orders).await }).await;
    let [after, highest] = memory_of(pid)?;
    Ok(Memory { idle, orders, after, highest })
}

/// The service's binary, built in the same profile, beside this one.
pub(crate) fn binary() -> Result<PathBuf> {
    let binary = std::env::current_exe()?.with_file_name(SERVICE);
    ensure!(binary.is_file(), "{} is not built: cargo build --release -p {SERVICE}", binary.display());
    Ok(binary)
}

/// Whether the service has started and has handled as many events.
async fn settled(js: &Context, at_least: usize) -> Option<()> {
    let mut durable: jetstream::consumer::PullConsumer =
        js.get_consumer_from_stream(SERVICE, EVENTS).await.ok()?;
    let info = durable.info().await.ok()?;
    let handled = usize::try_from(info.ack_floor.consumer_sequence).ok()?;
    let pulls = info.num_waiting > 0;
    (pulls && info.num_pending == 0 && info.num_ack_pending == 0 && handled >= at_least).then_some(())
}
