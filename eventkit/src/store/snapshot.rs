//! Snapshots: an aggregate's state at some version, so that a cold load reads what came after and not everything.
//!
//! A snapshot is a note, never the truth. It is written after an append without delaying its answer, and believed only if
//! it is of this entity and this shape of state and the log holds its last event where it says. A missing or wrong one
//! costs the time to read the history.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::header::HeaderMap;
use metrics::counter;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tracing::{debug, warn};

use super::hot::{Hot, REMEMBERED};
use crate::log::{Outgoing, StoreError};
use crate::provision::SNAPSHOTS;
use crate::subject::MAX_VERSION;
use crate::{Aggregate, EntityId, EventLog};

/// How many snapshots of one kind of aggregate are written at once. Past that one is left out; the next is soon due.
const MAX_WRITING: usize = 8;

/// How long one write may take.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// Besides the latest snapshot, one of each block of so many versions is kept, for the latest blocks: what answers a
/// repeated command with the state after its first run must not read the whole history. Together they reach further back than
/// commands are remembered.
const BLOCK: u64 = 512;
const BLOCKS: u64 = 10;
const _: () = assert!(BLOCK * (BLOCKS - 2) >= REMEMBERED as u64);

/// Writes the snapshots of one kind of aggregate.
#[derive(Debug, Default, Clone)]
pub(super) struct Snapshots {
    writing: Arc<Mutex<HashSet<EntityId>>>,
}

/// The value of one key.
#[derive(Serialize, Deserialize)]
struct Document<S> {
    entity: String,
    id: EntityId,
    state_version: u32,
    version: u64,
    sequence: u64,
    /// Fingerprints of the latest event ids, oldest first; none in the snapshot of a block.
    recent: VecDeque<u32>,
    state: S,
}

impl Snapshots {
    /// Writes a snapshot in the background if one is due. Losing it costs nothing but time.
    pub(super) fn offer<A: Aggregate>(&self, log: &EventLog, id: &EntityId, hot: &mut Hot<A>) {
        if hot.loaded.version < hot.snapshot_at + A::SNAPSHOT_EVERY {
            return;
        }
        let begins_block = hot.loaded.version / BLOCK != hot.snapshot_at / BLOCK;
        {
            let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            if writing.len() >= MAX_WRITING || !writing.insert(id.clone()) {
                return;
            }
        }
        hot.snapshot_at = hot.loaded.version;
        let document = Document {
            entity: A::ENTITY.to_owned(),
            id: id.clone(),
            state_version: A::STATE_VERSION,
            version: hot.loaded.version,
            sequence: hot.loaded.sequence,
            recent: hot.recent.clone(),
            state: hot.loaded.state.clone(),
        };
        let (writing, log, id) = (Arc::clone(&self.writing), log.clone(), id.clone());
        tokio::spawn(async move {
            let outcome = match write(&log, document, begins_block).await {
                Ok(()) => "written",
                Err(error) => {
                    warn!(entity = A::ENTITY, entity.id = %id, error = format!("{error:#}"), "no snapshot was written");
                    "failed"
                }
            };
            counter!("eventkit_snapshots_total", "entity" => A::ENTITY, "outcome" => outcome).increment(1);
            writing.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        });
    }
}

async fn write<A: Aggregate>(
    log: &EventLog,
    mut document: Document<A>,
    begins_block: bool,
) -> anyhow::Result<()> {
    put(log, key(A::ENTITY, &document.id), &document).await?;
    if begins_block {
        document.recent.clear();
        put(log, block_key(A::ENTITY, &document.id, document.version / BLOCK), &document).await?;
    }
    Ok(())
}

async fn put<A: Aggregate>(log: &EventLog, subject: String, document: &Document<A>) -> anyhow::Result<()> {
    let payload = serde_json::to_vec(document)?;
    let limit = log.client().server_info().max_payload;
    anyhow::ensure!(
        payload.len() <= limit,
        "it has {} bytes and the server takes {limit}: the state grows without bound, or max_payload is too small",
        payload.len()
    );
    let message = Outgoing { subject: subject.into(), headers: HeaderMap::new(), payload: payload.into() };
    log.publish_once(message, WRITE_WITHIN).await?;
    Ok(())
}

/// The latest snapshot of an entity.
pub(super) async fn latest<A: Aggregate>(log: &EventLog, id: &EntityId) -> Option<Hot<A>> {
    let hot: Hot<A> = get(log, id, key(A::ENTITY, id)).await?;
    // With a gap in what is remembered, a command given again would be carried out again.
    if hot.recent.len() as u64 != hot.loaded.version.min(REMEMBERED as u64) {
        discarded::<A>(id, "it does not remember as many events as it must");
        return None;
    }
    Some(hot)
}

/// A snapshot of an entity at `version` or not long before.
pub(super) async fn at_most<A: Aggregate>(log: &EventLog, id: &EntityId, version: u64) -> Option<Hot<A>> {
    let fits = |hot: &Hot<A>| hot.loaded.version <= version;
    if let Some(latest) = latest(log, id).await.filter(fits) {
        return Some(latest);
    }
    let block = version / BLOCK;
    for block in [Some(block), block.checked_sub(1)].into_iter().flatten() {
        if let Some(kept) = get(log, id, block_key(A::ENTITY, id, block)).await.filter(fits) {
            return Some(kept);
        }
    }
    None
}

/// Reads one. Whatever is wrong with it, it is as if it were not there.
async fn get<A: Aggregate>(log: &EventLog, id: &EntityId, subject: String) -> Option<Hot<A>> {
    let stored = match log.get_last_of_stream(&format!("KV_{SNAPSHOTS}"), &subject).await {
        Ok(stored) => stored?,
        Err(error @ StoreError::Unavailable(_)) => {
            debug!(entity = A::ENTITY, entity.id = %id, %error, "no snapshot could be read");
            return None;
        }
        Err(_) => return None,
    };
    match read(id, &stored.payload) {
        Ok(hot) => Some(hot),
        Err(reason) => {
            discarded::<A>(id, &reason);
            None
        }
    }
}

/// Says that a snapshot was not used.
pub(super) fn discarded<A: Aggregate>(id: &EntityId, reason: &str) {
    counter!("eventkit_snapshots_total", "entity" => A::ENTITY, "outcome" => "discarded").increment(1);
    debug!(entity = A::ENTITY, entity.id = %id, reason, "a snapshot is not used");
}

fn read<A: Aggregate>(id: &EntityId, payload: &[u8]) -> Result<Hot<A>, String> {
    // The state is looked at last: of another version, it may have any shape.
    let document: Document<Box<RawValue>> =
        serde_json::from_slice(payload).map_err(|error| format!("not a snapshot: {error}"))?;
    if document.entity != A::ENTITY || document.id != *id {
        return Err(format!("it is of {} {}", document.entity, document.id));
    }
    if document.state_version != A::STATE_VERSION {
        return Err(format!("state version {}, here {}", document.state_version, A::STATE_VERSION));
    }
    if !(1..=MAX_VERSION).contains(&document.version) {
        return Err(format!("no entity is at version {}", document.version));
    }
    let state = serde_json::from_str(document.state.get()).map_err(|error| format!("the state: {error}"))?;
    let (version, sequence) = (document.version, document.sequence);
    Ok(Hot::from_snapshot(state, version, sequence, document.recent))
}

fn key(entity: &str, id: &EntityId) -> String {
    format!("$KV.{SNAPSHOTS}.{entity}.{id}")
}

fn block_key(entity: &str, id: &EntityId, block: u64) -> String {
    format!("$KV.{SNAPSHOTS}.{entity}.{id}.{}", block % BLOCKS)
}
