//! [`Service`]: a binary from its command line to its last acknowledged message.
//!
//! [`Service::start`] reads the settings, starts telemetry, listens for HTTP (alive, not yet ready), connects to NATS and
//! provisions the streams. Then `main` wires its read models, consumers and routes, and [`Service::run`] keeps them going until
//! a signal comes or one of them ends, and stops them in good order.

mod config;
mod connect;
mod data_dir;
mod loads;
mod query;
mod server;
mod tasks;
mod telemetry;

use std::fmt;
use std::future::Future;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use async_nats::Client;
use clap::Args;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::config::{Command, CommandLine, CommonSettings};
use self::data_dir::DataDir;
use self::query::Query;
use self::server::HttpServer;
use self::tasks::Tasks;
use crate::health::Health;
use crate::http::Routes;
use crate::projection::{self, Projection, ReadModel};
use crate::provision::StreamKeeper;
use crate::subject::{EVENTS, is_event_type};
use crate::{
    Aggregate, Catalog, Console, Consumer, EntityId, EventLog, EventStore, ServiceInfo, clock, provision,
};

pub use self::config::{NoSettings, Secret};

/// A running binary: its connection, its tasks, its HTTP server.
pub struct Service {
    info: ServiceInfo,
    catalog: Catalog,
    settings: CommonSettings,
    data_dir: DataDir,
    log: EventLog,
    health: Health,
    http: HttpServer,
    routes: Routes,
    queries: Vec<Query>,
    /// Cancelled when the service is to stop.
    stop: CancellationToken,
    /// Told of each connection.
    connects: Arc<Notify>,
    /// Cancelled by the connection when it is closed for good.
    closed: CancellationToken,
    /// What consumers wait for.
    loads: Vec<BoxFuture<'static, ()>>,
    /// Started by [`Service::run`], when everything is wired.
    consumers: Vec<Consumer>,
    /// What finishes its work when told to stop: consumers, the HTTP server, queries.
    working: Tasks,
    /// What may be dropped at any moment: read models, tasks of the service's own.
    background: Tasks,
    signals: Signals,
    /// Whether the process is there for nothing but this service, and ends with it.
    owns_process: bool,
}

impl Service {
    /// Starts a service: returns it, connected and provisioned, with its own settings.
    ///
    /// Ends the process where the command line asks for that: `--help`, `--version`, a mistake in it, the `healthcheck`
    /// subcommand, which asks the running service whether it is ready, and `rebuild`, which has it build read models anew.
    pub async fn start<S: Args>(info: ServiceInfo, catalog: Catalog) -> anyhow::Result<(Self, S)> {
        let CommandLine { common: settings, own, command } = CommandLine::<S>::read(info);
        match command {
            Some(Command::Healthcheck) => end(server::ask_ready(settings.http_addr).await),
            Some(Command::Rebuild { name }) => end(rebuild(&settings.data_dir, name.as_deref())),
            None => {}
        }
        telemetry::start_logging(&settings.log, settings.log_format)?;
        let metrics = telemetry::start_metrics()?;
        let signals = listen_for_signals()?;
        match Self::launch(info, &catalog, settings, metrics, signals).await {
            Ok(service) => Ok((Self { owns_process: true, ..service }, own)),
            Err(error) => {
                leave_soon(false);
                Err(error)
            }
        }
    }

    async fn launch(
        info: ServiceInfo,
        catalog: &Catalog,
        settings: CommonSettings,
        metrics: PrometheusHandle,
        mut signals: Signals,
    ) -> anyhow::Result<Self> {
        info!(service.name = info.name, service.version = info.version, "starting");
        let (health, stop, closed) = (Health::new(), CancellationToken::new(), CancellationToken::new());
        let connects = Arc::new(Notify::new());

        let mut working = Tasks::default();
        // Before anything is served or pulled: a second process on the same directory does nothing at all.
        let data_dir = tokio::select! {
            data_dir = DataDir::take(&settings.data_dir) => data_dir?,
            signal = next(&mut signals) => bail!("{signal} before the start was complete"),
        };
        let http = HttpServer::bind(settings.http_addr, health.clone(), metrics).await?;
        working.spawn("http", http.clone().serve(stop.clone()));

        let connected = async {
            let client = connect::connect(&settings, info, &health, closed.clone(), connects.clone()).await?;
            let streams = provision::deployment(catalog, settings.replicas.into(), &settings.stream_max_mib);
            provision::bring_all(&client, &streams).await?;
            let log = EventLog::reporting(client, format!("/{}", info.name), &health);
            let keeper = StreamKeeper::new(&log, info.name, streams, &health).await?;
            anyhow::Ok((log, keeper))
        };
        let (log, keeper) = tokio::select! {
            connected = connected => connected?,
            signal = next(&mut signals) => bail!("{signal} before the start was complete"),
        };
        let (routes, queries, loads, consumers) = (Routes::new(), Vec::new(), Vec::new(), Vec::new());
        let mut background = Tasks::default();
        background.spawn("data directory", data_dir.clone().watch());
        let compared = clock::compare(log.client().clone(), EVENTS, health.check("clock"));
        background.spawn("clock", async move {
            compared.await;
            Ok(())
        });
        background.spawn("streams", keeper.keep());
        Ok(Self {
            info,
            catalog: catalog.clone(),
            settings,
            data_dir,
            log,
            health,
            http,
            routes,
            queries,
            stop,
            connects,
            closed,
            loads,
            consumers,
            working,
            background,
            signals,
            owns_process: false,
        })
    }

    /// The event log, with this service as the source of what is recorded.
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        self.log.client()
    }

    /// Where parts of the process report whether they are well.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Returns the directory for this service's files, which no other process has. Where it is deleted while the service
    /// runs, the service ends.
    pub fn data_dir(&self) -> anyhow::Result<&Path> {
        self.data_dir.path()
    }

    /// Cancelled when the service is to stop. For what wants to end in its own way: live HTTP streams, long loops.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Keeps a read model in the data directory. The service is not ready, and its routes answer 503, until it has caught
    /// up with the log.
    pub fn read_model<P: Projection>(&mut self) -> anyhow::Result<ReadModel<P>> {
        let name = format!("read model {}", P::NAME);
        let directory = self.data_dir()?.to_owned();
        let (model, task) = ReadModel::<P>::parts(&self.log, directory, self.health.check(name.as_str()));
        self.background.spawn(name, task);
        let caught_up = model.clone();
        self.http.wait_for(async move { caught_up.caught_up().await });
        Ok(model)
    }

    /// Loads an aggregate before the consumers start, for one that every event goes through and that may take longer to load
    /// than a handler may take. Until then the service is not ready, and says how far it has come; a command over HTTP waits
    /// as long as it may.
    pub fn load_first<A: Aggregate>(&mut self, store: &EventStore<A>, id: &EntityId) {
        let check = self.health.check(format!("{} {id}", A::ENTITY));
        self.loads.push(loads::load(store.clone(), id.clone(), check).boxed());
    }

    /// Runs a consumer as part of the service: it starts with [`Service::run`], is ready when it pulls, and when the
    /// service stops it finishes what it has begun. Its health check, its version, its replicas and how long it may take to
    /// end are the service's, whatever was set on it before.
    pub fn consume(&mut self, consumer: Consumer) {
        let check = self.health.check(format!("consumer {}", consumer.name()));
        let consumer = consumer
            .health(check)
            .service_version(self.info.version)
            .replicas(self.settings.replicas.into())
            .sizes(self.settings.stream_max_mib.clone())
            .drain_within(self.settings.shutdown().mul_f64(DRAIN_SHARE));
        self.consumers.push(consumer);
    }

    /// Runs a task for as long as the service runs: if it ends before, the service ends too, with an error. When the
    /// service stops it is dropped at its next `.await`. What must be finished belongs in a consumer; what only wants to end
    /// in its own way watches [`Service::stopping`].
    pub fn spawn(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.background.spawn(name, task);
    }

    /// Serves these routes, beside `/health/live`, `/health/ready`, `/metrics`, and `/openapi.json` and `/docs`, which
    /// describe them. May be called several times.
    pub fn serve(&mut self, routes: impl Into<Routes>) {
        self.routes = std::mem::take(&mut self.routes).merge(routes.into());
    }

    /// Answers `{"id": …}` on a NATS subject, such as `order.get`, with what `GET <collection>/<id>` answers; perhaps with a
    /// `min_sequence` beside the id. A problem is answered with the headers of the NATS services API, `Nats-Service-Error`
    /// and `Nats-Service-Error-Code`, and the problem as its body. Replicas share the requests. The subject has the form
    /// `<entity>.<word>` and is no event's type, or the stream would store the requests: [`Service::run`] refuses others.
    pub fn query(&mut self, subject: &'static str, collection: &'static str) {
        self.queries.push(Query { subject, collection });
    }

    /// Runs until SIGINT or SIGTERM, or until a task ends that should not; then lets what runs finish, within the
    /// shutdown deadline. An error if anything ended by itself, panicked or had to be cut off.
    pub async fn run(self) -> anyhow::Result<()> {
        let owns_process = self.owns_process;
        let ended = self.run_to_the_end().await;
        if owns_process {
            leave_soon(ended.is_ok());
        }
        ended
    }

    async fn run_to_the_end(mut self) -> anyhow::Result<()> {
        let open = self.http.open(self.info, std::mem::take(&mut self.routes), self.stop.clone());
        let queries = std::mem::take(&mut self.queries);
        for Query { subject, .. } in &queries {
            ensure!(
                is_event_type(subject) && self.catalog.get(subject).is_none(),
                "{subject:?} cannot be the subject of a query: it has the form of order.get, and is no event's, or the \
                 stream would store the requests",
            );
        }
        if !queries.is_empty() {
            let (client, stop) = (self.client().clone(), self.stop.clone());
            self.working.spawn("queries", query::serve(client, self.info, queries, open, stop));
        }
        let loaded = join_all(std::mem::take(&mut self.loads)).map(drop).shared();
        let load = loaded.clone();
        self.background.spawn("loads", async move {
            load.await;
            std::future::pending().await
        });
        for consumer in std::mem::take(&mut self.consumers) {
            let name = format!("consumer {}", consumer.name());
            let (client, stop, loaded) = (self.client().clone(), self.stop.clone(), loaded.clone());
            self.working.spawn(name, async move {
                tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    () = loaded => consumer.run(client, stop.clone()).await,
                }
            });
        }
        info!(service.name = self.info.name, "running");
        let client = self.client().clone();
        let ended = tokio::select! {
            old = connect::meets_old_server(&client, self.info, &self.connects) => return Err(self.cut_off(old)),
            signal = next(&mut self.signals) => Ok(signal),
            failure = self.working.first_end() => Err(failure),
            failure = self.background.first_end() => Err(failure),
            () = self.closed.cancelled() => Err(anyhow::anyhow!("the NATS connection was closed for good")),
        };
        match &ended {
            Ok(signal) => {
                info!(reason = signal, "stopping");
                self.health.ending(format!("stopping: {signal}"), false);
            }
            Err(failure) => {
                error!(error = format!("{failure:#}"), "stopping: a part of the service failed");
                self.health.ending(format!("{failure:#}"), true);
            }
        }
        let stopped = self.stop_in_order().await;
        ended.and(stopped)
    }

    /// Stops as a crash would: nothing that runs is finished, for it may not be written where the connection leads.
    fn cut_off(&mut self, reason: anyhow::Error) -> anyhow::Error {
        error!(error = format!("{reason:#}"), "stopping at once");
        self.health.ending(format!("{reason:#}"), true);
        self.working.abort();
        self.background.abort();
        reason
    }

    /// Everything that runs finishes, then the last acknowledgements leave the process.
    async fn stop_in_order(&mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let deadline = self.settings.shutdown();
        let drained = tokio::select! {
            drained = tokio::time::timeout(deadline, self.working.all_ended()) => drained,
            signal = next(&mut self.signals) => bail!("a second signal ({signal}): stopped at once"),
        };
        self.background.abort();
        let client = self.client().clone();
        let left = async {
            client.drain().await?;
            self.closed.cancelled().await;
            anyhow::Ok(())
        };
        if !matches!(tokio::time::timeout(LEAVE_WITHIN, left).await, Ok(Ok(())))
            && !self.closed.is_cancelled()
        {
            warn!("the NATS connection did not close in time; unanswered acknowledgements may be lost");
        }
        match drained {
            Ok(Ok(())) => info!(service.name = self.info.name, "stopped"),
            Ok(Err(failure)) => return Err(failure),
            Err(_) => bail!("not finished within {deadline:?}, cut off: {}", self.working.names().join(", ")),
        }
        Ok(())
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Gives the last lines of the log the time to be written, then lets nothing keep the process from ending: neither a
/// reader that does not read what `main` says on standard error, nor a thread that waits for a disk.
fn leave_soon(well: bool) {
    Console::stdout().flush_within(LAST_LINES_WITHIN);
    thread::spawn(move || {
        thread::sleep(MAIN_WITHIN);
        std::process::exit(i32::from(!well));
    });
}

/// Ends a subcommand's process. A failure is told without a backtrace, which says nothing about what to do.
fn end(outcome: anyhow::Result<()>) -> ! {
    let Err(error) = outcome else { std::process::exit(0) };
    drop(writeln!(std::io::stderr(), "error: {error:#}"));
    std::process::exit(1)
}

/// The `rebuild` subcommand: deletes read models. A service that runs notices, and goes on serving what it has until the
/// new one has caught up.
fn rebuild(directory: &Path, name: Option<&str>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for file in projection::delete(directory, name)? {
        writeln!(out, "{file} is deleted and will be built from the log")?;
    }
    Ok(())
}

/// How much of the shutdown deadline handlers have to end; the rest is for settling what they did.
const DRAIN_SHARE: f64 = 0.75;

/// How long the connection has to send what is left when everything else has stopped.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// How long the last lines of the log wait for their reader.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(1);

/// How long `main` may take to return when the service has ended.
const MAIN_WITHIN: Duration = Duration::from_secs(2);

/// What asks the service to stop: the names of signals, as they come.
type Signals = mpsc::Receiver<&'static str>;

/// From here on SIGINT and SIGTERM are ours, also as process 1 of a container, which would not hear of them otherwise.
fn listen_for_signals() -> anyhow::Result<Signals> {
    let listen = |kind| signal(kind).context("listening for signals");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let (signals, received) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            if signals.send(name).await.is_err() {
                return;
            }
        }
    });
    Ok(received)
}

async fn next(signals: &mut Signals) -> &'static str {
    match signals.recv().await {
        Some(name) => name,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
