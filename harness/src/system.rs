//! The whole system as processes: nats-server and every service.

use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jetkit::testing::tied_command;

use crate::{Output, Ports, Process, ServiceSpec, Workspace, nats_server};

/// How long everything may take to be ready.
const READY_DEADLINE: Duration = Duration::from_mins(1);
/// How long services may take to finish what they do when stopped; longer than their own deadline (`SHUTDOWN_SECS`).
const STOP_DEADLINE: Duration = Duration::from_secs(25);
/// What nats-server is called in the log.
const NATS: &str = "nats";

/// How a system is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept: NATS' store, the services' files, the logs. Made if it is not there.
    pub data_dir: PathBuf,
    /// Where everything listens.
    pub ports: Ports,
    /// A running NATS to use. Without, the system has its own.
    pub nats: Option<String>,
    /// Whether the services' logs are shown on this terminal. They are always in `<data_dir>/logs/`.
    pub show_logs: bool,
    /// More environment variables for every service, such as `SMTP_URL`.
    pub env: Vec<(String, String)>,
}

/// A process of the system that ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// Which one.
    pub name: String,
    /// How.
    pub status: ExitStatus,
    /// What it said last.
    pub last_words: String,
}

/// A running system. Dropping it kills every process of it; [`System::stop`] lets them finish first.
#[derive(Debug)]
pub struct System {
    workspace: Workspace,
    options: Options,
    http: reqwest::Client,
    /// In the order of starting: NATS first, if it is ours.
    processes: Vec<Process>,
    _data_lock: File,
}

impl System {
    /// Starts everything and waits until it is ready. The services must be built:
    /// [`Workspace::build_services`].
    pub async fn start(workspace: &Workspace, options: Options) -> Result<Self> {
        let data_lock = lock(&options.data_dir)?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        let workspace = workspace.clone();
        let mut system = Self { workspace, options, http, processes: Vec::new(), _data_lock: data_lock };
        Ports::check_free(&system.listeners())?;
        if system.options.nats.is_none() {
            system.start_nats().await?;
        }
        for service in system.workspace.services.clone() {
            system.spawn_service(&service)?;
        }
        system.ready().await?;
        Ok(system)
    }

    /// The services, by port.
    pub fn services(&self) -> &[ServiceSpec] {
        &self.workspace.services
    }

    /// Where a service answers: `http://127.0.0.1:PORT`.
    pub fn url(&self, service: &str) -> Result<String> {
        let port = self.options.ports.service(self.workspace.service(service)?.port);
        Ok(format!("http://127.0.0.1:{port}"))
    }

    /// Where NATS is.
    pub fn nats_url(&self) -> String {
        let own = || format!("nats://127.0.0.1:{}", self.options.ports.nats());
        self.options.nats.clone().unwrap_or_else(own)
    }

    /// Where our own NATS answers about itself.
    pub fn monitoring_url(&self) -> Option<String> {
        let own = self.options.nats.is_none();
        own.then(|| format!("http://127.0.0.1:{}", self.options.ports.monitoring()))
    }

    /// Where the files of a service are.
    pub fn data_dir(&self, service: &str) -> PathBuf {
        self.options.data_dir.join(service)
    }

    /// The process of a service, or of NATS as `nats`. `None` while it does not run.
    pub fn process(&mut self, name: &str) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.name == name)
    }

    /// Ends one service, or `nats`, as a crash would.
    pub fn kill(&mut self, name: &str) {
        self.processes.retain(|process| process.name != name); // dropping is killing
    }

    /// Starts one service, or `nats`, again with the same ports and data, killing it first if it still runs. A service
    /// is started, not yet ready: see [`System::ready`].
    pub async fn restart(&mut self, name: &str) -> Result<()> {
        self.kill(name);
        if name == NATS {
            self.start_nats().await
        } else {
            let service = self.workspace.service(name)?.clone();
            self.spawn_service(&service)
        }
    }

    /// Waits until every service is ready. Fails if one ends meanwhile.
    pub async fn ready(&mut self) -> Result<()> {
        let started = Instant::now();
        for service in self.workspace.services.clone() {
            let url = format!("{}/health/ready", self.url(&service.name)?);
            while !self.answers(&url).await {
                self.check_running()?;
                if started.elapsed() > READY_DEADLINE {
                    let last_words = self.process(&service.name).map(Process::last_words).unwrap_or_default();
                    bail!(
                        "{} was not ready after {READY_DEADLINE:?}; its log ends with\n{last_words}",
                        service.name
                    );
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
        Ok(())
    }

    /// A process that has ended by itself, if one has.
    pub fn ended(&mut self) -> Option<Ended> {
        self.processes.iter_mut().find_map(|process| {
            let status = process.ended()?;
            Some(Ended { name: process.name.clone(), status, last_words: process.last_words() })
        })
    }

    /// Waits until a process ends by itself.
    pub async fn first_end(&mut self) -> Ended {
        loop {
            if let Some(ended) = self.ended() {
                return ended;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Stops everything: the services together, then NATS, so that they can still acknowledge what they finish. Fails
    /// with the names of those that had to be killed.
    pub async fn stop(mut self) -> Result<()> {
        let mut killed = Vec::new();
        let nats = self.processes.iter().position(|process| process.name == NATS);
        let nats = nats.map(|place| self.processes.remove(place));
        for mut group in [std::mem::take(&mut self.processes), nats.into_iter().collect()] {
            group.iter_mut().for_each(Process::ask_to_stop);
            let deadline = Instant::now() + STOP_DEADLINE;
            for process in &mut group {
                if !process.stopped_by(deadline).await {
                    killed.push(process.name.clone());
                }
            }
        }
        ensure!(
            killed.is_empty(),
            "did not stop within {STOP_DEADLINE:?} and had to be killed: {}",
            killed.join(", ")
        );
        Ok(())
    }

    /// What runs where, for people.
    pub fn table(&self) -> Result<String> {
        let mut table = String::new();
        let names = self.workspace.services.iter().map(|service| service.name.len());
        let width = names.max().unwrap_or_default() + 1;
        for service in &self.workspace.services {
            let ServiceSpec { name, description, .. } = service;
            writeln!(table, "  {name:<width$} {:<23} {description}", self.url(name)?)?;
        }
        let monitoring = self.monitoring_url().map(|url| format!("monitoring on {url}")).unwrap_or_default();
        let nats = format!("  {:<width$} {:<23} {monitoring}", "NATS", self.nats_url());
        writeln!(table, "{}", nats.trim_end())?;
        writeln!(table, "  {:<width$} {}", "data", self.options.data_dir.display())?;
        write!(table, "  {:<width$} {}", "logs", self.output().dir.display())?;
        Ok(table)
    }

    /// Every port that this system wants for itself, and for whom.
    fn listeners(&self) -> Vec<(String, u16)> {
        let ports = self.options.ports;
        let services = self.workspace.services.iter();
        let mut all: Vec<_> =
            services.map(|service| (service.name.clone(), ports.service(service.port))).collect();
        if self.options.nats.is_none() {
            all.push(("NATS".into(), ports.nats()));
            all.push(("NATS' monitoring".into(), ports.monitoring()));
        }
        all
    }

    /// With the settings of the containers' server (`deploy/nats.conf`), other addresses and another store.
    async fn start_nats(&mut self) -> Result<()> {
        let ports = self.options.ports;
        let mut command = tied_command(nats_server::find_or_fetch(&self.workspace)?);
        command.arg("--config").arg(self.workspace.root.join("deploy/nats.conf"));
        command.args(["--addr", "127.0.0.1", "--port", &ports.nats().to_string()]);
        command.args(["--http_port", &ports.monitoring().to_string()]);
        let store = std::path::absolute(self.options.data_dir.join(NATS))?;
        command.env("NATS_STORE_DIR", format!("\"{}\"", store.display())); // quoted: it is read as configuration
        // Its chatter stays in the file; what a person should see comes from the services.
        let output = Output { show: false, ..self.output() };
        self.processes.insert(0, Process::spawn(NATS, command, &output)?);

        let health = format!("http://127.0.0.1:{}/healthz", ports.monitoring());
        let started = Instant::now();
        while !self.answers(&health).await {
            self.check_running()?;
            ensure!(started.elapsed() < READY_DEADLINE, "nats-server was not ready after {READY_DEADLINE:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn spawn_service(&mut self, service: &ServiceSpec) -> Result<()> {
        let binary = self.workspace.binary(&service.name);
        ensure!(binary.is_file(), "{} is not built: `cargo build --workspace --bins`", binary.display());
        let mut command = tied_command(binary);
        command.env("NATS_URL", self.nats_url());
        command.env("HTTP_ADDR", format!("127.0.0.1:{}", self.options.ports.service(service.port)));
        command.env("DATA_DIR", self.data_dir(&service.name));
        if std::env::var_os("LOG_FORMAT").is_none() {
            command.env("LOG_FORMAT", "text");
        }
        command.envs(self.options.env.iter().map(|(name, value)| (name, value)));
        let process = Process::spawn(&service.name, command, &self.output())?;
        self.processes.push(process);
        Ok(())
    }

    async fn answers(&self, url: &str) -> bool {
        self.http.get(url).send().await.is_ok_and(|response| response.status().is_success())
    }

    fn check_running(&mut self) -> Result<()> {
        match self.ended() {
            Some(ended) => bail!("{ended}"),
            None => Ok(()),
        }
    }

    fn output(&self) -> Output {
        Output { dir: self.options.data_dir.join("logs"), show: self.options.show_logs }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ended by itself ({}); its log ends with\n{}", self.name, self.status, self.last_words)
    }
}

/// Two systems on one data directory would write over each other.
fn lock(data_dir: &Path) -> Result<File> {
    let made = || format!("creating {}", data_dir.display());
    fs::create_dir_all(data_dir).with_context(made)?;
    let lock = File::create(data_dir.join(".lock")).with_context(made)?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => {
            bail!("{} is in use by another system; another one with --data-dir", data_dir.display())
        }
        locked => locked.with_context(|| format!("locking {}", data_dir.display()))?,
    }
    Ok(lock)
}
