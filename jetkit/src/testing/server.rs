//! A real nats-server, private to one test.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::locate::locate_nats_server;
use super::tied::{spawn_tied, tied_command};

/// How long a server may take to listen. It needs about 15 ms; the rest is for a machine that builds meanwhile.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// A nats-server with JetStream, on a free port of the loopback interface and with a store of its own. Gone when
/// dropped, and also when the test is killed.
#[derive(Debug)]
pub struct NatsServer {
    child: Option<Child>,
    binary: PathBuf,
    extra: String,
    /// Known after the first start at the latest, and kept by [`NatsServer::restart`].
    address: Option<SocketAddr>,
    dir: TempDir,
}

impl NatsServer {
    /// Starts a server.
    pub async fn start() -> Self {
        Self::with_config("").await
    }

    /// Starts a server with more lines in its configuration file, in nats-server's own syntax. A key given here
    /// replaces the default one as a whole; `$STORE` is the store's directory:
    /// `jetstream { store_dir: $STORE, sync_interval: always }`.
    pub async fn with_config(extra: &str) -> Self {
        let mut server = Self::stopped(None, extra);
        server.restart().await;
        server
    }

    /// A server that [`NatsServer::restart`] starts, at `address` or wherever it is free.
    pub(super) fn stopped(address: Option<SocketAddr>, extra: &str) -> Self {
        let binary = locate_nats_server().unwrap_or_else(|error| panic!("{error}"));
        let dir = TempDir::with_prefix("nats-").expect("a temporary directory");
        Self { child: None, binary, extra: extra.to_owned(), address, dir }
    }

    /// Where it listens: `nats://127.0.0.1:PORT`. Stays the same over [`NatsServer::restart`].
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("a started server has an address")
    }

    /// A new connection to it.
    pub async fn client(&self) -> async_nats::Client {
        let url = self.url();
        async_nats::connect(&url).await.unwrap_or_else(|error| panic!("cannot connect to {url}: {error}"))
    }

    /// Publishes as a program would that knows nothing of rules, and returns when the server has taken it.
    pub async fn publish_raw(&self, subject: &[u8], headers: &[u8], body: &[u8]) {
        let (header_len, len) = (headers.len(), headers.len() + body.len());
        let lengths = format!(" {header_len} {len}\r\n");
        let connect = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\nHPUB ";
        let sent = [connect, subject, lengths.as_bytes(), headers, body, b"\r\nPING\r\n"].concat();
        let talk = async {
            let mut connection = TcpStream::connect(self.address()).await?;
            connection.write_all(&sent).await?;
            let mut heard = Vec::new();
            while !heard.ends_with(b"PONG\r\n") && connection.read_buf(&mut heard).await? > 0 {}
            std::io::Result::Ok(heard)
        };
        let heard = talk.await.expect("the server listens");
        assert!(heard.ends_with(b"PONG\r\n"), "{}", String::from_utf8_lossy(&heard));
    }

    /// Its process id, for a test that measures or pauses it. `None` after [`NatsServer::kill`].
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What it has logged so far, all starts together.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Where it keeps its streams: to be copied, or replaced by a copy, while it does not run.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("jetstream")
    }

    /// Ends it as a crash would (SIGKILL). What it stored stays for [`NatsServer::restart`].
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a child that has ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Starts it again with the same port and store, killing it first if it still runs.
    pub async fn restart(&mut self) {
        self.kill();
        let ports = self.dir.path().join("ports");
        drop(fs::remove_dir_all(&ports)); // not there at the first start
        fs::create_dir(&ports).expect("a directory for the server's ports file");
        let config = self.dir.path().join("server.conf");
        fs::write(&config, self.config(&ports)).expect("the server's configuration file");
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.log_file()).expect("its log file");

        let mut command = tied_command(&self.binary);
        command.arg("--config").arg(&config).env("STORE", self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(spawn_tied(command).expect("nats-server runs"));
        self.address = Some(self.listening(&ports).await);
    }

    fn config(&self, ports: &Path) -> String {
        let port = self.address.map_or(-1, |address| i32::from(address.port())); // -1: any free one
        let ports = ports.display();
        let extra = &self.extra;
        format!(
            "host: 127.0.0.1\nport: {port}\nports_file_dir: \"{ports}\"\n\
             jetstream {{ store_dir: $STORE, max_mem: 256MB, max_file: 10GB }}\n{extra}\n"
        )
    }

    /// Waits for the file in which the server says where it listens; it writes that last.
    async fn listening(&mut self, ports: &Path) -> SocketAddr {
        let started = Instant::now();
        loop {
            if let Some(port) = read_port(ports) {
                return (Ipv4Addr::LOCALHOST, port).into();
            }
            let ended = self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            let starting = !ended && started.elapsed() < START_DEADLINE;
            assert!(starting, "nats-server did not start:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads `{"nats":["nats://127.0.0.1:PORT"], …}` from the only file there. `None` until it is complete.
fn read_port(dir: &Path) -> Option<u16> {
    let file = fs::read_dir(dir).ok()?.next()?.ok()?.path();
    let ports: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let url = ports.get("nats")?.get(0)?.as_str()?;
    url.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_restarted_server_keeps_its_port_and_its_store() {
        let mut server = NatsServer::start().await;
        let url = server.url();
        let config = async_nats::jetstream::stream::Config { name: "KEPT".into(), ..Default::default() };
        let jetstream = async_nats::jetstream::new(server.client().await);
        jetstream.create_stream(config).await.unwrap();

        server.restart().await;

        assert_eq!(server.url(), url);
        let jetstream = async_nats::jetstream::new(server.client().await);
        jetstream.get_stream("KEPT").await.expect("the stream is still there");
    }

    #[tokio::test]
    async fn a_killed_server_refuses_connections() {
        let mut server = NatsServer::start().await;
        server.kill();
        assert!(async_nats::connect(server.url()).await.is_err());
        assert_eq!(server.pid(), None);
    }

    #[tokio::test]
    async fn two_servers_do_not_see_each_other() {
        let (one, other) = tokio::join!(NatsServer::start(), NatsServer::start());
        assert_ne!(one.url(), other.url());
    }

    #[tokio::test]
    async fn extra_configuration_replaces_the_default() {
        let server = NatsServer::with_config(
            "max_payload: 4KB\njetstream { store_dir: $STORE, sync_interval: always }",
        )
        .await;
        let client = server.client().await;
        assert_eq!(client.server_info().max_payload, 4096);
        assert!(async_nats::jetstream::new(client).query_account().await.is_ok());
    }

    #[tokio::test]
    async fn a_server_started_in_a_thread_that_ended_still_runs() {
        let start = || tokio::runtime::Runtime::new().unwrap().block_on(NatsServer::start());
        let server = std::thread::spawn(start).join().unwrap();
        server.client().await.flush().await.unwrap();
    }
}
