//! What the workspace holds: its directories, and the services that make up the shop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use xtask::{cargo, run};

/// The workspace as cargo sees it.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Where the root `Cargo.toml` is.
    pub root: PathBuf,
    /// Where cargo builds to.
    pub target: PathBuf,
    /// The services, by port.
    pub services: Vec<ServiceSpec>,
}

/// One service, as `[workspace.metadata.services]` in the root `Cargo.toml` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// The name of its package, its binary and its durable.
    pub name: String,
    /// The port that it listens on unless told otherwise.
    pub port: u16,
    /// Its package's description.
    pub description: String,
}

/// The part that is read of what `cargo metadata` prints.
#[derive(Deserialize)]
struct CargoMetadata {
    workspace_root: PathBuf,
    target_directory: PathBuf,
    metadata: Option<WorkspaceMetadata>,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct WorkspaceMetadata {
    services: BTreeMap<String, u16>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    description: Option<String>,
}

impl Workspace {
    /// Asks cargo about the workspace that this command or test was started from.
    pub fn find() -> Result<Self> {
        let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
        Self::at(&here)
    }

    /// Asks cargo about the workspace that `dir` is in.
    pub fn at(dir: &Path) -> Result<Self> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(dir)
            .stderr(Stdio::inherit())
            .output()
            .context("running `cargo metadata`")?;
        ensure!(output.status.success(), "`cargo metadata` failed in {}", dir.display());
        let cargo: CargoMetadata =
            serde_json::from_slice(&output.stdout).context("reading `cargo metadata`")?;
        let ports = cargo.metadata.context("no [workspace.metadata.services] in Cargo.toml")?.services;
        let mut services = Vec::new();
        for (name, port) in ports {
            let package = cargo.packages.iter().find(|package| package.name == name);
            let package = package.with_context(|| format!("the service {name} has no package"))?;
            let description = package.description.clone().unwrap_or_default();
            services.push(ServiceSpec { name, port, description });
        }
        services.sort_by_key(|service| service.port);
        if let Some(pair) = services.windows(2).find(|pair| pair[0].port == pair[1].port) {
            bail!("{} and {} have the same port, {}", pair[0].name, pair[1].name, pair[0].port);
        }
        Ok(Self { root: cargo.workspace_root, target: cargo.target_directory, services })
    }

    /// The service of this name.
    pub fn service(&self, name: &str) -> Result<&ServiceSpec> {
        let found = self.services.iter().find(|service| service.name == name);
        found.with_context(|| format!("there is no service {name}"))
    }

    /// Where the binary of a service is, once it is built.
    pub fn binary(&self, service: &str) -> PathBuf {
        self.target.join("debug").join(service)
    }

    /// Builds every service's binary, with the features that tests are built with: nothing is compiled twice.
    pub fn build_services(&self) -> Result<()> {
        let mut command = cargo();
        command.args(["build", "--workspace", "--all-features"]).current_dir(&self.root);
        for service in &self.services {
            command.args(["--bin", &service.name]);
        }
        run(&mut command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_ports_are_the_ones_that_others_rely_on() {
        let workspace = Workspace::find().unwrap();
        let port = |name: &str| workspace.service(name).unwrap().port;
        let fixed = [
            ("order-service", 8081),
            ("payment-service", 8082),
            ("consumer-inventory", 8083),
            ("consumer-analytics", 8084),
            ("consumer-email", 8085),
            ("consumer-dlq", 8086),
        ];
        assert_eq!(fixed.map(|(name, _)| (name, port(name))), fixed);
    }

    #[test]
    fn the_containers_are_the_same_services_on_the_same_ports() {
        let workspace = Workspace::find().unwrap();
        let compose = std::fs::read_to_string(workspace.root.join("docker-compose.yml")).unwrap();
        for ServiceSpec { name, port, .. } in &workspace.services {
            for line in [
                format!("\n  {name}:\n    <<: *service\n"),
                format!("args: {{ BIN: {name} }}"),
                format!("[\"127.0.0.1:{port}:{port}\"]"),
                format!("[\"{name}:/data\"]"),
            ] {
                assert!(compose.contains(&line), "docker-compose.yml lacks {line:?}");
            }
        }
        let images = compose.matches("BIN: ").count();
        assert_eq!(
            images,
            workspace.services.len(),
            "docker-compose.yml has a service that the workspace has not"
        );
    }
}
