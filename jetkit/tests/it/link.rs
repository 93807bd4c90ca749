//! A connection on which messages can be lost: what the server does is done, and its client does not hear of it, or what the
//! client sends does not arrive.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use async_nats::{Client, ConnectOptions};
use bytes::{Bytes, BytesMut};
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
    to_lose: ToLose,
    /// The accepting task, and with it every connection.
    _task: JoinSet<()>,
}

impl Link {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answers, state) = watch::channel(Answers::Arrive);
        let mut task = JoinSet::new();
        let to_lose = ToLose::default();
        let losing = to_lose.clone();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (state, losing) = (state.clone(), losing.clone());
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (from_server, to_server) = server.into_split();
                    let (from_client, to_client) = client.into_split();
                    tokio::select! {
                        () = carry(from_client, to_server, &losing) => {}
                        () = answer(from_server, to_client, state, &losing) => {}
                    }
                });
            }
        });
        Self { address, answers, to_lose, _task: task }
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

    /// The next message with this text in it, in either direction, does not arrive. All else does.
    pub(crate) fn lose_one(&self, text: &'static str) {
        self.to_lose.0.lock().unwrap().push(text);
    }

    /// Whether all is lost that was to be.
    pub(crate) fn has_lost_all(&self) -> bool {
        self.to_lose.0.lock().unwrap().is_empty()
    }

    /// Ends the connections that lost something. New ones are whole.
    pub(crate) fn mend(&self) {
        self.answers.send_replace(Answers::Arrive);
    }
}

/// What will be in the messages that do not arrive.
#[derive(Debug, Clone, Default)]
struct ToLose(Arc<Mutex<Vec<&'static str>>>);

impl ToLose {
    fn takes(&self, frame: &[u8]) -> bool {
        let mut texts = self.0.lock().unwrap();
        let lost =
            texts.iter().position(|text| frame.windows(text.len()).any(|part| part == text.as_bytes()));
        lost.map(|place| texts.remove(place)).is_some()
    }
}

/// Takes one operation of the protocol from the front: a line, and where it is a message, what comes with it.
fn take_frame(bytes: &mut BytesMut) -> Option<Bytes> {
    let line = bytes.windows(2).position(|end| end == b"\r\n")? + 2;
    let words = String::from_utf8_lossy(&bytes[..line]).into_owned();
    let mut words = words.split_whitespace();
    let is_message = words.next().is_some_and(|verb| ["PUB", "HPUB", "MSG", "HMSG"].contains(&verb));
    let body = if is_message { words.next_back()?.parse::<usize>().unwrap() + 2 } else { 0 };
    (bytes.len() >= line + body).then(|| bytes.split_to(line + body).freeze())
}

async fn pass_on(bytes: &mut BytesMut, to: &mut OwnedWriteHalf, to_lose: &ToLose) -> std::io::Result<()> {
    while let Some(frame) = take_frame(bytes) {
        if !to_lose.takes(&frame) {
            to.write_all(&frame).await?;
        }
    }
    Ok(())
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, to_lose: &ToLose) {
    let mut bytes = BytesMut::new();
    while from.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
        if pass_on(&mut bytes, &mut to, to_lose).await.is_err() {
            return;
        }
    }
}

async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut answers: watch::Receiver<Answers>,
    to_lose: &ToLose,
) {
    let mut bytes = BytesMut::new();
    let mut lost = false;
    loop {
        let state = *answers.borrow_and_update();
        if lost && state == Answers::Arrive {
            return;
        }
        lost = state == Answers::AreLost;
        tokio::select! {
            read = from.read_buf(&mut bytes) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) if lost => bytes.clear(),
                Ok(_) => if pass_on(&mut bytes, &mut to, to_lose).await.is_err() { return },
            },
            changed = answers.changed() => if changed.is_err() { return },
        }
    }
}
