//! A snapshot that is too large for one message, cut into parts.
//!
//! The parts are stored first, under a name that no other snapshot has; then the entity's key is set to a document that
//! names them. That one message is the switch: a reader has all parts of one snapshot or of another. It is stored only if
//! the key still holds what it held before the first part, so of two processes that write at once, one wins and the other
//! removes its own parts. What no document names any more is removed by its place: it was stored before.

use async_nats::Request;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{Document, REMEMBERED, SNAPSHOTS, WRITE_WITHIN, key, note, put};
use crate::StoreError;
use crate::log::PublishFailure;
use crate::{EntityId, EventId, EventLog};

/// How many parts are read at once.
const AT_ONCE: usize = 4;

/// How often a snapshot is looked for again that was replaced while it was read.
const LOOKS: usize = 3;

/// Where one snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Parts {
    /// The version of its state.
    version: u64,
    /// The token in the subjects of its parts.
    name: String,
    /// How many there are.
    count: usize,
    /// How many bytes they have together.
    bytes: usize,
    /// The sequence of the first one.
    first: u64,
}

/// Writes a snapshot in parts of at most `limit` bytes, names it in `head`, and removes what is not needed any more.
pub(super) async fn write(
    log: &EventLog,
    mut head: Document<()>,
    payload: Bytes,
    limit: usize,
) -> anyhow::Result<&'static str> {
    let (subject, name) = (key(&head.entity, &head.id), EventId::generate().to_string());
    let before = note(log, &subject).await?;
    let at = before.as_ref().map_or(0, |before| before.sequence);
    let count = payload.len().div_ceil(limit);
    let mut first = 0;
    for number in 0..count {
        let part = payload.slice(number * limit..payload.len().min((number + 1) * limit));
        let sequence = put(log, part_key(&head.entity, &head.id, &name, number), part, None).await?;
        first = if number == 0 { sequence } else { first };
    }
    head.parts =
        vec![Parts { version: head.version, name: name.clone(), count, bytes: payload.len(), first }];
    let (needed, unneeded) = before.map(|before| split_by_need(&before.payload, &head)).unwrap_or_default();
    head.parts.extend(needed);
    let oldest = head.parts.iter().map(|parts| parts.first).min();
    let of_name = |name: &str| format!("{}.parts.{name}.>", key(&head.entity, &head.id));
    match put(log, subject, serde_json::to_vec(&head)?.into(), Some(at)).await {
        Ok(_) => {
            for parts in unneeded {
                remove(log, &of_name(&parts.name), None).await?;
            }
            // And what a process left behind that was killed before it named its parts.
            remove(log, &format!("{}.parts.>", key(&head.entity, &head.id)), oldest).await?;
            Ok("written_in_parts")
        }
        Err(error) => {
            remove(log, &of_name(&name), None).await?;
            let superseded = matches!(error.downcast_ref(), Some(PublishFailure::Conflict));
            if superseded { Ok("superseded") } else { Err(error) }
        }
    }
}

/// Tells the snapshots of before from which a repeated command's first answer may have to be added up from the others: they
/// reach as far back as commands are remembered.
fn split_by_need(before: &[u8], head: &Document<()>) -> (Vec<Parts>, Vec<Parts>) {
    let Ok(before) = serde_json::from_slice::<Document<IgnoredAny>>(before) else {
        return Default::default();
    };
    let same_state = before.state_version == head.state_version;
    let reach = head.version.saturating_sub(REMEMBERED as u64);
    let mut newer = head.version;
    before.parts.into_iter().partition(|parts| {
        let needed = same_state && parts.version < newer && newer > reach;
        newer = newer.min(parts.version);
        needed
    })
}

/// Reads the latest snapshot at `version` or before. [`None`] if there is none, or some of it is missing.
pub(super) async fn read(
    log: &EventLog,
    entity: &str,
    id: &EntityId,
    mut named: Vec<Parts>,
    version: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    for _ in 0..LOOKS {
        let Some(parts) = named.iter().find(|parts| parts.version <= version) else { return Ok(None) };
        if let Some(payload) = gather(log, entity, id, parts).await? {
            return Ok(Some(payload));
        }
        debug!(entity, entity.id = %id, version = parts.version, "a part of a snapshot is not there");
        // It was replaced in the meantime, or somebody has deleted a part.
        let now = note(log, &key(entity, id)).await?;
        let now = now.and_then(|now| serde_json::from_slice::<Document<IgnoredAny>>(&now.payload).ok());
        named = now.map(|now| now.parts).filter(|now| *now != named).unwrap_or_default();
    }
    Ok(None)
}

/// Reads all parts of one snapshot; [`None`] if one is missing.
async fn gather(
    log: &EventLog,
    entity: &str,
    id: &EntityId,
    parts: &Parts,
) -> Result<Option<Vec<u8>>, StoreError> {
    let subjects = (0..parts.count).map(|number| part_key(entity, id, &parts.name, number));
    let mut read =
        stream::iter(subjects).map(|subject| async move { note(log, &subject).await }).buffered(AT_ONCE);
    let mut payload = Vec::with_capacity(parts.bytes.min(super::MAX_BYTES));
    while let Some(part) = read.try_next().await? {
        let Some(part) = part else { return Ok(None) };
        payload.extend_from_slice(&part.payload);
    }
    Ok((payload.len() == parts.bytes).then_some(payload))
}

/// Removes every part of an entity.
pub(super) async fn remove_all(log: &EventLog, entity: &str, id: &EntityId) -> anyhow::Result<()> {
    remove(log, &format!("{}.parts.>", key(entity, id)), None).await
}

/// Removes the messages on these subjects, only those before a sequence where that is given.
async fn remove(log: &EventLog, subjects: &str, before: Option<u64>) -> anyhow::Result<()> {
    let mut query = serde_json::json!({ "filter": subjects });
    if let Some(before) = before {
        query["seq"] = before.into();
    }
    let request = Request::new().payload(query.to_string().into()).timeout(Some(WRITE_WITHIN));
    let answer = log.client().send_request(format!("$JS.API.STREAM.PURGE.KV_{SNAPSHOTS}"), request).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
    anyhow::ensure!(answer["success"] == true, "old parts could not be removed: {}", answer["error"]);
    Ok(())
}

fn part_key(entity: &str, id: &EntityId, name: &str, number: usize) -> String {
    format!("{}.parts.{name}.{number}", key(entity, id))
}
