//! An SMTP server in the test's own process: the protocol is the `mailin` crate's, the answers are the test's.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use consumer_email::smtp::{Smtp, SmtpUrl};
use jetkit::testing::eventually;
use mailin::{Action, Handler, Response, SessionBuilder, response};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// What the server does: from [`Answer::Take`] on with a mail that was sent completely, the rest before that.
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
    /// 554 instead of a greeting.
    RefusesGreeting,
    /// 535 to any login.
    RefusesLogin,
    /// 530 to the sender: it wants a login.
    WantsLogin,
    /// 421 to any recipient, and the connection is closed.
    ShutsDown,
    /// 450 to this recipient, and takes mails for others.
    Greylists(&'static str),
    /// 550 to this recipient, and takes mails for others.
    Refuses(&'static str),
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
    serving: Option<AbortOnDropHandle<()>>,
}

struct Shared {
    answer: Answer,
    received: Vec<Received>,
    /// How many conversations were begun.
    conversations: usize,
    /// To whom somebody has wanted to write.
    wanted: Vec<String>,
}

impl SmtpServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared {
            answer: Answer::Take,
            received: vec![],
            conversations: 0,
            wanted: vec![],
        }));
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, serving: Some(AbortOnDropHandle::new(serving)) }
    }

    /// Is away: nobody listens, and open connections are closed.
    pub(crate) fn go_away(&mut self) {
        self.serving = None;
    }

    /// Listens again where it did.
    pub(crate) async fn come_back(&mut self) {
        let listener =
            eventually(Duration::from_secs(10), || async { TcpListener::bind(self.address).await.ok() });
        let serving = tokio::spawn(serve(listener.await, Arc::clone(&self.shared)));
        self.serving = Some(AbortOnDropHandle::new(serving));
    }

    /// How many conversations were begun.
    pub(crate) fn conversations(&self) -> usize {
        self.shared.lock().unwrap().conversations
    }

    /// How often somebody has wanted to write to this address.
    pub(crate) fn wanted(&self, address: &str) -> usize {
        self.shared.lock().unwrap().wanted.iter().filter(|wanted| *wanted == address).count()
    }

    /// A login that it asks nobody for.
    pub(crate) fn transport_with_login(&self) -> Smtp {
        Smtp::new(&format!("smtp://shop:secret@{}", self.address).parse().unwrap())
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
    // Dropped with this task, and all conversations with it.
    let mut conversations = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        conversations.spawn(converse(connection, Arc::clone(&shared)));
    }
}

async fn converse(connection: TcpStream, shared: Arc<Mutex<Shared>>) -> io::Result<()> {
    let peer = connection.peer_addr()?.ip();
    let (reader, mut writer) = connection.into_split();
    let mut reader = BufReader::new(reader);
    let mut session = SessionBuilder::new("test")
        .build(peer, Conversation { shared: Arc::clone(&shared), to: vec![], content: vec![] });
    let mut answer = session.greeting();
    let state = || shared.lock().unwrap();
    state().conversations += 1;
    if state().answer == Answer::RefusesGreeting {
        return writer.write_all(b"554 no mails from you\r\n").await;
    }
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
        // The crate offers a login on encrypted connections only.
        let refuses_login = state().answer == Answer::RefusesLogin;
        if refuses_login && line.starts_with(b"EHLO") {
            writer.write_all(b"250-test\r\n250 AUTH PLAIN LOGIN\r\n").await?;
            answer.action = Action::NoReply;
        } else if refuses_login && line.starts_with(b"AUTH") {
            answer = response::INVALID_CREDENTIALS;
        }
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
    fn mail(&mut self, _: IpAddr, _: &str, _: &str) -> Response {
        match self.shared.lock().unwrap().answer {
            Answer::WantsLogin => response::AUTHENTICATION_REQUIRED,
            _ => response::OK,
        }
    }

    fn rcpt(&mut self, to: &str) -> Response {
        let mut shared = self.shared.lock().unwrap();
        shared.wanted.push(to.to_owned());
        match shared.answer {
            Answer::ShutsDown => with(Action::Close, response::NO_SERVICE),
            Answer::Greylists(address) if address == to => Response::custom(450, "try later".to_owned()),
            Answer::Refuses(address) if address == to => response::NO_MAILBOX,
            _ => response::OK,
        }
    }

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
        if !matches!(shared.answer, Answer::Later | Answer::Never | Answer::Nothing) {
            let (to, content) = (self.to.clone(), String::from_utf8(self.content.clone()).unwrap());
            shared.received.push(Received { to, content });
        }
        match shared.answer {
            // Closes as well: `mailin` would take the next command for a part of the mail.
            Answer::Later => with(Action::Close, response::INTERNAL_ERROR),
            Answer::Never => with(Action::Close, response::NO_MAILBOX),
            Answer::TakeAndHangUp => with(Action::Close, Response::custom(HANG_UP, String::new())),
            Answer::Nothing => with(Action::NoReply, response::OK),
            _ => response::OK,
        }
    }
}

fn with(action: Action, mut response: Response) -> Response {
    response.action = action;
    response
}
