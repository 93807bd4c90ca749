//! Sends mails over SMTP.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use crate::letter::Letter;
use crate::transport::{MailTransport, SendError, Sending};

/// How long a server may take to take one mail. Must be well within the consumer's handler timeout (20 seconds).
const PATIENCE: Duration = Duration::from_secs(15);

/// `smtp://host:port`, `smtps://user:password@host`, `smtp://…?tls=required`. May hold a password, so it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpUrl(String);

impl FromStr for SmtpUrl {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> anyhow::Result<Self> {
        AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            .map_err(|_| anyhow::anyhow!("not a URL such as smtp://host:25 or smtps://user:password@host"))?;
        Ok(Self(url.to_owned()))
    }
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SmtpUrl(…)")
    }
}

/// An SMTP server, over a few connections that are kept.
#[derive(Debug)]
pub struct Smtp {
    server: AsyncSmtpTransport<Tokio1Executor>,
    patience: Duration,
}

impl Smtp {
    /// The server at `url`. Nothing is connected yet.
    pub fn new(url: &SmtpUrl) -> anyhow::Result<Self> {
        let server =
            AsyncSmtpTransport::<Tokio1Executor>::from_url(&url.0).context("reading the SMTP URL")?;
        Ok(Self { server: server.build(), patience: PATIENCE })
    }

    /// The same, waiting so long for the server to take a mail.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

impl MailTransport for Smtp {
    fn send<'a>(&'a self, letter: &'a Letter) -> Sending<'a> {
        Box::pin(async move {
            // The limit is ours: the client bounds connecting only, and would wait for ever for a silent server's answer.
            let sending = self.server.send(letter.message().clone());
            match tokio::time::timeout(self.patience, sending).await {
                Ok(Ok(_)) => Ok(()),
                // 5xx is for good (RFC 5321, 4.2.1); 4xx and a lost connection may pass.
                Ok(Err(error)) if error.is_permanent() => Err(SendError::Refused(error.into())),
                Ok(Err(error)) => Err(SendError::Unavailable(error.into())),
                Err(late) => Err(SendError::Unavailable(late.into())),
            }
        })
    }
}
