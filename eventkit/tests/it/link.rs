//! A connection on which answers can be lost: what the server does is done, and nobody is told.

use std::net::{Ipv4Addr, SocketAddr};

use async_nats::{Client, ConnectOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to what the server says.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Answers {
    Arrive,
    AreLost,
}

/// A port that leads to a server.
pub(crate) struct Link {
    address: SocketAddr,
    answers: watch::Sender<Answers>,
    /// The accepting task, and with it every connection.
    _task: JoinSet<()>,
}

impl Link {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answers, state) = watch::channel(Answers::Arrive);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let state = state.clone();
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (from_server, mut to_server) = server.into_split();
                    let (mut from_client, to_client) = client.into_split();
                    tokio::select! {
                        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                        () = answer(from_server, to_client, state) => {}
                    }
                });
            }
        });
        Self { address, answers, _task: task }
    }

    /// A client that knows no other way to the server.
    pub(crate) async fn client(&self) -> Client {
        let options = ConnectOptions::new().ignore_discovered_servers();
        options.connect(self.address.to_string()).await.unwrap()
    }

    /// From now on nothing that the server says arrives.
    pub(crate) fn lose_answers(&self) {
        self.answers.send_replace(Answers::AreLost);
    }

    /// Ends the connections that lost something. New ones are whole.
    pub(crate) fn mend(&self) {
        self.answers.send_replace(Answers::Arrive);
    }
}

async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut answers: watch::Receiver<Answers>) {
    let mut bytes = vec![0; 16 * 1024];
    let mut lost = false;
    loop {
        let state = *answers.borrow_and_update();
        if lost && state == Answers::Arrive {
            return;
        }
        lost = state == Answers::AreLost;
        tokio::select! {
            read = from.read(&mut bytes) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) if lost => {}
                Ok(count) => if to.write_all(&bytes[..count]).await.is_err() { return },
            },
            changed = answers.changed() => if changed.is_err() { return },
        }
    }
}
