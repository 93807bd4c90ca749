//! The running shop as a client sees it: where everything answers, and requests that are repeated until they are answered.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Ports, System, Workspace};

/// How long one request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The pauses between repeats of a request, and between looks at something that is awaited.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How many items one page of a list has.
const PER_PAGE: usize = 100;

/// A running shop. Its requests outlast a service that is away: they are repeated, under the same `Idempotency-Key`, until
/// there is an answer or patience ends.
#[derive(Debug, Clone)]
pub struct Shop {
    http: reqwest::Client,
    urls: BTreeMap<String, String>,
    nats: async_nats::Client,
    mailbox: Mailbox,
    patience: Duration,
}

/// Where the shop's mails arrive.
#[derive(Debug, Clone)]
pub enum Mailbox {
    /// As `.eml` files in a directory.
    Files(PathBuf),
    /// At an SMTP catcher (maildev), which lists them at this address.
    Catcher(String),
}

/// What a service answered to a write.
#[derive(Debug)]
pub struct Answer {
    what: String,
    status: StatusCode,
    /// The JSON body; null if it is not JSON.
    pub body: Value,
}

/// One page of a list.
#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    #[serde(default = "Option::default")]
    next: Option<String>,
}

impl Shop {
    /// A shop whose processes are ours.
    pub async fn of(system: &System) -> Result<Self> {
        let mut urls = BTreeMap::new();
        for service in system.services() {
            urls.insert(service.name.clone(), system.url(&service.name)?);
        }
        let mailbox = Mailbox::Files(system.data_dir("consumer-email").join("mails"));
        Self::new(urls, &system.nats_url(), mailbox).await
    }

    /// The shop that docker-compose.yml starts, on its fixed ports.
    pub async fn in_containers(workspace: &Workspace) -> Result<Self> {
        let url = |port| format!("http://127.0.0.1:{port}");
        let services = workspace.services.iter();
        let urls = services.map(|service| (service.name.clone(), url(service.port))).collect();
        let nats = format!("nats://127.0.0.1:{}", Ports::FIXED.nats());
        Self::new(urls, &nats, Mailbox::Catcher(format!("{}/email", url(1080)))).await
    }

    async fn new(urls: BTreeMap<String, String>, nats: &str, mailbox: Mailbox) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(ANSWER_WITHIN).build()?;
        let servers: Vec<_> = nats.split(',').collect();
        let connecting = async_nats::ConnectOptions::new().name("xtask demo").connect(&servers[..]);
        let nats = connecting.await.with_context(|| format!("connecting to NATS at {nats}"))?;
        Ok(Self { http, urls, nats, mailbox, patience: Duration::from_secs(30) })
    }

    /// The same, with another limit on how long anything is waited for; 30 seconds by default.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// How long anything is waited for.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The connection to NATS.
    pub fn nats(&self) -> &async_nats::Client {
        &self.nats
    }

    /// Where mails arrive.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Fails unless every service says that it is ready.
    pub async fn ready(&self) -> Result<()> {
        for (service, url) in &self.urls {
            let answer = self.http.get(format!("{url}/health/ready")).send().await;
            let answer = answer.with_context(|| format!("{service} does not answer at {url}"))?;
            ensure!(answer.status().is_success(), "{service} is not ready: {}", answer.text().await?);
        }
        Ok(())
    }

    /// Writes, with `key` as the `Idempotency-Key`. Answers below 500 are for the caller to judge ([`Answer::expect`]).
    pub async fn write(
        &self,
        method: Method,
        service: &str,
        path: &str,
        key: &str,
        body: &Value,
    ) -> Result<Answer> {
        let url = self.url(service, path)?;
        let what = format!("{method} {url}");
        let request = || self.http.request(method.clone(), &url).header("idempotency-key", key).json(body);
        let (status, text) = self.answered(&what, request).await?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Answer { what, status, body })
    }

    /// [`Shop::write`] by POST.
    pub async fn post(&self, service: &str, path: &str, key: &str, body: &Value) -> Result<Answer> {
        self.write(Method::POST, service, path, key, body).await
    }

    /// Reads. `None` if there is no such thing.
    pub async fn find<T: DeserializeOwned>(&self, service: &str, path: &str) -> Result<Option<T>> {
        let url = self.url(service, path)?;
        self.find_at(&url).await
    }

    /// Reads what must be there.
    pub async fn get<T: DeserializeOwned>(&self, service: &str, path: &str) -> Result<T> {
        self.find(service, path).await?.with_context(|| format!("{service} has no {path}"))
    }

    /// Returns every item of a list: what is there all the while once, whatever is written in between.
    pub async fn list<T: DeserializeOwned>(&self, service: &str, path: &str) -> Result<Vec<T>> {
        let mut all = Vec::new();
        let parameters = if path.contains('?') { '&' } else { '?' };
        let first = format!("{path}{parameters}per_page={PER_PAGE}");
        let mut page = first.clone();
        loop {
            let Page { items, next }: Page<T> = self.get(service, &page).await?;
            all.extend(items);
            let Some(next) = next else { return Ok(all) };
            page = format!("{first}&cursor={next}");
        }
    }

    /// Reads from an absolute address.
    pub(super) async fn find_at<T: DeserializeOwned>(&self, url: &str) -> Result<Option<T>> {
        let (status, text) = self.answered(url, || self.http.get(url)).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        ensure!(status.is_success(), "GET {url}: {status}: {text}");
        serde_json::from_str(&text).map(Some).with_context(|| format!("reading {url}: {text}"))
    }

    /// Asks again and again until `ask` answers `Some`; `None` when patience has ended.
    pub async fn wait_for<T>(&self, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<Option<T>> {
        let started = Instant::now();
        let mut pause = PAUSE;
        while started.elapsed() < self.patience {
            if let Some(answer) = ask().await? {
                return Ok(Some(answer));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 5 / 4).min(LONGEST_PAUSE);
        }
        Ok(None)
    }

    /// Publishes as any script with a NATS client would: over core NATS, without an acknowledgement.
    pub async fn publish(&self, subject: &str, body: &[u8]) -> Result<()> {
        self.nats.publish(subject.to_owned(), body.to_vec().into()).await?;
        self.nats.flush().await.context("flushing")
    }

    /// Publishes once, however often it is tried: with a message id, until the stream acknowledges it.
    pub async fn publish_once(&self, subject: &str, message_id: &str, body: &[u8]) -> Result<()> {
        let jetstream = jetstream::new(self.nats.clone());
        let publish = async || {
            let message = jetstream::message::PublishMessage::build()
                .payload(body.to_vec().into())
                .message_id(message_id);
            let sent = jetstream.send_publish(subject.to_owned(), message).await;
            let Ok(ack) = sent else { return Ok(None) };
            Ok(ack.await.ok())
        };
        let stored = self.wait_for(publish).await?;
        stored.map(drop).with_context(|| format!("nothing acknowledged a message on {subject}"))
    }

    fn url(&self, service: &str, path: &str) -> Result<String> {
        let url = self.urls.get(service).with_context(|| format!("there is no service {service}"))?;
        Ok(format!("{url}{path}"))
    }

    /// Sends until there is an answer that is no failure of the server's.
    async fn answered(
        &self,
        what: &str,
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> Result<(StatusCode, String)> {
        let (started, mut pause) = (Instant::now(), PAUSE);
        loop {
            let failure = match request().send().await {
                Ok(answer) if !answer.status().is_server_error() => {
                    let status = answer.status();
                    match answer.text().await {
                        Ok(text) => return Ok((status, text)),
                        Err(error) => anyhow::Error::from(error),
                    }
                }
                Ok(answer) => {
                    anyhow::anyhow!("{}: {}", answer.status(), answer.text().await.unwrap_or_default())
                }
                Err(error) => error.into(),
            };
            if started.elapsed() > self.patience {
                return Err(failure).with_context(|| format!("{what} was tried for {:?}", self.patience));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl Answer {
    /// Fails with the service's words unless it answered with `status`.
    pub fn expect(self, status: u16) -> Result<Self> {
        if self.status.as_u16() != status {
            bail!("{}: {} instead of {status}: {}", self.what, self.status, self.body);
        }
        Ok(self)
    }

    /// A text of the body.
    pub fn text(&self, field: &str) -> Result<&str> {
        let text = self.body.get(field).and_then(Value::as_str);
        text.with_context(|| format!("{}: no `{field}` in {}", self.what, self.body))
    }
}
