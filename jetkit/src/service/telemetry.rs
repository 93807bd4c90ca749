//! Logs and metrics: set up once, before anything else has something to say. Logging never blocks and never fails.

use std::io::{IsTerminal, stdout};

use anyhow::Context;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use super::config::LogFormat;
use crate::Console;

/// Starts logging to standard output. A panic is logged too, in the same form.
pub(crate) fn start_logging(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(filter).with_context(|| format!("the log filter {filter:?} is not one"))?;
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !stdout().is_terminal(),
    };
    // The formatter's own complaints would go to standard error, which may be blocked or closed.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Console::stdout)
        .log_internal_errors(false);
    let started = if json {
        log.json().flatten_event(true).with_span_list(false).try_init()
    } else {
        log.with_ansi(stdout().is_terminal()).try_init()
    };
    started.map_err(|error| anyhow::anyhow!(error)).context("starting the log")?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(panic.place = place, panic.message = panic.payload_as_str(), "a task panicked");
    }));
    Ok(())
}

/// Upper bounds of every histogram, in seconds.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Starts collecting metrics; the handle renders them in Prometheus text form.
pub(crate) fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    PrometheusBuilder::new()
        .set_buckets(&BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("starting the metrics")
}
