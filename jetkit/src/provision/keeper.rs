//! Keeps the streams of a deployment as they must be while a service runs: one that is gone is made again, one that
//! differs is put right, and what cannot be put right is reported.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::Config;
use async_nats::jetstream::{self, Context};
use metrics::gauge;
use tokio::time::MissedTickBehavior;
use tracing::{error, warn};

use super::{Found, MAX_EVENT_BYTES, ProvisionError, SNAPSHOTS, bring, find};
use crate::health::{Health, Operation};
use crate::log::{Outgoing, PublishFailure, publish_once};
use crate::{EventLog, subject};

/// How often the streams are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long the answer to a probe is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long after its last failure a kind of write counts as working again, where the streams look well. A service that is
/// not ready may be given nothing to write.
const QUIET: Duration = Duration::from_secs(30);

/// What is wrong with a stream.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error(
        "stream {stream} is gone, and an empty one is not made in its place: restore it, or restart every service to \
         begin with an empty log"
    )]
    LogGone { stream: String },
    #[error(
        "stream {stream} is another one than this service began with (created {is}, was {was}): restore that one, or \
         restart this service to go on with the new one"
    )]
    LogReplaced { stream: String, is: String, was: String },
    #[error(
        "stream {stream} was changed again after it had been put right: {changes}; keep one release of this program \
         running, or find out who changes it"
    )]
    ChangedAgain { stream: String, changes: String },
    #[error("stream {stream} is full: it has {bytes} of {max_bytes} bytes; raise its max_bytes")]
    Full { stream: String, bytes: u64, max_bytes: u64 },
}

impl Trouble {
    fn may_pass(&self) -> bool {
        matches!(self, Self::Provision(error) if error.may_pass())
    }
}

/// Keeps streams, the event log first.
pub(crate) struct StreamKeeper {
    js: Context,
    log: EventLog,
    /// Names the probe.
    service: &'static str,
    streams: Vec<Config>,
    /// When the log was created that this process began with.
    began_with: String,
    /// What has been put right before.
    put_right: HashSet<String>,
    keeping: Operation,
    probing: Operation,
    /// What was logged last.
    logged: Option<String>,
}

impl StreamKeeper {
    /// A keeper of `streams`, which are as they must be now.
    pub(crate) async fn new(
        log: &EventLog,
        service: &'static str,
        streams: Vec<Config>,
        health: &Health,
    ) -> anyhow::Result<Self> {
        let js = jetstream::new(log.client().clone());
        let found = find(&js, subject::EVENTS).await?;
        let began_with = found.map(|found| found.created).unwrap_or_default();
        Ok(Self {
            js,
            log: log.clone(),
            service,
            streams,
            began_with,
            put_right: HashSet::new(),
            keeping: Operation::new(health.check("streams"), "as they must be"),
            probing: Operation::new(health.check("storage"), "takes writes"),
            logged: None,
        })
    }

    /// Keeps them for as long as it is polled.
    pub(crate) async fn keep(mut self) -> anyhow::Result<()> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let log_has_room = self.look().await;
            let takes_writes = self.probe().await;
            let writes = self.log.writes();
            for writing in [&writes.events, &writes.timers] {
                if log_has_room && takes_writes && writing.is_quiet_for(QUIET) {
                    writing.succeeded();
                }
            }
        }
    }

    /// Looks at every stream. Answers whether all are well and the log has room for any event.
    async fn look(&mut self) -> bool {
        let (mut troubles, mut log_has_room) = (Vec::new(), true);
        for index in 0..self.streams.len() {
            match self.look_at(index).await {
                Ok(room) => log_has_room &= index > 0 || room >= MAX_EVENT_BYTES.unsigned_abs().into(),
                Err(trouble) => {
                    let is_gone = matches!(trouble, Trouble::LogGone { .. });
                    troubles.push(trouble);
                    if is_gone {
                        // The others are gone with it, or of use when it is restored.
                        break;
                    }
                }
            }
        }
        let text = troubles.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let is_news = !text.is_empty() && self.logged.as_ref() != Some(&text);
        let may_pass = troubles.iter().all(Trouble::may_pass);
        match () {
            () if troubles.is_empty() => self.keeping.succeeded(),
            () if may_pass => self.keeping.failed(&text),
            () => self.keeping.refused(&text),
        }
        if is_news && may_pass {
            warn!(error = text, "the streams cannot be looked at");
        } else if is_news {
            error!(error = text, "a stream is not as it must be");
        }
        self.logged = (!text.is_empty()).then_some(text);
        troubles.is_empty() && log_has_room
    }

    /// Looks at one stream, makes it again, puts it right. Answers with the room that it has.
    async fn look_at(&mut self, index: usize) -> Result<u64, Trouble> {
        let wanted = &self.streams[index];
        let stream = wanted.name.clone();
        let found = find(&self.js, &stream).await?;
        if stream == subject::EVENTS {
            match &found {
                None => return Err(Trouble::LogGone { stream }),
                Some(found) if found.created != self.began_with => {
                    let (is, was) = (found.created.clone(), self.began_with.clone());
                    return Err(Trouble::LogReplaced { stream, is, was });
                }
                Some(_) => {}
            }
        }
        let found = if let Some(found) = found {
            let changes = found.drift_from(wanted).join("; ");
            if changes.is_empty() {
                found
            } else if self.put_right.insert(format!("{stream}: {changes}")) {
                bring(&self.js, wanted).await?
            } else {
                return Err(Trouble::ChangedAgain { stream, changes });
            }
        } else {
            warn!(stream.name = stream, "the stream is gone, and what it held; it is made again");
            bring(&self.js, wanted).await?
        };
        found.check(wanted)?;
        Self::room(stream, &found)
    }

    fn room(stream: String, found: &Found) -> Result<u64, Trouble> {
        let (bytes, max_bytes) = (found.state.bytes, found.max_bytes());
        gauge!("jetkit_stream_bytes", "stream" => stream.clone()).set(lossy(bytes));
        gauge!("jetkit_stream_max_bytes", "stream" => stream.clone()).set(lossy(max_bytes.unwrap_or(0)));
        match max_bytes {
            Some(max_bytes) if bytes + found.wanted_room(max_bytes) > max_bytes => {
                Err(Trouble::Full { stream, bytes, max_bytes })
            }
            Some(max_bytes) => Ok(max_bytes.saturating_sub(bytes)),
            None => Ok(u64::MAX),
        }
    }

    /// Writes a probe among the snapshots, which keep one value a key, to see whether the server stores anything.
    async fn probe(&self) -> bool {
        let subject = format!("$KV.{SNAPSHOTS}._probe.{}", self.service);
        let probe = Outgoing { subject: subject.into(), headers: HeaderMap::new(), payload: "{}".into() };
        match publish_once(self.log.client(), probe, ANSWER_WITHIN).await {
            Ok(_) => {
                self.probing.succeeded();
                return true;
            }
            Err(failure @ (PublishFailure::Closed(_) | PublishFailure::Refused(_))) => {
                self.probing.refused(failure);
            }
            Err(failure) => self.probing.failed(failure),
        }
        false
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn lossy(n: u64) -> f64 {
    n as f64
}
