//! Sends mails over SMTP, stage by stage: whose fault a failure is depends on how far the mail came.

mod bounded;
mod server;
mod stage;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lettre::address::Envelope;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{Extension, MailBodyParameter, MailParameter};
use tokio::time::Instant;

use crate::letter::Letter;
use crate::transport::{MailTransport, SendError, Sending};
use stage::Stage;

pub use server::SmtpUrl;

/// How long a server may take to take one mail. Must be well within the consumer's handler timeout (20 seconds).
const PATIENCE: Duration = Duration::from_secs(15);

/// How many connections are kept for the next mails, and for how long.
const KEPT: usize = 10;
const KEPT_FOR: Duration = Duration::from_mins(1);

/// An SMTP server, over a few connections that are kept.
pub struct Smtp {
    server: SmtpUrl,
    kept: Kept,
    patience: Duration,
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Smtp(…)")
    }
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

    /// Sends a mail, and tells how far it came.
    async fn deliver(&self, envelope: &Envelope, content: &[u8], at: &mut Stage) -> Result<(), SendError> {
        let mut connection = self.connection(envelope, content, at).await?;
        let taken = hand_over(&mut connection, envelope, content, at).await;
        // A connection whose server has answered may be used again, once the mail that it did not take is forgotten.
        match &taken {
            Ok(()) => self.kept.put(connection),
            Err(error) if error.status().is_some() => {
                tokio::spawn(forget(connection, self.kept.clone()));
            }
            Err(_) => {}
        }
        taken.map_err(|error| at.failure(error))
    }

    /// A connection whose server has taken the sender: a kept one, where one still works.
    async fn connection(
        &self,
        envelope: &Envelope,
        content: &[u8],
        at: &mut Stage,
    ) -> Result<AsyncSmtpConnection, SendError> {
        while let Some(mut kept) = self.kept.take() {
            if kept.command(mail_from(&kept, envelope, content)?).await.is_ok() {
                return Ok(kept);
            }
        }
        let mut fresh = self.server.connect().await.map_err(stage::down)?;
        *at = Stage::Sender;
        let sender = mail_from(&fresh, envelope, content)?;
        fresh.command(sender).await.map_err(|error| at.failure(error))?;
        Ok(fresh)
    }
}

impl MailTransport for Smtp {
    fn send<'a>(&'a self, letter: &'a Letter) -> Sending<'a> {
        Box::pin(async move {
            let (message, mut at) = (letter.message(), Stage::Connect);
            let content = message.formatted();
            // The limit is ours: the client would wait for ever for a silent server's answer.
            let sending = self.deliver(message.envelope(), &content, &mut at);
            match tokio::time::timeout(self.patience, sending).await {
                Ok(sent) => sent,
                Err(late) => Err(at.silence(late)),
            }
        })
    }
}

/// Names the sender, and what the server has to be able to do for this mail.
fn mail_from(
    connection: &AsyncSmtpConnection,
    envelope: &Envelope,
    content: &[u8],
) -> Result<Mail, SendError> {
    let mut parameters = Vec::new();
    let mut wants = |extension, parameter, what: &str| {
        if !connection.server_info().supports_feature(extension) {
            return Err(SendError::Refused(anyhow::anyhow!("the server does not take {what}")));
        }
        parameters.push(parameter);
        Ok(())
    };
    let is_ascii = |address: &lettre::Address| AsRef::<str>::as_ref(address).is_ascii();
    if !envelope.to().iter().chain(envelope.from()).all(is_ascii) {
        wants(Extension::SmtpUtfEight, MailParameter::SmtpUtfEight, "non-ASCII addresses")?;
    }
    if !content.is_ascii() {
        let body = MailParameter::Body(MailBodyParameter::EightBitMime);
        wants(Extension::EightBitMime, body, "non-ASCII content")?;
    }
    Ok(Mail::new(envelope.from().cloned(), parameters))
}

/// Hands a mail over to a server that has taken its sender.
async fn hand_over(
    connection: &mut AsyncSmtpConnection,
    envelope: &Envelope,
    content: &[u8],
    at: &mut Stage,
) -> Result<(), Error> {
    *at = Stage::Recipient;
    for recipient in envelope.to() {
        connection.command(Rcpt::new(recipient.clone(), Vec::new())).await?;
    }
    connection.command(Data).await?;
    *at = Stage::Content;
    connection.message(content).await?;
    Ok(())
}

/// Makes a connection ready for the next mail.
async fn forget(mut connection: AsyncSmtpConnection, kept: Kept) {
    if let Ok(Ok(_)) = tokio::time::timeout(PATIENCE, connection.command(Rset)).await {
        kept.put(connection);
    }
}

/// Connections that wait for the next mail, the latest last.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(Instant, AsyncSmtpConnection)>>>);

impl Kept {
    fn take(&self) -> Option<AsyncSmtpConnection> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(since, _)| since.elapsed() < KEPT_FOR);
        kept.pop().map(|(_, connection)| connection)
    }

    fn put(&self, connection: AsyncSmtpConnection) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push((Instant::now(), connection));
        }
    }
}
