//! Sends mails over SMTP.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use crate::letter::Letter;
use crate::transport::{MailTransport, SendError, Sending};

/// How long one command to the server may take. A mail is a handful of them, and must be done within the consumer's
/// handler timeout.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

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
}

impl Smtp {
    /// The server at `url`. Nothing is connected yet.
    pub fn new(url: &SmtpUrl) -> anyhow::Result<Self> {
        let server =
            AsyncSmtpTransport::<Tokio1Executor>::from_url(&url.0).context("reading the SMTP URL")?;
        Ok(Self { server: server.timeout(Some(COMMAND_TIMEOUT)).build() })
    }
}

impl MailTransport for Smtp {
    fn send<'a>(&'a self, letter: &'a Letter) -> Sending<'a> {
        Box::pin(async move {
            // 5xx is for good (RFC 5321, 4.2.1); 4xx, a time-out and a lost connection may pass.
            self.server.send(letter.message().clone()).await.map(drop).map_err(|error| {
                match error.is_permanent() {
                    true => SendError::Refused(error.into()),
                    false => SendError::Unavailable(error.into()),
                }
            })
        })
    }
}
