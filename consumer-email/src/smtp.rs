//! Sends mails over SMTP.

mod bounded;
mod server;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lettre::transport::smtp::client::AsyncSmtpConnection;
use tokio::time::Instant;

use crate::letter::Letter;
use crate::transport::{MailTransport, SendError, Sending};

pub use server::SmtpUrl;

/// How long a server may take to take one mail. Must be well within the consumer's handler timeout (20 seconds).
const PATIENCE: Duration = Duration::from_secs(15);

/// How many connections are kept, and how long without a mail.
const MAX_KEPT: usize = 10;
const KEPT_FOR: Duration = Duration::from_secs(60);

/// An SMTP server, over a few connections that are kept.
#[derive(Debug)]
pub struct Smtp {
    server: SmtpUrl,
    kept: Kept,
    patience: Duration,
}

impl Smtp {
    /// The server at `url`. Nothing is connected yet.
    pub fn new(url: &SmtpUrl) -> Self {
        Self { server: url.clone(), kept: Kept::default(), patience: PATIENCE }
    }

    /// The same, waiting so long for the server to take a mail.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    async fn deliver(&self, letter: &Letter) -> Result<(), SendError> {
        let mut connection = match self.kept.take().await {
            Some(connection) => connection,
            None => self.server.connect().await.map_err(SendError::Unavailable)?,
        };
        let message = letter.message();
        match connection.send(message.envelope(), &message.formatted()).await {
            Ok(_) => {
                self.kept.keep(connection);
                Ok(())
            }
            // 5xx is for good (RFC 5321, 4.2.1); 4xx and a lost connection may pass.
            Err(error) if error.is_permanent() => Err(SendError::Refused(error.into())),
            Err(error) => Err(SendError::Unavailable(error.into())),
        }
    }
}

impl MailTransport for Smtp {
    fn send<'a>(&'a self, letter: &'a Letter) -> Sending<'a> {
        Box::pin(async move {
            // The limit is ours: the client waits for ever for a silent server's answer.
            match tokio::time::timeout(self.patience, self.deliver(letter)).await {
                Ok(delivered) => delivered,
                Err(late) => Err(SendError::Unavailable(late.into())),
            }
        })
    }
}

/// Connections that wait for the next mail.
#[derive(Default)]
struct Kept(Mutex<Vec<(AsyncSmtpConnection, Instant)>>);

impl Kept {
    /// Takes one that the server still answers on.
    async fn take(&self) -> Option<AsyncSmtpConnection> {
        loop {
            let (mut connection, since) = self.connections().pop()?;
            if since.elapsed() < KEPT_FOR && connection.test_connected().await {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: AsyncSmtpConnection) {
        let mut kept = self.connections();
        kept.retain(|(_, since)| since.elapsed() < KEPT_FOR);
        if kept.len() < MAX_KEPT {
            kept.push((connection, Instant::now()));
        }
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<(AsyncSmtpConnection, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} connections", self.connections().len())
    }
}
