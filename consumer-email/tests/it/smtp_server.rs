//! An SMTP server in the test's own process: the protocol is the `mailin` crate's, the answers are the test's.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use consumer_email::smtp::{Smtp, SmtpUrl};
use mailin::{Action, Handler, Response, SessionBuilder, response};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// What the server does with a mail that was sent completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Take,
    /// "Try later", and nothing is taken.
    Later,
    /// "Never", and nothing is taken.
    Never,
    /// Takes it, and the connection is lost before the client hears of it.
    TakeAndHangUp,
    /// Says nothing any more.
    Nothing,
}

/// A mail as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) to: Vec<String>,
    pub(crate) content: String,
}

impl Received {
    /// A header's value, as written.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.content.lines().take_while(|line| !line.is_empty());
        lines
            .filter_map(|line| line.split_once(": "))
            .find(|(header, _)| *header == name)
            .map(|(_, value)| value)
    }
}

pub(crate) struct SmtpServer {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    _serving: AbortOnDropHandle<()>,
}

struct Shared {
    answer: Answer,
    received: Vec<Received>,
}

impl SmtpServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared { answer: Answer::Take, received: vec![] }));
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, _serving: AbortOnDropHandle::new(serving) }
    }

    pub(crate) fn transport(&self) -> Smtp {
        Smtp::new(&self.url())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> SmtpUrl {
        format!("smtp://{}", self.address).parse().unwrap()
    }

    pub(crate) fn answers(&self, answer: Answer) {
        self.shared.lock().unwrap().answer = answer;
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.lock().unwrap().received.clone()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    while let Ok((connection, _)) = listener.accept().await {
        tokio::spawn(converse(connection, Arc::clone(&shared)));
    }
}

async fn converse(connection: TcpStream, shared: Arc<Mutex<Shared>>) -> io::Result<()> {
    let peer = connection.peer_addr()?.ip();
    let (reader, mut writer) = connection.into_split();
    let mut reader = BufReader::new(reader);
    let conversation = Conversation { shared, to: vec![], content: vec![] };
    let mut session = SessionBuilder::new("test").build(peer, conversation);
    let mut answer = session.greeting();
    loop {
        match answer.action {
            Action::NoReply => {}
            Action::Close if answer.code == HANG_UP => return Ok(()),
            Action::Reply | Action::Close | Action::UpgradeTls => writer.write_all(&answer.buffer()?).await?,
        }
        if answer.action == Action::Close {
            return Ok(());
        }
        let mut line = vec![];
        if reader.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        answer = session.process(&line);
    }
}

/// Not an SMTP code: the connection is closed without a word.
const HANG_UP: u16 = 999;

struct Conversation {
    shared: Arc<Mutex<Shared>>,
    to: Vec<String>,
    content: Vec<u8>,
}

impl Handler for Conversation {
    fn data_start(&mut self, _: &str, _: &str, _: bool, to: &[String]) -> Response {
        (self.to, self.content) = (to.to_vec(), vec![]);
        response::OK
    }

    fn data(&mut self, part: &[u8]) -> io::Result<()> {
        self.content.extend_from_slice(part);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        let mut shared = self.shared.lock().unwrap();
        if matches!(shared.answer, Answer::Take | Answer::TakeAndHangUp) {
            let (to, content) = (self.to.clone(), String::from_utf8(self.content.clone()).unwrap());
            shared.received.push(Received { to, content });
        }
        match shared.answer {
            Answer::Take => response::OK,
            // Closes as well: `mailin` would take the next command for a part of the mail.
            Answer::Later => with(Action::Close, response::INTERNAL_ERROR),
            Answer::Never => with(Action::Close, response::NO_MAILBOX),
            Answer::TakeAndHangUp => with(Action::Close, Response::custom(HANG_UP, String::new())),
            Answer::Nothing => with(Action::NoReply, response::OK),
        }
    }
}

fn with(action: Action, mut response: Response) -> Response {
    response.action = action;
    response
}
