//! Streams: created where they are missing, brought up to date where they may be, refused where they may not.
//!
//! Every service does this when it starts, all at the same moment if need be. What a wanted configuration leaves at its
//! default is the operator's to choose and stays as it is; what it says must hold. Subjects are only ever added, because
//! another binary may know more of them, and replicas are only ever raised.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Compression, Config, DiscardPolicy};
use async_nats::jetstream::{self, Context, ErrorCode};
use serde_json::{Map, Value};
use tokio::time::Instant;
use tracing::{debug, info};

use crate::{Catalog, DLQ, TIMERS, subject};

/// The key-value bucket of snapshots. It may be deleted at any time: see [`crate::Aggregate::STATE_VERSION`].
pub const SNAPSHOTS: &str = "SNAPSHOTS";

/// The stream that keeps what the server says about consumers that gave up on a message.
pub const ADVISORIES: &str = "ADVISORIES";

/// How long the server remembers message ids. A publisher's retries must end well before.
pub const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);

/// The largest event, headers and envelope included.
pub const MAX_EVENT_BYTES: i32 = 256 * 1024;

/// The largest dead letter: a message of the largest size that a server takes by default, in JSON with its headers.
pub(crate) const MAX_DEAD_LETTER_BYTES: i32 = 1024 * 1024;

/// How long an advisory is kept.
const ADVISORY_AGE: Duration = Duration::from_hours(30 * 24);

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
    #[error("stream {stream}: the server refused: {source}")]
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
    let js = jetstream::new(client.clone());
    let wanted = [
        events(catalog, replicas),
        dead_letters(replicas),
        timers(replicas),
        snapshots(replicas),
        advisories(replicas),
    ];
    let deadline = Instant::now() + ELECTED_WITHIN;
    for wanted in wanted {
        while let Err(error) = stream(&js, wanted.clone()).await {
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

/// Creates the stream, or brings it to `wanted` as far as the server lets it. Safe to run by many at once.
pub async fn stream(js: &Context, wanted: Config) -> Result<(), ProvisionError> {
    let stream = wanted.name.clone();
    let wanted = Wanted::new(&wanted);
    for _ in 0..ATTEMPTS {
        let Some(current) = ask(js, "INFO", &stream, &Value::Null).await? else {
            if let Some(created) = ask(js, "CREATE", &stream, &wanted.whole).await? {
                info!(stream.name = stream, "stream created");
                return wanted.check_taken(&stream, &created);
            }
            continue;
        };
        let next = wanted.merged_into(&current);
        if next == current {
            return Ok(());
        }
        wanted.check_changeable(&stream, &current)?;
        if let Some(updated) = ask(js, "UPDATE", &stream, &next).await? {
            info!(stream.name = stream, changes = differences(&current, &next).join("; "), "stream updated");
            wanted.check_taken(&stream, &updated)?;
            // Once more around: another process may have written over it with its own union.
        }
    }
    Err(ProvisionError::Contended { stream })
}

/// One request of the JetStream API, as raw JSON so that fields unknown to the client survive an update. [`None`]: the
/// stream appeared or disappeared in between.
async fn ask(
    js: &Context,
    verb: &str,
    stream: &str,
    config: &Value,
) -> Result<Option<Value>, ProvisionError> {
    let answer: Response<Value> = js
        .request(format!("STREAM.{verb}.{stream}"), config)
        .await
        .map_err(|source| ProvisionError::Unavailable { stream: stream.into(), source })?;
    match answer {
        Response::Ok(mut answer) => Ok(Some(answer["config"].take())),
        Response::Err { error }
            if [ErrorCode::STREAM_NOT_FOUND, ErrorCode::STREAM_NAME_EXIST].contains(&error.error_code()) =>
        {
            Ok(None)
        }
        Response::Err { error } => Err(ProvisionError::Server { stream: stream.into(), source: error }),
    }
}

/// A configuration, and which of its fields must hold.
struct Wanted {
    whole: Value,
    /// What it says on purpose: every field that is not at its default, and what decides how messages are kept.
    said: Map<String, Value>,
}

/// Fields that matter even at their defaults.
const ALWAYS: [&str; 2] = ["retention", "storage"];

/// Fields that the server never changes on an existing stream, or (the `deny_` pair) never takes back.
const FIXED: [&str; 4] = ["retention", "storage", "deny_delete", "deny_purge"];

impl Wanted {
    fn new(config: &Config) -> Self {
        let whole = serde_json::to_value(config).unwrap_or_default();
        let default = serde_json::to_value(Config::default()).unwrap_or_default();
        let said = whole.as_object().into_iter().flatten();
        let said = said
            .filter(|(field, value)| {
                // A full stream that refuses messages, instead of deleting old ones, lets none expire either.
                let keeps_all = config.discard == DiscardPolicy::New && *field == "max_age";
                keeps_all || ALWAYS.contains(&field.as_str()) || default.get(field) != Some(value)
            })
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect();
        Self { whole, said }
    }

    /// The current configuration with what was said put into it.
    fn merged_into(&self, current: &Value) -> Value {
        let mut next = current.clone();
        for (field, wanted) in &self.said {
            let value = match field.as_str() {
                "subjects" => union(&current[field], wanted),
                "num_replicas" if current[field].as_u64() >= wanted.as_u64() => continue,
                _ => wanted.clone(),
            };
            next[field] = value;
        }
        next
    }

    fn check_changeable(&self, stream: &str, current: &Value) -> Result<(), ProvisionError> {
        let next = self.merged_into(current);
        let fixed = |field: &str| -> bool {
            // What is denied can be denied later; only the way back is closed.
            FIXED.contains(&field) && !(field.starts_with("deny_") && next[field] == Value::Bool(true))
        };
        let differences = differences_in(current, &next, fixed);
        if differences.is_empty() {
            return Ok(());
        }
        Err(ProvisionError::Refused { stream: stream.into(), differences })
    }

    fn check_taken(&self, stream: &str, taken: &Value) -> Result<(), ProvisionError> {
        let differences = differences(taken, &self.merged_into(taken));
        if differences.is_empty() {
            return Ok(());
        }
        Err(ProvisionError::Ignored { stream: stream.into(), differences })
    }
}

/// Both lists, without what another subject of the list covers.
fn union(current: &Value, wanted: &Value) -> Value {
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let mut union = texts(current);
    for subject in texts(wanted) {
        if !union.iter().any(|pattern| covers(pattern, &subject)) {
            union.retain(|other| !covers(&subject, other));
            union.push(subject);
        }
    }
    union.into()
}

/// Whether every subject that `subject` matches is matched by `pattern` too.
fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

fn differences(current: &Value, next: &Value) -> Vec<String> {
    differences_in(current, next, |_| true)
}

/// `field: is A, must be B`, for people.
fn differences_in(current: &Value, next: &Value, of_interest: impl Fn(&str) -> bool) -> Vec<String> {
    let fields = next.as_object().into_iter().flatten();
    fields
        .filter(|(field, value)| of_interest(field) && current.get(field.as_str()) != Some(value))
        .map(|(field, value)| format!("{field}: is {}, must be {value}", current[field.as_str()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cluster_that_is_still_gathering_is_waited_for() {
        let answered = |code: u16, err_code: u16| {
            let error = json!({ "code": code, "err_code": err_code, "description": "" });
            serde_json::from_value::<jetstream::Error>(error).unwrap()
        };
        for (code, err_code) in [(503, 10008), (503, 10118), (400, 10005)] {
            assert!(is_passing(&answered(code, err_code)), "{code} {err_code}");
        }
        for (code, err_code) in [(400, 10058), (404, 10059), (500, 10047)] {
            assert!(!is_passing(&answered(code, err_code)), "{code} {err_code}");
        }
    }

    #[test]
    fn covering_follows_the_rules_of_subjects() {
        for (pattern, subject) in
            [(">", "order.>"), ("order.>", "order.placed"), ("order.*", "order.*"), ("a.b", "a.b")]
        {
            assert!(covers(pattern, subject), "{pattern} {subject}");
        }
        for (pattern, subject) in
            [("order.>", "order"), ("order.*", "order.>"), ("a.b", "a"), ("a", "a.b"), ("a.>", ">")]
        {
            assert!(!covers(pattern, subject), "{pattern} {subject}");
        }
    }

    #[test]
    fn subjects_are_added_and_never_taken_away() {
        assert_eq!(union(&json!(["a.>", "b.>"]), &json!(["b.>", "c.>"])), json!(["a.>", "b.>", "c.>"]));
        assert_eq!(union(&json!([">"]), &json!(["a.>"])), json!([">"]));
        assert_eq!(union(&json!(["a.x.>", "b.>"]), &json!(["a.>"])), json!(["b.>", "a.>"]));
    }

    #[test]
    fn what_is_left_at_its_default_is_the_operators_to_choose() {
        let wanted = Wanted::new(&Config { name: "S".into(), num_replicas: 1, ..Config::default() });
        let current =
            json!({"name": "S", "retention": "limits", "storage": "file", "num_replicas": 3, "max_age": 7});
        assert_eq!(wanted.merged_into(&current), current);
    }

    #[test]
    fn another_storage_is_refused_with_a_readable_difference() {
        let wanted = Wanted::new(&Config { name: "S".into(), ..Config::default() });
        let current = json!({"name": "S", "retention": "limits", "storage": "memory"});
        let refusal = wanted.check_changeable("S", &current).unwrap_err().to_string();
        assert!(refusal.ends_with(r#"storage: is "memory", must be "file""#), "{refusal}");
    }
}
