//! A shop of real processes for each end-to-end test (`tests/it`): started, driven, interfered with, audited.
//!
//! The services' binaries must be built; `cargo xtask test` does that first.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::demo::{Ledger, Position, Progress, Shop, Traffic, audit};
use harness::{Options, PortLease, Ports, System, Workspace, pip};
use jetkit::testing::NatsCluster;
use tempfile::TempDir;

/// What a killed process was busy with is delivered again after half a minute, and may be held up so more than once.
const PATIENCE: Duration = Duration::from_secs(150);

/// A shop of a test's own. Dropping it kills every process.
#[derive(Debug)]
pub struct RunningShop {
    /// Its processes.
    pub system: System,
    /// The same, as a client sees it.
    pub shop: Shop,
    before: Position,
    data: TempDir,
    _ports: PortLease,
}

impl RunningShop {
    /// Starts everything on free ports, and waits until it is ready.
    pub async fn start() -> Result<Self> {
        Self::start_with(None, Vec::new()).await
    }

    /// The same with the servers of a cluster in place of a NATS of its own. They keep a copy of everything each.
    pub async fn start_on(cluster: &NatsCluster) -> Result<Self> {
        let servers = cluster.urls();
        let replicas = ("STREAM_REPLICAS".to_owned(), servers.len().to_string());
        Self::start_with(Some(servers.join(",")), vec![replicas]).await
    }

    async fn start_with(nats: Option<String>, env: Vec<(String, String)>) -> Result<Self> {
        let workspace = Workspace::find()?;
        let lease = PortLease::take(&workspace)?;
        let data = tempfile::Builder::new().prefix("e2e-").tempdir_in(&workspace.target)?;
        let options = Options {
            data_dir: data.path().to_owned(),
            ports: Ports::from_base(Some(lease.base()))?,
            nats,
            show_logs: false,
            env,
        };
        let system = System::start(&workspace, options).await?;
        let shop = Shop::of(&system).await?.with_patience(PATIENCE);
        let before = shop.position().await?;
        Ok(Self { system, shop, before, data, _ports: lease })
    }

    /// Waits until the count has grown by `more`, or for `at_most`: traffic that waits for what was killed cannot grow.
    pub async fn after(&self, progress: &Progress, more: usize, at_most: Duration) -> Result<()> {
        let events = || progress.placed() + progress.ended();
        let wanted = events() + more;
        let shop = self.shop.clone().with_patience(at_most);
        shop.wait_for(async || Ok((events() >= wanted).then_some(()))).await.map(drop)
    }

    /// Waits until all is quiet, audits, and stops everything. Fails, and leaves all data where it is, if anything is off.
    pub async fn audited(self, traffic: Traffic) -> Result<()> {
        let audited = async {
            self.shop.quiet().await?;
            let ledger = Ledger::read(&self.shop, self.before, traffic).await?;
            let audit = audit(&ledger);
            if audit.wrong() > 0 {
                bail!("the audit found something off:\n{audit}");
            }
            Ok(())
        };
        match audited.await {
            Ok(()) => self.system.stop().await,
            Err(error) => {
                let kept = self.data.keep();
                Err(error).with_context(|| format!("the logs and all data are in {}", kept.display()))
            }
        }
    }
}

/// A file of `python/`.
pub fn python_file(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(file)
}

/// Where the packages that `python/<requirements>` names are; pip fetches them the first time.
pub fn python_packages(requirements: &str) -> Result<PathBuf> {
    let wanted = python_file(requirements);
    let text = fs::read_to_string(&wanted).with_context(|| format!("reading {}", wanted.display()))?;
    let packages = Workspace::find()?.target.join("python").join(requirements);
    let installed = packages.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == text) {
        return Ok(packages);
    }
    if packages.exists() {
        fs::remove_dir_all(&packages).with_context(|| format!("removing {}", packages.display()))?;
    }
    pip::install(&wanted, &packages)
        .context("this test needs pip, with a way to PyPI to fetch its packages")?;
    fs::write(&installed, text)?; // last: it says that everything is there
    Ok(packages)
}
