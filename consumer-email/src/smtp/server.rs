//! Which SMTP server, and a connection to it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail};
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT};
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use url::Url;

use super::bounded::Bounded;

/// `smtp://host:port`, `smtps://user:password@host`, `smtp://…?tls=required`, or `?tls=opportunistic`; after the host, as a
/// path, the name to greet with. May hold a password, so it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpUrl {
    host: String,
    port: u16,
    tls: Tls,
    login: Option<(String, String)>,
    greet_as: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    None,
    /// STARTTLS where the server offers it.
    IfOffered,
    /// STARTTLS, or no mail.
    Required,
    /// From the first byte on.
    Wrapped,
}

impl FromStr for SmtpUrl {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> anyhow::Result<Self> {
        Self::read(url).context("not a URL such as smtp://host:25 or smtps://user:password@host")
    }
}

impl SmtpUrl {
    fn read(url: &str) -> anyhow::Result<Self> {
        let url = Url::parse(url)?;
        let wanted = url.query_pairs().find_map(|(name, value)| (name == "tls").then_some(value));
        let (tls, port) = match (url.scheme(), wanted.as_deref()) {
            ("smtp", None) => (Tls::None, SMTP_PORT),
            ("smtp", Some("opportunistic")) => (Tls::IfOffered, SUBMISSION_PORT),
            ("smtp", Some("required")) => (Tls::Required, SUBMISSION_PORT),
            ("smtps", _) => (Tls::Wrapped, SUBMISSIONS_PORT),
            _ => bail!("the scheme is smtp or smtps, and tls is required or opportunistic"),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).context("no host")?;
        let decoded = |text: &str| anyhow::Ok(percent_decode_str(text).decode_utf8()?.into_owned());
        let login = match url.password() {
            Some(password) => Some((decoded(url.username())?, decoded(password)?)),
            None => None,
        };
        let name = url.path().trim_matches('/');
        Ok(Self {
            // An IPv6 address has brackets in a URL only.
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(port),
            tls,
            login,
            greet_as: (!name.is_empty()).then(|| name.to_owned()),
        })
    }

    /// Connects, greets, and logs in. Nothing that fails here is the fault of a mail.
    pub(super) async fn connect(&self) -> anyhow::Result<AsyncSmtpConnection> {
        let greet_as = self.greet_as.clone().map_or_else(ClientId::default, ClientId::Domain);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.context("connecting")?;
        let stream = match self.tls {
            Tls::Wrapped => wrap(stream, self.tls()?).await.context("TLS")?,
            Tls::None | Tls::IfOffered | Tls::Required => {
                let peer = stream.peer_addr()?;
                Box::new(Bounded::new(stream, peer))
            }
        };
        let mut connection =
            AsyncSmtpConnection::connect_with_transport(stream, &greet_as).await.context("the greeting")?;
        if self.tls == Tls::Required || (self.tls == Tls::IfOffered && connection.can_starttls()) {
            connection.starttls(self.tls()?, &greet_as).await.context("STARTTLS")?;
        }
        if let Some((user, password)) = self.login.clone() {
            let credentials = Credentials::new(user, password);
            connection.auth(DEFAULT_MECHANISMS, &credentials).await.context("logging in")?;
        }
        Ok(connection)
    }

    fn tls(&self) -> anyhow::Result<TlsParameters> {
        Ok(TlsParameters::new(self.host.clone())?)
    }
}

/// TLS from the first byte on, by lettre's own hand, with the bound on what comes out of it.
#[expect(deprecated, reason = "lettre has no other way to wrap a stream that we opened")]
async fn wrap(stream: TcpStream, tls: TlsParameters) -> anyhow::Result<Box<dyn AsyncTokioStream>> {
    use lettre::transport::smtp::client::AsyncNetworkStream;

    let peer = stream.peer_addr()?;
    let mut stream = AsyncNetworkStream::use_existing_tokio1(Box::new(Bounded::new(stream, peer)));
    stream.upgrade_tls(tls).await?;
    Ok(Box::new(Bounded::new(stream.compat(), peer)))
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SmtpUrl(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_how_and_as_who() {
        let read = |url: &str| SmtpUrl::from_str(url).unwrap();
        let url = read("smtp://localhost:1025");
        assert_eq!((url.host.as_str(), url.port, url.tls, url.login), ("localhost", 1025, Tls::None, None));
        let url = read("smtps://us%40er:pa%3Ass@mail.example.com/shop.example.com");
        assert_eq!((url.host.as_str(), url.port, url.tls), ("mail.example.com", 465, Tls::Wrapped));
        assert_eq!(url.login, Some(("us@er".to_owned(), "pa:ss".to_owned())));
        assert_eq!(url.greet_as.as_deref(), Some("shop.example.com"));
        let url = read("smtp://[::1]?tls=required");
        assert_eq!((url.host.as_str(), url.port, url.tls), ("::1", 587, Tls::Required));
        assert_eq!(read("smtp://a?tls=opportunistic").tls, Tls::IfOffered);
        for bad in ["", "localhost", "http://a", "smtp://", "smtp://a?tls=maybe", "smtp://a:99999"] {
            assert!(SmtpUrl::from_str(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let url = SmtpUrl::from_str("smtps://user:hunter2@mail.example.com").unwrap();
        assert!(!format!("{url:?}").contains("hunter2"));
        let refused = SmtpUrl::from_str("http://user:hunter2@mail.example.com").unwrap_err();
        assert!(!format!("{refused:#}").contains("hunter2"), "{refused:#}");
    }
}
