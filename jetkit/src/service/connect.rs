//! The connection to NATS: made with patience, watched for ever, and refused where the server is too old.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_nats::{Client, ConnectOptions, Event, ServerError};
use metrics::{counter, gauge};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::config::CommonSettings;
use crate::ServiceInfo;
use crate::health::{CheckHandle, Health};
use crate::jitter::jittered;

/// The oldest server that has what we rely on: atomic batches, per-message lifetimes, strict configuration.
const OLDEST: (i64, i64, i64) = (2, 12, 0);

/// How long a new connection may take to be written to.
const SENT_WITHIN: Duration = Duration::from_secs(5);

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Connects, however long it takes; the process may well be started before its server.
pub(crate) async fn connect(
    settings: &CommonSettings,
    info: ServiceInfo,
    health: &Health,
    closed: CancellationToken,
    connected: Arc<Notify>,
) -> anyhow::Result<Client> {
    let check = health.check("nats");
    let watch = Arc::new(Watch {
        connection: check.clone(),
        permissions: Mutex::new(PermissionCheck::Clean(health.clone())),
        slow: Mutex::new(None),
        connected,
        closed,
    });
    let options = options(settings, info).await?.event_callback(move |event| {
        let watch = watch.clone();
        async move { watch.saw(&event) }
    });
    let client = patiently(&options, settings, &check).await;
    check_version(&client, info)?;
    Ok(client)
}

fn check_version(client: &Client, info: ServiceInfo) -> anyhow::Result<()> {
    let (major, minor, patch) = OLDEST;
    ensure!(
        client.is_server_compatible(major, minor, patch),
        "nats-server {} is too old: {} needs {major}.{minor} or newer",
        client.server_info().version,
        info.name,
    );
    Ok(())
}

/// Waits until the connection leads to a server that is too old, which a reconnect may find. Such a server takes a checked
/// append without the check.
pub(crate) async fn meets_old_server(
    client: &Client,
    info: ServiceInfo,
    connected: &Notify,
) -> anyhow::Error {
    loop {
        connected.notified().await;
        // The client tells that it is connected before it knows to what; it knows when it has sent something there.
        let _ = tokio::time::timeout(SENT_WITHIN, client.flush()).await;
        if let Err(error) = check_version(client, info) {
            return error;
        }
    }
}

async fn options(settings: &CommonSettings, info: ServiceInfo) -> anyhow::Result<ConnectOptions> {
    let mut options = ConnectOptions::new()
        .name(format!("{} {}", info.name, info.version))
        .custom_inbox_prefix(format!("_INBOX_{}", info.name.replace('-', "_")))
        .ping_interval(Duration::from_secs(20))
        .request_timeout(Some(Duration::from_secs(5)))
        .client_capacity(4096)
        .reconnect_delay_callback(delay);
    if let Some((user, password)) = settings.login() {
        options = options.user_and_password(user.to_owned(), password.to_owned());
    }
    if let Some(file) = &settings.nats_nkey_seed_file {
        let seed = tokio::fs::read_to_string(file)
            .await
            .with_context(|| format!("reading the nkey seed in {}", file.display()))?;
        options = options.nkey(seed.trim().to_owned());
    }
    if let Some(file) = &settings.nats_ca_file {
        ensure!(file.is_file(), "NATS_CA_FILE {} is not a file", file.display());
        options = options.require_tls(true).add_root_certificates(file.clone());
    }
    Ok(options)
}

async fn patiently(options: &ConnectOptions, settings: &CommonSettings, check: &CheckHandle) -> Client {
    let servers = settings.nats_url.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let addresses: Vec<_> = settings.nats_url.iter().map(|url| url.0.clone()).collect();
    let mut attempt = 0;
    loop {
        match options.clone().connect(addresses.as_slice()).await {
            Ok(client) => {
                info!(
                    nats.servers = servers,
                    nats.version = client.server_info().version,
                    "connected to NATS"
                );
                return client;
            }
            Err(error) => {
                attempt += 1;
                let error = anyhow::Error::new(error);
                let pause = delay(attempt);
                warn!(
                    nats.servers = servers,
                    attempt,
                    ?pause,
                    error = format!("{error:#}"),
                    "cannot reach NATS yet"
                );
                check.set_ready(false, format!("cannot reach {servers}: {error:#}"));
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Doubling from 50 ms to 5 s, the upper half of it random, so that a restarted server is not stormed.
fn delay(attempt: usize) -> Duration {
    let exponent = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    jittered(RETRY_MIN.saturating_mul(1 << exponent).min(RETRY_MAX))
}

/// Turns what happens to the connection into logs, metrics and readiness.
struct Watch {
    connection: CheckHandle,
    permissions: Mutex<PermissionCheck>,
    /// When a slow consumer was last logged: a burst of them is one line a second.
    slow: Mutex<Option<Instant>>,
    /// Told of each connection.
    connected: Arc<Notify>,
    closed: CancellationToken,
}

/// Appears on `/health/ready` with the first violation.
enum PermissionCheck {
    Clean(Health),
    Violated(CheckHandle),
}

impl Watch {
    fn saw(&self, event: &Event) {
        match event {
            Event::Connected => self.up(),
            Event::Disconnected => {
                warn!("disconnected from NATS; reconnecting");
                self.down("disconnected; reconnecting");
            }
            Event::LameDuckMode => warn!("the NATS server is about to stop; moving to another"),
            Event::Draining => info!("draining the NATS connection"),
            Event::Closed => {
                self.down("closed");
                self.closed.cancel();
            }
            Event::SlowConsumer(subscription) => self.slow(*subscription),
            Event::ServerError(ServerError::Other(text))
                if text.to_lowercase().contains("permissions violation") =>
            {
                self.violation(text);
            }
            Event::ServerError(error) => {
                counter!("jetkit_nats_errors_total", "kind" => "server").increment(1);
                error!(%error, "NATS reports an error");
            }
            Event::ClientError(error) => {
                counter!("jetkit_nats_errors_total", "kind" => "client").increment(1);
                error!(%error, "the NATS client reports an error");
            }
        }
    }

    fn up(&self) {
        counter!("jetkit_nats_connects_total").increment(1);
        gauge!("jetkit_nats_connected").set(1.0);
        self.connection.set_ready(true, "connected");
        self.connected.notify_one();
        // A server whose permissions were mended drops the connection: a new one starts clean.
        if let PermissionCheck::Violated(check) =
            &*self.permissions.lock().unwrap_or_else(PoisonError::into_inner)
        {
            check.set_ready(true, "no violation since the last connect");
        }
    }

    fn down(&self, detail: &str) {
        gauge!("jetkit_nats_connected").set(0.0);
        self.connection.set_ready(false, detail);
    }

    /// Without this a missing permission is silence: the request just times out.
    fn violation(&self, text: &str) {
        counter!("jetkit_nats_errors_total", "kind" => "permission").increment(1);
        error!(error = text, "NATS refused a subject: this identity lacks a permission");
        let mut permissions = self.permissions.lock().unwrap_or_else(PoisonError::into_inner);
        if let PermissionCheck::Clean(health) = &*permissions {
            *permissions = PermissionCheck::Violated(health.check("nats permissions"));
        }
        if let PermissionCheck::Violated(check) = &*permissions {
            check.set_ready(false, text);
        }
    }

    fn slow(&self, subscription: u64) {
        counter!("jetkit_nats_errors_total", "kind" => "slow_consumer").increment(1);
        let mut last = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() > Duration::from_secs(1)) {
            *last = Some(Instant::now());
            error!(subscription, "messages were dropped: this process does not take them fast enough");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(health: &Health) -> Watch {
        Watch {
            connection: health.check("nats"),
            permissions: Mutex::new(PermissionCheck::Clean(health.clone())),
            slow: Mutex::new(None),
            connected: Arc::default(),
            closed: CancellationToken::new(),
        }
    }

    #[test]
    fn a_lost_connection_is_not_ready_until_it_is_back() {
        let health = Health::new();
        let watch = watch(&health);
        watch.saw(&Event::Connected);
        assert!(health.report().ready);
        watch.saw(&Event::Disconnected);
        assert!(!health.report().ready);
        watch.saw(&Event::Connected);
        assert!(health.report().ready);
    }

    #[test]
    fn a_permission_violation_is_not_silent() {
        let health = Health::new();
        let watch = watch(&health);
        watch.saw(&Event::Connected);
        let text = "Permissions Violation for Publish to \"order.placed\"";
        watch.saw(&Event::ServerError(ServerError::Other(text.into())));
        assert_eq!(health.report().checks["nats permissions"].detail, text);
        assert!(!health.report().ready);
        watch.saw(&Event::Connected);
        assert!(health.report().ready);
    }

    #[test]
    fn a_closed_connection_is_the_end() {
        let health = Health::new();
        let watch = watch(&health);
        watch.saw(&Event::Closed);
        assert!(watch.closed.is_cancelled());
    }

    #[test]
    fn delays_grow_to_a_bound_and_vary() {
        assert!(delay(1) <= RETRY_MIN);
        assert!(delay(3) > RETRY_MIN);
        for attempt in [20, 1000, usize::MAX] {
            assert!((RETRY_MAX / 2..=RETRY_MAX).contains(&delay(attempt)));
        }
    }
}
