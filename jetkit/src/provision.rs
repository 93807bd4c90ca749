//! Streams: created where they are missing, brought up to date where they may be, refused where they may not.
//!
//! Every service does this when it starts, all at the same moment if need be. Each field of a stream has an owner (the
//! table of owners below): ours are put back, the operator's are kept, and a difference that the server cannot change is refused. Subjects
//! are only ever added, because another binary may know more of them; replicas and sizes are only ever raised.

#[cfg(feature = "service")]
mod keeper;
mod sizes;

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Compression, Config, DiscardPolicy};
use async_nats::jetstream::{self, Context, ErrorCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::drift::{Moment, Owners, Wanted, differences, owners};
use crate::streams::{DLQ, MAX_DEAD_LETTER_BYTES, TIMERS};
use crate::{Catalog, subject};

#[cfg(feature = "service")]
pub(crate) use self::keeper::StreamKeeper;
pub use self::sizes::Sizes;
pub use crate::streams::{ADVISORIES, DUPLICATE_WINDOW, MAX_EVENT_BYTES, SNAPSHOTS};

/// How long an advisory is kept.
const ADVISORY_AGE: Duration = Duration::from_hours(30 * 24);

/// With less room than this a stream counts as full: about one event.
const ROOM: u64 = 1024;

/// How often to look again when another process changed the stream in between.
const ATTEMPTS: usize = 10;

/// Why a stream is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The stream exists and differs in something that cannot be changed.
    #[error("stream {stream} exists and cannot be changed to what this program needs: {}", .differences.join("; "))]
    Refused {
        /// The stream.
        stream: String,
        /// Field, what it is, what it must be.
        differences: Vec<String>,
    },
    /// The server took the configuration and kept another one. An old server does this.
    #[error("the server did not take all of stream {stream}'s configuration: {}", .differences.join("; "))]
    Ignored {
        /// The stream.
        stream: String,
        /// Field, what it is, what it must be.
        differences: Vec<String>,
    },
    /// The server said no.
    #[error("stream {stream}: the server refused: {source}{}", hint(.source))]
    Server {
        /// The stream.
        stream: String,
        /// What it said.
        source: jetstream::Error,
    },
    /// The server could not be asked.
    #[error("stream {stream}: no answer from JetStream; is it enabled on the server?")]
    Unavailable {
        /// The stream.
        stream: String,
        /// Why.
        source: async_nats::jetstream::context::RequestError,
    },
    /// It kept changing while we looked.
    #[error("stream {stream} is changed by others all the time")]
    Contended {
        /// The stream.
        stream: String,
    },
}

impl ProvisionError {
    /// Whether JetStream did not answer, or said that it cannot now: then it may in a while.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Server { source, .. } => {
                let never = [ErrorCode::JETSTREAM_NOT_ENABLED, ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT];
                is_passing(source) && !never.contains(&source.error_code())
            }
            Self::Refused { .. } | Self::Ignored { .. } | Self::Contended { .. } => false,
        }
    }
}

/// What to do about a refusal, where the server does not say it.
fn hint(refusal: &jetstream::Error) -> &'static str {
    match refusal.error_code() {
        ErrorCode::STREAM_MAX_BYTES_REQUIRED => "; say how large streams may become, with STREAM_MAX_MIB",
        _ => "",
    }
}

/// Whether JetStream says that it cannot now: it has no leader, or too few of a cluster's servers are there to keep a
/// copy each (10005, which comes as a bad request).
pub(crate) fn is_passing(error: &jetstream::Error) -> bool {
    error.code() == 503 || error.error_code() == ErrorCode::CLUSTER_NO_PEERS
}

/// How long a cluster may take to elect who answers, and how long to wait between two looks.
const ELECTED_WITHIN: Duration = Duration::from_secs(30);
const ELECTED_PAUSE: Duration = Duration::from_millis(250);

/// Creates or updates the streams of a deployment: the events of `catalog`, the dead letters, the timers, the
/// snapshots, the advisories. A cluster that is still electing its leaders is waited for, up to half a minute.
pub async fn streams(client: &Client, catalog: &Catalog, replicas: usize) -> Result<(), ProvisionError> {
    bring_all(client, &deployment(catalog, replicas, &Sizes::default())).await
}

/// What [`streams`] creates, the event log first.
pub(crate) fn deployment(catalog: &Catalog, replicas: usize, sizes: &Sizes) -> Vec<Config> {
    let streams = [
        events(catalog, replicas),
        dead_letters(replicas),
        timers(replicas),
        snapshots(replicas),
        advisories(replicas),
    ];
    streams.into_iter().map(|stream| sizes.limit(stream)).collect()
}

pub(crate) async fn bring_all(client: &Client, streams: &[Config]) -> Result<(), ProvisionError> {
    let js = jetstream::new(client.clone());
    let deadline = Instant::now() + ELECTED_WITHIN;
    for wanted in streams {
        while let Err(error) = bring(&js, wanted).await {
            if !error.may_pass() || Instant::now() >= deadline {
                return Err(error);
            }
            debug!(%error, "no stream yet; trying again");
            tokio::time::sleep(ELECTED_PAUSE).await;
        }
    }
    Ok(())
}

/// The stream of every domain event. Nothing in it is ever deleted or expires: it is the system's memory.
pub fn events(catalog: &Catalog, replicas: usize) -> Config {
    Config {
        name: subject::EVENTS.into(),
        description: Some("Every domain event: the event store and the event bus".into()),
        subjects: catalog.subjects(),
        num_replicas: replicas,
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        allow_atomic_publish: true,
        duplicate_window: DUPLICATE_WINDOW,
        max_message_size: MAX_EVENT_BYTES,
        compression: Some(Compression::S2),
        // Full, it refuses what is new. What is old is kept, whatever limits somebody has set.
        discard: DiscardPolicy::New,
        max_messages: -1,
        max_messages_per_subject: -1,
        ..Config::default()
    }
}

/// The stream of dead letters. Single ones are not deleted (their answers are recorded), a purge is the operator's.
pub fn dead_letters(replicas: usize) -> Config {
    Config {
        name: DLQ.into(),
        description: Some("Messages that a consumer gave up, whole, with the reason".into()),
        subjects: vec!["dlq.>".into()],
        num_replicas: replicas,
        deny_delete: true,
        allow_direct: true,
        duplicate_window: DUPLICATE_WINDOW,
        max_message_size: MAX_DEAD_LETTER_BYTES,
        compression: Some(Compression::S2),
        discard: DiscardPolicy::New,
        ..Config::default()
    }
}

/// The stream of timers: set on `timer.set.>`, and put on `timer.due.>` by the server when their time has come.
pub fn timers(replicas: usize) -> Config {
    Config {
        name: TIMERS.into(),
        description: Some("Timers that are set, and those that are due".into()),
        subjects: vec!["timer.>".into()],
        num_replicas: replicas,
        // Like the events that they are; a larger one would have no room in a dead letter.
        max_message_size: MAX_EVENT_BYTES,
        allow_message_schedules: true,
        allow_message_ttl: true,
        allow_rollup: true,
        allow_direct: true,
        ..Config::default()
    }
}

/// The bucket of snapshots, as the stream that it is: one value a key, laid out as a key-value bucket so that the `nats`
/// command shows it.
pub fn snapshots(replicas: usize) -> Config {
    Config {
        name: format!("KV_{SNAPSHOTS}"),
        description: Some("States of aggregates, to load them faster; may be deleted".into()),
        subjects: vec![format!("$KV.{SNAPSHOTS}.>")],
        num_replicas: replicas,
        max_messages_per_subject: 1,
        allow_direct: true,
        allow_rollup: true,
        deny_delete: true,
        compression: Some(Compression::S2),
        ..Config::default()
    }
}

/// The stream of advisories: the server tells them once, to whoever listens.
pub fn advisories(replicas: usize) -> Config {
    let of = |what: &str| format!("$JS.EVENT.ADVISORY.CONSUMER.{what}.>");
    Config {
        name: ADVISORIES.into(),
        description: Some("Messages that the server stopped delivering".into()),
        subjects: vec![of("MAX_DELIVERIES"), of("MSG_TERMINATED")],
        num_replicas: replicas,
        max_age: ADVISORY_AGE,
        allow_direct: true,
        ..Config::default()
    }
}

/// Whose each field of a stream is. `docs/operations.md` lists those that are the operator's.
const OWNERS: Owners = owners! {
    name: Fixed,
    max_bytes: AtLeast,
    max_messages as "max_msgs": OursToKeep,
    max_messages_per_subject as "max_msgs_per_subject": Ours,
    discard: Ours,
    discard_new_per_subject: Ours,
    subjects: Union,
    retention: Fixed,
    max_consumers: Operators,
    max_age: OursToKeep,
    max_message_size as "max_msg_size": Ours,
    storage: Fixed,
    num_replicas: AtLeast,
    no_ack: Ours,
    duplicate_window: OursIfSaid,
    template_owner: Operators,
    sealed: Fixed,
    description: OursIfSaid,
    allow_rollup as "allow_rollup_hdrs": OursUnlessScheduled,
    // What is denied can be denied later; only the way back is closed.
    deny_delete: OursIfSaid,
    deny_purge: OursIfSaid,
    republish: Operators,
    allow_direct: Ours,
    mirror_direct: Operators,
    mirror: Fixed,
    sources: Ours,
    metadata: Operators,
    subject_transform: Ours,
    compression: OursIfSaid,
    consumer_limits: Ours,
    first_sequence as "first_seq": Operators,
    placement: Operators,
    persist_mode: Fixed,
    pause_until: Operators,
    // The server turns these two on and never off.
    allow_message_ttl as "allow_msg_ttl": OursIfSaid,
    allow_message_schedules as "allow_msg_schedules": OursIfSaid,
    subject_delete_marker_ttl: Ours,
    allow_atomic_publish as "allow_atomic": OursIfSaid,
    allow_message_counter as "allow_msg_counter": Fixed,
    allow_batch_publish as "allow_batched": Operators,
};

/// Creates the stream, or brings it to `wanted` as far as the server lets it. Safe to run by many at once.
pub async fn stream(js: &Context, wanted: Config) -> Result<(), ProvisionError> {
    bring(js, &wanted).await.map(drop)
}

/// A stream as the server has it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Found {
    /// When it was created. Another time is another stream.
    pub(crate) created: String,
    config: Value,
    state: Kept,
}

/// What a stream holds.
#[derive(Debug, Clone, Deserialize)]
struct Kept {
    bytes: u64,
}

impl Found {
    /// What can be put right.
    fn drift_from(&self, wanted: &Config) -> Vec<String> {
        differences(&self.config, &as_wanted(wanted).merged_into(&self.config, Moment::Running))
    }

    /// Refuses what cannot be put right.
    fn check(&self, wanted: &Config) -> Result<(), ProvisionError> {
        check_changeable(&as_wanted(wanted), &wanted.name, &self.config)
    }

    fn max_bytes(&self) -> Option<u64> {
        self.config["max_bytes"].as_u64().filter(|bytes| *bytes > 0)
    }

    /// How many bytes must be left for the stream to be of use. (The server lets no stream of schedules refuse what is new:
    /// full, it would lose the timer that was set first.)
    fn wanted_room(&self, max_bytes: u64) -> u64 {
        match (self.config["discard"] == "new", self.config["allow_msg_schedules"] == true) {
            (true, _) => ROOM,
            (false, true) => max_bytes / 10,
            (false, false) => 0,
        }
    }
}

fn as_wanted(config: &Config) -> Wanted {
    Wanted::new(serde_json::to_value(config).unwrap_or_default(), OWNERS)
}

fn check_changeable(wanted: &Wanted, stream: &str, current: &Value) -> Result<(), ProvisionError> {
    let differences = wanted.refused(current, Moment::Start);
    if differences.is_empty() {
        Ok(())
    } else {
        Err(ProvisionError::Refused { stream: stream.into(), differences })
    }
}

/// Creates the stream, or brings it to `wanted`, and tells what there is now.
pub(crate) async fn bring(js: &Context, wanted: &Config) -> Result<Found, ProvisionError> {
    let stream = wanted.name.clone();
    let wanted = as_wanted(wanted);
    for _ in 0..ATTEMPTS {
        let Some(found) = find(js, &stream).await? else {
            if let Some(created) = ask(js, "CREATE", &stream, &wanted.config).await? {
                info!(stream.name = stream, "stream created");
                check_taken(&wanted, &stream, &created.config)?;
                return Ok(created);
            }
            continue;
        };
        let current = &found.config;
        check_changeable(&wanted, &stream, current)?;
        let next = wanted.merged_into(current, Moment::Start);
        if next == *current {
            return Ok(found);
        }
        if let Some(updated) = ask(js, "UPDATE", &stream, &next).await? {
            info!(stream.name = stream, changes = differences(current, &next).join("; "), "stream updated");
            check_taken(&wanted, &stream, &updated.config)?;
            // Once more around: another process may have written over it with its own union.
        }
    }
    Err(ProvisionError::Contended { stream })
}

/// The stream as it is; [`None`] if there is none.
pub(crate) async fn find(js: &Context, stream: &str) -> Result<Option<Found>, ProvisionError> {
    ask(js, "INFO", stream, &Value::Null).await
}

/// One request of the JetStream API, as raw JSON so that fields unknown to the client survive an update. [`None`]: the
/// stream appeared or disappeared in between.
async fn ask(
    js: &Context,
    verb: &str,
    stream: &str,
    config: &Value,
) -> Result<Option<Found>, ProvisionError> {
    let answer: Response<Found> = js
        .request(format!("STREAM.{verb}.{stream}"), config)
        .await
        .map_err(|source| ProvisionError::Unavailable { stream: stream.into(), source })?;
    match answer {
        Response::Ok(found) => Ok(Some(found)),
        Response::Err { error }
            if [ErrorCode::STREAM_NOT_FOUND, ErrorCode::STREAM_NAME_EXIST].contains(&error.error_code()) =>
        {
            Ok(None)
        }
        Response::Err { error } => Err(ProvisionError::Server { stream: stream.into(), source: error }),
    }
}

fn check_taken(wanted: &Wanted, stream: &str, taken: &Value) -> Result<(), ProvisionError> {
    let differences = differences(taken, &wanted.merged_into(taken, Moment::Start));
    if differences.is_empty() {
        return Ok(());
    }
    Err(ProvisionError::Ignored { stream: stream.into(), differences })
}

#[cfg(test)]
mod tests;
