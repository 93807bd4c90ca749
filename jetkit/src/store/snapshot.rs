//! Snapshots: an aggregate's state at some version, so that a cold load reads what came after and not everything.
//!
//! A snapshot is a note, never the truth. It is written after an append without delaying its answer, and believed only if
//! it is of this entity and this shape of state and the log holds its last event where it says. A missing or wrong one
//! costs the time to read the history. One that is too large for a message is written in [`parts`].

mod parts;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::header::HeaderMap;
use bytes::Bytes;
use metrics::{counter, gauge};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::{debug, warn};

use self::parts::Parts;
use super::hot::{Hot, REMEMBERED};
use super::pause;
use crate::StoreError;
use crate::log::{Outgoing, Stored};
use crate::streams::SNAPSHOTS;
use crate::subject::MAX_VERSION;
use crate::{Aggregate, EntityId, EventLog};

/// How many snapshots of one kind of aggregate are written at once. Past that one is left out; the next is soon due.
const MAX_WRITING: usize = 8;

/// How long one write may take.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// A large snapshot is written less often: for each event that came since the last one, at most so many bytes. It makes what
/// snapshots write about as much as the events themselves, and a cold load reads one event for each 1,024 bytes of state.
const BYTES_PER_EVENT: u64 = 1024;

/// After how many events a load that is under way writes one.
const MIDWAY: u64 = 100_000;

/// The largest snapshot that is written. One above half of it is counted and logged.
const MAX_BYTES: usize = 128 * 1024 * 1024;

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
    #[serde(default)]
    recent: VecDeque<u32>,
    /// Left out where it is in parts.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    state: Option<S>,
    /// Where the documents are that are too large for one message: the latest first, then those of before that repeated
    /// commands may need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Parts>,
}

/// What is written, and how.
struct Write<A> {
    document: Document<A>,
    begins_block: bool,
    /// How large the one before was.
    before: u64,
    bytes: Arc<std::sync::atomic::AtomicU64>,
}

impl Snapshots {
    /// Writes a snapshot in the background if one is due. Losing it costs nothing but time.
    pub(super) fn offer<A: Aggregate>(&self, log: &EventLog, id: &EntityId, hot: &mut Hot<A>) {
        let bytes = hot.snapshot_bytes.load(Ordering::Relaxed);
        if hot.loaded.version >= hot.snapshot_at + A::SNAPSHOT_EVERY.max(bytes / BYTES_PER_EVENT)
            && let Some(write) = self.begin(log, id, hot)
        {
            tokio::spawn(write);
        }
    }

    /// Writes one during a load that takes long: what it has read is not to be read again after a crash. The load waits for it,
    /// so that nothing is in the way of the one at its end.
    pub(super) async fn write_midway<A: Aggregate>(&self, log: &EventLog, id: &EntityId, hot: &mut Hot<A>) {
        if hot.loaded.version >= hot.snapshot_at + MIDWAY
            && let Some(write) = self.begin(log, id, hot)
        {
            // A load that is dropped meanwhile does not end it.
            drop(tokio::spawn(write).await);
        }
    }

    /// Takes what is to be written; [`None`] if too much is being written already.
    fn begin<A: Aggregate>(
        &self,
        log: &EventLog,
        id: &EntityId,
        hot: &mut Hot<A>,
    ) -> Option<impl Future<Output = ()> + Send + use<A>> {
        {
            let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            if writing.len() >= MAX_WRITING || !writing.insert(id.clone()) {
                return None;
            }
        }
        let begins_block = hot.loaded.version / BLOCK != hot.snapshot_at / BLOCK;
        hot.snapshot_at = hot.loaded.version;
        let document = Document {
            entity: A::ENTITY.to_owned(),
            id: id.clone(),
            state_version: A::STATE_VERSION,
            version: hot.loaded.version,
            sequence: hot.loaded.sequence,
            recent: hot.recent.clone(),
            state: Some(hot.loaded.state.clone()),
            parts: Vec::new(),
        };
        let bytes = Arc::clone(&hot.snapshot_bytes);
        let write = Write { document, begins_block, before: bytes.load(Ordering::Relaxed), bytes };
        let (writing, log, id) = (Arc::clone(&self.writing), log.clone(), id.clone());
        Some(async move {
            let outcome = match write.run(&log).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    warn!(entity = A::ENTITY, entity.id = %id, error = format!("{error:#}"), "no snapshot was written");
                    "failed"
                }
            };
            counter!("jetkit_snapshots_total", "entity" => A::ENTITY, "outcome" => outcome).increment(1);
            writing.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        })
    }
}

impl<A: Aggregate> Write<A> {
    async fn run(self, log: &EventLog) -> anyhow::Result<&'static str> {
        let Self { document, begins_block, before, bytes } = self;
        let head = document.without_state();
        // A large one takes a while. The state is let go as soon as it is written down: who shares it copies it to change it.
        let limit = part_bytes(log);
        let (payload, block) = tokio::task::spawn_blocking(move || {
            let payload = serde_json::to_vec(&document)?;
            let is_kept_as_block = begins_block && payload.len() <= limit;
            let block = Document { recent: VecDeque::new(), ..document };
            let block = is_kept_as_block.then(|| serde_json::to_vec(&block)).transpose()?;
            anyhow::Ok((Bytes::from(payload), block))
        })
        .await??;
        let size = payload.len();
        bytes.store(size as u64, Ordering::Relaxed);
        told::<A>(&head.id, size);
        anyhow::ensure!(
            size <= MAX_BYTES,
            "it has {size} bytes, and {MAX_BYTES} are the most: the state grows without bound; let what is settled leave it"
        );
        if size > limit {
            return parts::write(log, head, payload, limit).await;
        }
        put(log, key(A::ENTITY, &head.id), payload, None).await?;
        if let Some(block) = block {
            put(log, block_key(A::ENTITY, &head.id, head.version / BLOCK), block.into(), None).await?;
        }
        if before > limit as u64 {
            parts::remove_all(log, A::ENTITY, &head.id).await?;
        }
        Ok("written")
    }
}

impl<S> Document<S> {
    fn without_state(&self) -> Document<()> {
        Document {
            entity: self.entity.clone(),
            id: self.id.clone(),
            state_version: self.state_version,
            version: self.version,
            sequence: self.sequence,
            recent: VecDeque::new(),
            state: None,
            parts: Vec::new(),
        }
    }
}

/// The most that one message of a snapshot has: half of what the server takes.
fn part_bytes(log: &EventLog) -> usize {
    (log.client().server_info().max_payload / 2).max(1024)
}

/// Tells how large a snapshot is, and that it nears the limit.
fn told<A: Aggregate>(id: &EntityId, size: usize) {
    gauge!("jetkit_snapshot_bytes", "entity" => A::ENTITY)
        .set(f64::from(u32::try_from(size).unwrap_or(u32::MAX)));
    if size > MAX_BYTES / 2 {
        counter!("jetkit_snapshots_near_limit_total", "entity" => A::ENTITY).increment(1);
        warn!(
            entity = A::ENTITY, entity.id = %id, bytes = size, limit = MAX_BYTES,
            "a snapshot is above half of its limit; past it none is written: let what is settled leave the state"
        );
    }
}

/// Stores one message, only if the last one on its subject is at `after` where that is given.
async fn put(log: &EventLog, subject: String, payload: Bytes, after: Option<u64>) -> anyhow::Result<u64> {
    let mut headers = HeaderMap::new();
    if let Some(after) = after {
        headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, after.to_string());
    }
    let message = Outgoing { subject: subject.into(), headers, payload };
    Ok(log.publish_once(message, WRITE_WITHIN).await?.sequence)
}

/// A snapshot that was found. It is of this entity and of this shape of state.
pub(super) struct Found {
    document: Document<Box<RawValue>>,
    bytes: usize,
}

/// The latest snapshot of an entity. While the log does not answer, there is none to be had, and no reason to read the whole
/// history either.
pub(super) async fn find<A: Aggregate>(log: &EventLog, id: &EntityId) -> Result<Option<Found>, StoreError> {
    get::<A>(log, id, key(A::ENTITY, id)).await
}

impl Found {
    /// Whether it is in parts.
    pub(super) fn is_large(&self) -> bool {
        !self.document.parts.is_empty()
    }

    /// The state in it. [`None`] if it cannot be used.
    pub(super) async fn latest<A: Aggregate>(
        self,
        log: &EventLog,
        id: &EntityId,
    ) -> Result<Option<Hot<A>>, StoreError> {
        let Some(hot) = self.open::<A>(log, id, u64::MAX).await? else { return Ok(None) };
        // With a gap in what is remembered, a command given again would be carried out again.
        if hot.recent.len() as u64 != hot.loaded.version.min(REMEMBERED as u64) {
            discarded::<A>(id, "it does not remember as many events as it must");
            return Ok(None);
        }
        Ok(Some(hot))
    }

    /// The state in it, or in one before it, at `version` or before.
    async fn open<A: Aggregate>(
        self,
        log: &EventLog,
        id: &EntityId,
        version: u64,
    ) -> Result<Option<Hot<A>>, StoreError> {
        if !self.is_large() {
            return Ok((self.document.version <= version).then(|| self.hot(id)).flatten());
        }
        let Some(payload) = parts::read(log, A::ENTITY, id, self.document.parts, version).await? else {
            return Ok(None);
        };
        let of = id.clone();
        let opened = tokio::task::spawn_blocking(move || parse::<A>(&of, &payload)?.hot(&of)).await;
        Ok(opened.ok().flatten())
    }

    fn hot<A: Aggregate>(self, id: &EntityId) -> Option<Hot<A>> {
        let Document { version, sequence, recent, state, .. } = self.document;
        match serde_json::from_str(state.as_deref().map_or("null", RawValue::get)) {
            Ok(state) => {
                let hot = Hot::from_snapshot(state, version, sequence, recent);
                hot.snapshot_bytes.store(self.bytes as u64, Ordering::Relaxed);
                Some(hot)
            }
            Err(error) => {
                discarded::<A>(id, &format!("the state: {error}"));
                None
            }
        }
    }
}

/// A snapshot of an entity at `version` or not long before.
pub(super) async fn at_most<A: Aggregate>(
    log: &EventLog,
    id: &EntityId,
    version: u64,
) -> Result<Option<Hot<A>>, StoreError> {
    if let Some(latest) = find::<A>(log, id).await?
        && let Some(hot) = latest.open(log, id, version).await?
    {
        return Ok(Some(hot));
    }
    let block = version / BLOCK;
    for block in [Some(block), block.checked_sub(1)].into_iter().flatten() {
        if let Some(kept) = get::<A>(log, id, block_key(A::ENTITY, id, block)).await?
            && let Some(hot) = kept.open(log, id, version).await?
        {
            return Ok(Some(hot));
        }
    }
    Ok(None)
}

/// Reads one. Whatever is wrong with it, it is as if it were not there.
async fn get<A: Aggregate>(
    log: &EventLog,
    id: &EntityId,
    subject: String,
) -> Result<Option<Found>, StoreError> {
    let stored = note(log, &subject).await?;
    Ok(stored.and_then(|stored| parse::<A>(id, &stored.payload)))
}

/// Reads one message of the bucket, trying again while the log does not answer: to read the whole history instead would take
/// longer.
async fn note(log: &EventLog, subject: &str) -> Result<Option<Stored>, StoreError> {
    let deadline = Instant::now() + log.deadline();
    loop {
        match log.get_note(&format!("KV_{SNAPSHOTS}"), subject).await {
            Err(StoreError::Unavailable(_)) if Instant::now() < deadline => pause(8).await,
            read => return read,
        }
    }
}

/// Says that a snapshot was not used.
pub(super) fn discarded<A: Aggregate>(id: &EntityId, reason: &str) {
    counter!("jetkit_snapshots_total", "entity" => A::ENTITY, "outcome" => "discarded").increment(1);
    debug!(entity = A::ENTITY, entity.id = %id, reason, "a snapshot is not used");
}

fn parse<A: Aggregate>(id: &EntityId, payload: &[u8]) -> Option<Found> {
    // The state is looked at last: of another version, it may have any shape.
    let document = serde_json::from_slice::<Document<Box<RawValue>>>(payload);
    let document = document.map_err(|error| format!("not a snapshot: {error}")).and_then(|document| {
        if document.entity != A::ENTITY || document.id != *id {
            return Err(format!("it is of {} {}", document.entity, document.id));
        }
        if document.state_version != A::STATE_VERSION {
            return Err(format!("state version {}, here {}", document.state_version, A::STATE_VERSION));
        }
        if !(1..=MAX_VERSION).contains(&document.version) {
            return Err(format!("no entity is at version {}", document.version));
        }
        Ok(document)
    });
    match document {
        Ok(document) => Some(Found { document, bytes: payload.len() }),
        Err(reason) => {
            discarded::<A>(id, &reason);
            None
        }
    }
}

fn key(entity: &str, id: &EntityId) -> String {
    format!("$KV.{SNAPSHOTS}.{entity}.{id}")
}

fn block_key(entity: &str, id: &EntityId, block: u64) -> String {
    format!("$KV.{SNAPSHOTS}.{entity}.{id}.{}", block % BLOCKS)
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::testing::Anything;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Filled {
        shelf_id: EntityId,
    }

    impl crate::Event for Filled {
        const TYPE: &'static str = "shelf.filled";

        fn entity_id(&self) -> &EntityId {
            &self.shelf_id
        }
    }

    crate::events! {
        enum ShelfEvent { Filled(Filled) }
    }

    #[test]
    fn a_snapshot_above_half_of_its_limit_shows_in_a_metric() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let shown = |bytes: usize| {
            metrics::with_local_recorder(&recorder, || {
                told::<Anything<ShelfEvent>>(&EntityId::new("s-1").unwrap(), bytes);
            });
            recorder.handle().render()
        };
        let half = shown(MAX_BYTES / 2);
        assert!(half.contains("jetkit_snapshot_bytes{entity=\"shelf\"} 67108864"), "{half}");
        assert!(!half.contains("near_limit"), "{half}");
        let more = shown(MAX_BYTES / 2 + 1);
        assert!(more.contains("jetkit_snapshots_near_limit_total{entity=\"shelf\"} 1"), "{more}");
    }
}
