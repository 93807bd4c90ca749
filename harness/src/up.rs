//! `cargo xtask up`: starts everything and stays.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Options, Ports, System, Workspace, nats_server};

/// Where the system runs.
#[derive(Debug, Clone, Args)]
pub struct Up {
    /// Directory for everything that is kept: NATS' store, the services' files, the logs [default: data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Listen from this port on: order-service on N+1 to consumer-dlq on N+6, NATS on N+22 [default: 8081 to 8086, 4222]
    #[arg(long, value_name = "N")]
    pub port_base: Option<u16>,

    /// Use this running NATS instead of starting one
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
}

/// Builds, starts, waits until all is ready, shows what runs where, and stays until told to stop or until a process ends by
/// itself. Leaves nothing behind either way; the data directory is kept for the next time.
pub async fn up(workspace: &Workspace, place: Up) -> Result<()> {
    let ports = Ports::from_base(place.port_base)?;
    let data_dir = place.data_dir.unwrap_or_else(|| workspace.root.join("data"));
    // First, so that a missing one is known before the long build.
    if place.nats.is_none() {
        nats_server::find_or_fetch(workspace)?;
    }
    workspace.build_services()?;

    let started = Instant::now();
    let options = Options { data_dir, ports, nats: place.nats, show_logs: true, env: Vec::new() };
    let mut told = Box::pin(told_to_stop()?);
    let mut system = tokio::select! {
        started = System::start(workspace, options) => started?,
        signal = &mut told => { say!("{signal}: stopped while starting"); return Ok(()) }
    };
    say!(
        "\nThe shop is up, after {:.1} s.\n\n{}\n\nCtrl-C stops it all.\n",
        started.elapsed().as_secs_f32(),
        system.table()?
    );

    let ended = tokio::select! {
        signal = &mut told => { say!("\n{signal}: stopping"); None }
        ended = system.first_end() => Some(ended),
    };
    tokio::select! {
        stopped = system.stop() => stopped?,
        _ = told_to_stop()? => bail!("told again to stop: everything was killed"),
    }
    match ended {
        None => say!("everything has stopped"),
        Some(ended) => bail!("{ended}everything else was stopped"),
    }
    Ok(())
}

/// Waits for Ctrl-C, SIGTERM or a closed terminal; says which.
pub(crate) fn told_to_stop() -> Result<impl Future<Output = &'static str>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "Ctrl-C",
            _ = terminate.recv() => "SIGTERM",
            _ = hangup.recv() => "SIGHUP",
        }
    })
}
