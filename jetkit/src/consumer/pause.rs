//! What the server knows of an open circuit: the consumer's durables are paused, and their metadata say why.
//!
//! A pause ends by itself, so that a process that dies leaves nothing paused. Its length is measured on the server's clock.
//! A pause that does not end when the metadata say is an operator's: it is neither prolonged nor ended here. (An update of a
//! durable leaves its pause as it is, so the two are written one after the other, the metadata first.)

use std::time::Duration;

use anyhow::Context as _;
use async_nats::Client;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, Context};
use chrono::{DateTime, SecondsFormat, SubsecRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::durable::Durable;
use crate::subject::EVENTS;

/// Where a durable's metadata tell of an open circuit. Renaming it hides the circuits that other versions have opened.
const MARK: &str = "jetkit_circuit";

/// The circuit of a consumer that is open: what it depends on is down, and its durable is paused until one event gets through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct OpenCircuit {
    /// The consumer.
    pub consumer: String,
    /// What is down.
    pub dependency: String,
    /// How that was noticed last.
    pub reason: String,
    /// When it was noticed first.
    pub since: DateTime<Utc>,
    /// When the pause ends if it is not prolonged.
    pub until: DateTime<Utc>,
}

/// What a durable's metadata tell.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Mark {
    dependency: String,
    reason: String,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    /// When the pause ended before it was prolonged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<DateTime<Utc>>,
    /// The process that probes.
    by: String,
}

/// Returns the circuits that are open now, sorted by consumer, as the durables on the event log tell.
pub async fn open_circuits(client: &Client) -> anyhow::Result<Vec<OpenCircuit>> {
    #[derive(Deserialize)]
    struct Listed {
        total: usize,
        consumers: Option<Vec<Standing>>,
    }
    let js = jetstream::new(client.clone());
    let (mut open, mut seen) = (Vec::new(), 0);
    loop {
        let listed = js.request(format!("CONSUMER.LIST.{EVENTS}"), &json!({ "offset": seen })).await;
        let listed: Response<Listed> = listed.context("listing the durables")?;
        let Listed { total, consumers } = answered(listed).context("listing the durables")?;
        let consumers = consumers.unwrap_or_default();
        seen += consumers.len();
        let is_last = consumers.is_empty() || seen >= total;
        for durable in consumers.iter().filter(|durable| durable.is_paused_by_us()) {
            let Some(Mark { dependency, reason, since, until, .. }) = durable.mark() else { continue };
            open.push(OpenCircuit { consumer: durable.name.clone(), dependency, reason, since, until });
        }
        if is_last {
            break;
        }
    }
    open.sort_by(|a, b| a.consumer.cmp(&b.consumer));
    Ok(open)
}

/// How a durable stands, as far as pauses go.
#[derive(Debug, Deserialize)]
struct Standing {
    #[serde(default)]
    name: String,
    /// The server's clock.
    ts: DateTime<Utc>,
    #[serde(default)]
    paused: bool,
    config: Value,
}

fn mark(config: &Value) -> Option<Mark> {
    serde_json::from_str(config.get("metadata")?.get(MARK)?.as_str()?).ok()
}

fn pause_until(config: &Value) -> Option<DateTime<Utc>> {
    config.get("pause_until")?.as_str()?.parse().ok()
}

/// Whether the pause in a durable's configuration is one that a circuit has made.
pub(super) fn is_by_circuit(config: &Value) -> bool {
    let (Some(pause), Some(mark)) = (pause_until(config), mark(config)) else { return false };
    mark.until == pause || mark.before == Some(pause)
}

impl Standing {
    fn mark(&self) -> Option<Mark> {
        mark(&self.config)
    }

    fn is_paused_by_us(&self) -> bool {
        self.paused && is_by_circuit(&self.config)
    }

    fn set_mark(&mut self, mark: Option<&Mark>) -> anyhow::Result<()> {
        let config = self.config.as_object_mut().context("a configuration that is no object")?;
        let metadata = config.entry("metadata").or_insert_with(|| json!({}));
        let metadata = metadata.as_object_mut().context("metadata that are no object")?;
        match mark {
            Some(mark) => metadata.insert(MARK.to_owned(), serde_json::to_string(mark)?.into()),
            None => metadata.remove(MARK),
        };
        Ok(())
    }
}

/// Who probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prober {
    /// This process.
    Ours,
    /// Another replica.
    Theirs,
    /// None any more: the one that did has closed the circuit.
    Nobody,
}

/// The pauses of one consumer's durables.
#[derive(Debug, Clone)]
pub(super) struct Pauses {
    js: Context,
    /// The stream and the name of each durable; the first one's metadata decide who probes.
    durables: Vec<(&'static str, String)>,
    by: String,
    lasts: Duration,
}

impl Pauses {
    pub(super) fn new(client: &Client, durables: &[Durable], lasts: Duration) -> Self {
        let mut durables: Vec<_> =
            durables.iter().map(|durable| (durable.stream, durable.name.clone())).collect();
        durables.sort_by_key(|(stream, _)| *stream != EVENTS);
        Self { js: jetstream::new(client.clone()), durables, by: client.new_inbox(), lasts }
    }

    /// Pauses every durable, or prolongs that; unless another replica does already. One that `follows` another replica's
    /// circuit takes it over when its pause has run out.
    pub(super) async fn hold(
        &self,
        dependency: &str,
        reason: &str,
        since: DateTime<Utc>,
        follows: bool,
    ) -> anyhow::Result<Prober> {
        for (n, (stream, name)) in self.durables.iter().enumerate() {
            let mut durable = self.look(stream, name).await?;
            let mark = durable.mark();
            if n == 0 {
                match &mark {
                    Some(mark) if mark.by != self.by && mark.until > durable.ts => return Ok(Prober::Theirs),
                    None if follows => return Ok(Prober::Nobody),
                    _ => {}
                }
            }
            let may_pause = !durable.paused || durable.is_paused_by_us();
            let lasts = TimeDelta::from_std(self.lasts).unwrap_or(TimeDelta::MAX);
            let mark = Mark {
                dependency: dependency.to_owned(),
                reason: reason.to_owned(),
                since,
                until: durable.ts.checked_add_signed(lasts).unwrap_or(durable.ts).trunc_subsecs(3),
                before: pause_until(&durable.config).filter(|_| may_pause),
                by: self.by.clone(),
            };
            durable.set_mark(Some(&mark))?;
            self.write(stream, name, &durable.config).await?;
            if may_pause {
                let until = mark.until.to_rfc3339_opts(SecondsFormat::Millis, true);
                self.pause(stream, name, &json!({ "pause_until": until })).await?;
            }
        }
        Ok(Prober::Ours)
    }

    /// Ends the pauses that a circuit has made.
    pub(super) async fn release(&self) -> anyhow::Result<()> {
        for (stream, name) in &self.durables {
            let mut durable = self.look(stream, name).await?;
            if durable.mark().is_none() {
                continue;
            }
            if durable.is_paused_by_us() {
                self.pause(stream, name, &json!({})).await?;
            }
            durable.set_mark(None)?;
            self.write(stream, name, &durable.config).await?;
        }
        Ok(())
    }

    async fn look(&self, stream: &str, name: &str) -> anyhow::Result<Standing> {
        let answer = self.js.request(format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await;
        let answer: Response<Standing> = answer.with_context(|| format!("looking at durable {name}"))?;
        answered(answer).with_context(|| format!("looking at durable {name} of stream {stream}"))
    }

    async fn pause(&self, stream: &str, name: &str, until: &Value) -> anyhow::Result<()> {
        let answer = self.js.request(format!("CONSUMER.PAUSE.{stream}.{name}"), until).await;
        let answer: Response<Value> = answer.with_context(|| format!("pausing durable {name}"))?;
        answered(answer).with_context(|| format!("pausing durable {name} of stream {stream}"))?;
        Ok(())
    }

    async fn write(&self, stream: &str, name: &str, config: &Value) -> anyhow::Result<()> {
        let update = json!({ "stream_name": stream, "config": config, "action": "update" });
        let answer = self.js.request(format!("CONSUMER.CREATE.{stream}.{name}"), &update).await;
        let answer: Response<Value> = answer.with_context(|| format!("updating durable {name}"))?;
        answered(answer).with_context(|| format!("updating durable {name} of stream {stream}"))?;
        Ok(())
    }
}

fn answered<T>(answer: Response<T>) -> Result<T, jetstream::Error> {
    match answer {
        Response::Ok(answer) => Ok(answer),
        Response::Err { error } => Err(error),
    }
}
