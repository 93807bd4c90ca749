//! Three real nats-servers that replicate, private to one test: for what only shows when a leader dies.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{ClusterInfo, Config, StorageType};
use futures::future::join_all;

use super::{NatsServer, eventually};

/// How many nodes there are: the fewest that survive the loss of one.
const NODES: usize = 3;

/// How long a cluster may take to agree. An election takes 4 to 9 seconds, and the first may have to be repeated.
const AGREEMENT: Duration = Duration::from_mins(1);

/// A JetStream cluster of three nodes on the loopback interface, each with a store of its own. Gone when dropped, and
/// also when the test is killed.
///
/// Streams are replicated if they ask for it: `provision::streams(&client, &catalog, 3)`.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts the nodes and waits until they take replicated streams.
    pub async fn start() -> Self {
        let (clients, routes) = (free_ports(), free_ports());
        let urls: Vec<_> = addresses(&routes).map(|route| format!("nats://{route}")).collect();
        let urls = urls.join(", ");
        let nodes = addresses(&clients).zip(addresses(&routes)).enumerate();
        let mut nodes: Vec<_> = nodes
            .map(|(node, (client, route))| {
                let name = name_of(node);
                let extra = format!(
                    "server_name: {name}\ncluster {{ name: test, listen: \"{route}\", routes: [{urls}] }}"
                );
                NatsServer::stopped(Some(client), &extra)
            })
            .collect();
        drop((clients, routes)); // held until now so that nobody else takes them
        join_all(nodes.iter_mut().map(NatsServer::restart)).await;
        let cluster = Self { nodes };
        cluster.agreed().await;
        cluster
    }

    /// Where the nodes listen. Stays the same over [`NatsCluster::restart`].
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(NatsServer::url).collect()
    }

    /// Where one of them listens.
    pub fn address(&self, node: usize) -> SocketAddr {
        self.nodes[node].address()
    }

    /// A new connection that goes to another node when its own dies.
    pub async fn client(&self) -> async_nats::Client {
        let urls = self.urls();
        let connected = async_nats::connect(&urls[..]).await;
        connected.unwrap_or_else(|error| panic!("cannot connect to {urls:?}: {error}"))
    }

    /// The living node that leads a stream, once there is one.
    pub async fn leader_of(&self, stream: &str) -> usize {
        let client = self.client().await;
        eventually(AGREEMENT, || async {
            let leader = state_of(&client, stream).await?.leader?;
            (0..NODES).find(|node| name_of(*node) == leader && self.nodes[*node].pid().is_some())
        })
        .await
    }

    /// Waits until every node is there and has all of a stream. Only then may another one be killed without taking the
    /// majority along.
    pub async fn in_sync(&self, stream: &str) {
        let client = self.client().await;
        eventually(AGREEMENT, || async {
            let state = state_of(&client, stream).await?;
            let current = state
                .replicas
                .iter()
                .filter(|replica| replica.current && !replica.offline && replica.lag.unwrap_or(0) == 0);
            (state.leader.is_some() && current.count() == NODES - 1).then_some(())
        })
        .await;
    }

    /// Ends a node as a crash would (SIGKILL). What it stored stays for [`NatsCluster::restart`].
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Starts a node again, with the same ports and store. It catches up by itself: see [`NatsCluster::in_sync`].
    pub async fn restart(&mut self, node: usize) {
        self.nodes[node].restart().await;
    }

    /// What a node has logged so far.
    pub fn log(&self, node: usize) -> String {
        self.nodes[node].log()
    }

    /// Waits until the nodes know each other and have elected who places streams: only then is a replicated one made.
    async fn agreed(&self) {
        let js = jetstream::new(self.client().await);
        let probe = Config {
            name: "PROBE".into(),
            num_replicas: NODES,
            storage: StorageType::Memory,
            ..Config::default()
        };
        eventually(AGREEMENT, || async { js.create_stream(probe.clone()).await.ok() }).await;
        eventually(AGREEMENT, || async { js.delete_stream("PROBE").await.ok() }).await;
    }
}

fn name_of(node: usize) -> String {
    format!("node-{node}")
}

async fn state_of(client: &async_nats::Client, stream: &str) -> Option<ClusterInfo> {
    let js = jetstream::new(client.clone());
    js.get_stream(stream).await.ok()?.cached_info().cluster.clone()
}

/// A port for every node, below those that the kernel gives to outgoing connections: the other nodes keep calling one
/// that is down, and a call from the very port that it goes to would be answered by itself.
fn free_ports() -> Vec<TcpListener> {
    let mut free = Vec::with_capacity(NODES);
    for _ in 0..1000 {
        if free.len() == NODES {
            return free;
        }
        free.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..30_000))));
    }
    panic!("no free ports between 10000 and 30000");
}

fn addresses(ports: &[TcpListener]) -> impl Iterator<Item = SocketAddr> {
    ports.iter().map(|port| port.local_addr().expect("a bound socket has an address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cluster_outlives_the_leader_of_its_stream() {
        let mut cluster = NatsCluster::start().await;
        let js = jetstream::new(cluster.client().await);
        let kept = Config { name: "KEPT".into(), num_replicas: NODES, ..Config::default() };
        js.create_stream(kept).await.unwrap();
        js.publish("KEPT", "a".into()).await.unwrap().await.unwrap();
        cluster.in_sync("KEPT").await;

        let leader = cluster.leader_of("KEPT").await;
        cluster.kill(leader);

        assert_ne!(cluster.leader_of("KEPT").await, leader);
        eventually(AGREEMENT, || async { js.publish("KEPT", "b".into()).await.ok()?.await.ok() }).await;
        cluster.restart(leader).await;
        cluster.in_sync("KEPT").await;
    }
}
