//! Which ports a system listens on, and free ones for systems that run beside one another.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result, bail, ensure};

use crate::Workspace;

/// The ports of one system, all on the loopback interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    base: Option<u16>,
}

/// Where the services' ports are counted from in `[workspace.metadata.services]`.
const SERVICES_FROM: u16 = 8080;
/// With a base N, NATS listens on N + 22 and answers about itself on N + 23; services come below.
const NATS_OFFSET: u16 = 22;
const MONITORING_OFFSET: u16 = 23;
/// So many ports from the base on belong to one system.
const BLOCK: u16 = 25;

impl Ports {
    /// The fixed ports that services may have. From 22 above the start on, NATS is in the way (see
    /// [`Ports::from_base`]).
    pub const SERVICES: std::ops::Range<u16> = SERVICES_FROM..SERVICES_FROM + NATS_OFFSET;

    /// The fixed ports: 8081 and on, NATS on 4222.
    pub const FIXED: Self = Self { base: None };

    /// The ports counted from `base`; the fixed ones without.
    pub fn from_base(base: Option<u16>) -> Result<Self> {
        ensure!(
            base.is_none_or(|base| (1024..=u16::MAX - BLOCK).contains(&base)),
            "the port base must be from 1024 to {}",
            u16::MAX - BLOCK
        );
        Ok(Self { base })
    }

    /// Where a service listens whose fixed port is `fixed`.
    pub fn service(self, fixed: u16) -> u16 {
        self.base.map_or(fixed, |base| base + (fixed - SERVICES_FROM))
    }

    /// Where NATS listens.
    pub fn nats(self) -> u16 {
        self.base.map_or(4222, |base| base + NATS_OFFSET)
    }

    /// Where NATS answers about itself.
    pub fn monitoring(self) -> u16 {
        self.base.map_or(8222, |base| base + MONITORING_OFFSET)
    }

    /// Fails with the name of the first of these ports that something listens on already.
    pub fn check_free(wanted: &[(String, u16)]) -> Result<()> {
        for (name, port) in wanted {
            if !is_free(*port) {
                bail!("port {port}, wanted by {name}, is taken; another one with --port-base N");
            }
        }
        Ok(())
    }
}

/// A block of ports that nobody else uses while this lives.
#[derive(Debug)]
pub struct PortLease {
    base: u16,
    _lock: File,
}

impl PortLease {
    /// Takes a free block. Systems started this way never meet, not even those of other processes.
    pub fn take(workspace: &Workspace) -> Result<Self> {
        let dir = workspace.target.join("port-bases");
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        // Below the ports that the kernel gives to outgoing connections (from 32768 on).
        for base in (20_000..32_000).step_by(BLOCK.into()) {
            let lock = File::create(dir.join(base.to_string())).context("creating a lock file")?;
            if lock.try_lock().is_ok() && (base..base + BLOCK).all(is_free) {
                return Ok(Self { base, _lock: lock });
            }
        }
        bail!("no free block of {BLOCK} ports from 20000 to 32000");
    }

    /// The base of the block, for [`Ports::from_base`].
    pub fn base(&self) -> u16 {
        self.base
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_base_moves_every_port() {
        let ports = Ports::from_base(Some(9000)).unwrap();
        assert_eq!((ports.service(8081), ports.service(8086), ports.nats()), (9001, 9006, 9022));
        assert_eq!(
            (Ports::FIXED.service(8081), Ports::FIXED.nats(), Ports::FIXED.monitoring()),
            (8081, 4222, 8222)
        );
        assert!(Ports::from_base(Some(80)).is_err());
        assert!(Ports::from_base(Some(65_530)).is_err());
    }

    #[test]
    fn two_leases_never_share_a_port() {
        let workspace = Workspace::find().unwrap();
        let one = PortLease::take(&workspace).unwrap();
        let other = PortLease::take(&workspace).unwrap();
        assert!(one.base().abs_diff(other.base()) >= BLOCK);
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Ports::check_free(&[("order-service".into(), port)]).unwrap_err().to_string();
        assert!(error.contains("order-service") && error.contains(&port.to_string()), "{error}");
    }
}
