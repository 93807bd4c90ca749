//! The event store: an aggregate's history is read from the log, and a decision is appended to it.
//!
//! Stored is published: there is no second write. See docs/decisions for why the version is in the subject.

mod history;
mod snapshot;

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::header::HeaderMap;
use lru::LruCache;
use tokio::time::Instant;

use self::history::History;
use self::snapshot::Snapshots;
use crate::log::{Ack, Outgoing, PublishFailure, StoreError, Stored};
use crate::{Aggregate, Cause, EntityId, EventId, EventLog, EventSet, Recorded, subject};

/// How often a decision is taken anew because another writer came first. In one process commands to one entity queue,
/// so this counts other processes only.
const MAX_CONFLICTS: u32 = 64;

/// How many entities are kept in memory.
const HOT: usize = 1024;

/// How many of an entity's latest event ids are remembered, to recognise a command given again.
const REMEMBERED: usize = 4096;

/// How many versions are read together with the snapshot, which a young entity does not have: one round trip for both.
const FIRST: u64 = 32;

/// How many versions are read at once to find the events of one decision.
const DECISION: u64 = 8;

/// The aggregates of one kind. Cheap to clone; clones share the entities kept in memory.
pub struct EventStore<A: Aggregate> {
    log: EventLog,
    hot: Arc<Mutex<LruCache<EntityId, Slot<A>>>>,
    snapshots: Snapshots,
}

/// One entity in memory. Whoever holds the lock gives it a command; it is empty until it is loaded.
type Slot<A> = Arc<tokio::sync::Mutex<Option<Hot<A>>>>;

impl<A: Aggregate> Clone for EventStore<A> {
    fn clone(&self) -> Self {
        Self { log: self.log.clone(), hot: Arc::clone(&self.hot), snapshots: self.snapshots.clone() }
    }
}

impl<A: Aggregate> fmt::Debug for EventStore<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStore").field("entity", &A::ENTITY).finish_non_exhaustive()
    }
}

/// An aggregate's state at one version.
#[derive(Debug, Clone)]
pub struct Loaded<A> {
    /// The state.
    pub state: A,
    /// How many events it is the sum of; 0 if the entity never existed.
    pub version: u64,
    /// The position on the log of the last of them; 0 if there is none.
    pub sequence: u64,
}

/// What a command led to.
#[derive(Debug, Clone)]
pub struct Executed<A: Aggregate> {
    /// The state after it.
    pub state: A,
    /// The entity's version after it.
    pub version: u64,
    /// The position on the log of the entity's last event.
    pub sequence: u64,
    /// What was recorded; nothing if it was already so.
    pub events: Vec<A::Event>,
    /// The command had been carried out before, for the same cause: nothing was written now, and the rest is the answer
    /// of then.
    pub repeated: bool,
}

impl<A: Aggregate> EventStore<A> {
    pub(crate) fn new(log: EventLog) -> Self {
        const { assert!(A::SNAPSHOT_EVERY >= 1 && A::SNAPSHOT_EVERY <= 500, "SNAPSHOT_EVERY is 1 to 500") };
        let capacity = NonZeroUsize::new(HOT).unwrap_or(NonZeroUsize::MIN);
        Self { log, hot: Arc::new(Mutex::new(LruCache::new(capacity))), snapshots: Snapshots::default() }
    }

    /// The log that it is kept on.
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// The state as the log has it now. An entity that never existed is `A::default()` at version 0.
    pub async fn load(&self, id: &EntityId) -> Result<Loaded<A>, StoreError> {
        self.fold(id).await.map(|hot| hot.loaded)
    }

    /// The same of an entity that must exist.
    pub async fn get(&self, id: &EntityId) -> Result<Loaded<A>, StoreError> {
        let loaded = self.load(id).await?;
        let found = loaded.version > 0;
        found.then_some(loaded).ok_or_else(|| StoreError::NotFound { entity: A::ENTITY, id: id.clone() })
    }

    /// The state as it was at `version`; as it is now if the entity has not come so far.
    pub async fn load_at(&self, id: &EntityId, version: u64) -> Result<Loaded<A>, StoreError> {
        if let Some(hot) = snapshot::at_most(&self.log, id, version).await
            && let Some(hot) = self.catch_up(id, hot, version).await?
        {
            return Ok(hot.loaded);
        }
        let read = self.history_of(id).versions(1, version).await?;
        Ok(Hot::default().with_all(read)?.loaded)
    }

    /// Everything that happened to an entity, in order.
    pub async fn history(&self, id: &EntityId) -> Result<Vec<Recorded<A::Event>>, StoreError> {
        self.history_from(id, 1).await
    }

    /// What happened to an entity from `version` on, in order. What came before is not read.
    pub async fn history_from(
        &self,
        id: &EntityId,
        version: u64,
    ) -> Result<Vec<Recorded<A::Event>>, StoreError> {
        let read = self.history_of(id).versions(version.max(1), u64::MAX).await?;
        read.stored.iter().map(Stored::decode).collect()
    }

    /// Carries out a command: load, decide, append; if another writer came first, once more from the start.
    ///
    /// Given again for the same cause, a command answers with its first result and writes nothing, however much has
    /// happened since (as far back as the entity's latest 4,096 events). One cause may lead to one command per entity;
    /// a further one needs [`Cause::step`].
    pub async fn execute(
        &self,
        id: &EntityId,
        command: &A::Command,
        cause: &Cause,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        self.run(id, None, command, cause).await.inspect(|executed| self.note_written(executed))
    }

    /// The same, only if the entity is at `version` (0: only if it does not exist).
    pub async fn execute_at(
        &self,
        id: &EntityId,
        version: u64,
        command: &A::Command,
        cause: &Cause,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        self.run(id, Some(version), command, cause).await.inspect(|executed| self.note_written(executed))
    }

    /// Reads of this process include what it has written: see [`crate::ReadModel::at`].
    fn note_written(&self, executed: &Executed<A>) {
        // The events of one decision stand next to each other.
        for (event, back) in executed.events.iter().rev().zip(0..) {
            self.log.written().note(event.kind().0, executed.sequence - back);
        }
    }

    async fn run(
        &self,
        id: &EntityId,
        expected: Option<u64>,
        command: &A::Command,
        cause: &Cause,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        let slot = self.slot(id);
        let mut slot = slot.lock().await;
        let deadline = Instant::now() + self.log.deadline();
        let first_id = cause.event_id(A::ENTITY, id, 0);
        let mut conflicts = 0;
        loop {
            // Taken out of its slot: unless the append is certain, the next command loads it again.
            let (hot, fresh) = match slot.take() {
                Some(hot) => (hot, false),
                None => (self.fold(id).await?, true),
            };
            let decision = hot.loaded.state.decide(command);
            for version in hot.perhaps_at(&first_id) {
                if let Some(first) =
                    self.answer_again(id, version, &first_id, cause, decision.as_deref().ok()).await?
                {
                    *slot = Some(hot);
                    return Ok(first);
                }
            }
            let appends = decision.as_ref().is_ok_and(|events| !events.is_empty());
            // An append is checked by the server. Any other answer must not be given from memory: another process may have
            // written since.
            let from_memory = !fresh && (!appends || expected.is_some());
            if from_memory && self.is_past(id, hot.loaded.version).await? {
                continue;
            }
            if let Some(expected) = expected.filter(|expected| *expected != hot.loaded.version) {
                let actual = hot.loaded.version;
                *slot = Some(hot);
                return Err(ExecuteError::VersionMismatch { expected, actual });
            }
            let events = match decision {
                Ok(events) => events,
                Err(rejection) => {
                    *slot = Some(hot);
                    return Err(ExecuteError::Rejected(rejection));
                }
            };
            if events.is_empty() {
                let Loaded { state, version, sequence } = hot.loaded.clone();
                *slot = Some(hot);
                return Ok(Executed { state, version, sequence, events, repeated: false });
            }
            let (version, appended) = (hot.loaded.version, events.len() as u64);
            if let Some(found) = hot.beyond.filter(|found| *found <= version + appended) {
                return Err(StoreError::Blocked {
                    entity: A::ENTITY,
                    id: id.clone(),
                    expected: version + 1,
                    found,
                }
                .into());
            }
            match self.append(id, version, &events, cause).await {
                Ok((ids, Ack { sequence, duplicate: false })) => {
                    let hot = slot.insert(hot.after(&events, &ids, sequence));
                    self.snapshots.offer(&self.log, id, hot);
                    let Loaded { state, version, sequence } = hot.loaded.clone();
                    return Ok(Executed { state, version, sequence, events, repeated: false });
                }
                // A duplicate: stored by an earlier attempt, or the id is somebody else's. The reload will tell.
                Ok((_, Ack { duplicate: true, .. })) | Err(PublishFailure::Conflict)
                    if conflicts < MAX_CONFLICTS =>
                {
                    conflicts += 1;
                    pause(conflicts).await;
                }
                Ok(_) | Err(PublishFailure::Conflict) => {
                    return Err(ExecuteError::Conflict { attempts: conflicts });
                }
                // Perhaps stored: the reload will tell, by its id.
                Err(failure @ (PublishFailure::Unknown(_) | PublishFailure::Unavailable(_))) => {
                    if Instant::now() >= deadline {
                        return Err(StoreError::unavailable(failure).into());
                    }
                    tracing::debug!(error = %failure, entity = A::ENTITY, %id, "append again");
                    pause(conflicts + 8).await;
                }
                Err(PublishFailure::TooLarge(reason)) => return Err(StoreError::TooLarge(reason).into()),
                Err(PublishFailure::Refused(reason)) => return Err(StoreError::Refused(reason).into()),
            }
        }
    }

    /// Whether the log holds more of an entity than this version.
    async fn is_past(&self, id: &EntityId, version: u64) -> Result<bool, StoreError> {
        let next = subject::of_version(A::ENTITY, id, version + 1);
        Ok(!self.log.read_retrying(&[next]).await?.is_empty())
    }

    fn slot(&self, id: &EntityId) -> Slot<A> {
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hot.get_or_insert(id.clone(), Slot::default))
    }

    /// Appends the events of one decision after `version`: one message, or one atomic batch.
    async fn append(
        &self,
        id: &EntityId,
        version: u64,
        events: &[A::Event],
        cause: &Cause,
    ) -> Result<(Vec<EventId>, Ack), PublishFailure> {
        let mut ids = Vec::with_capacity(events.len());
        let mut messages = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            let event_id = cause.event_id(A::ENTITY, id, index);
            let (event_type, _) = event.kind();
            let version = version + index as u64 + 1;
            let body = event
                .encode(&cause.metadata(self.log.source(), event.kind(), event_id.clone()))
                .map_err(|error| PublishFailure::Refused(error.to_string()))?;
            let subject = subject::event(event_type, id, version);
            messages.push(
                Outgoing::event(subject, &cause.message_id(id, &event_id), body)
                    .only_if_empty(&subject::of_version(A::ENTITY, id, version)),
            );
            ids.push(event_id);
        }
        let ack = match (messages.pop(), messages) {
            (Some(message), others) if others.is_empty() => {
                self.log.publish_once(message, Duration::MAX).await?
            }
            (Some(last), others) => self.publish_batch(others, last).await?,
            (None, _) => return Err(PublishFailure::Refused("an empty batch".to_owned())),
        };
        Ok((ids, ack))
    }

    /// Stores all messages or none (ADR-50, atomic batch publish).
    async fn publish_batch(&self, others: Vec<Outgoing>, last: Outgoing) -> Result<Ack, PublishFailure> {
        let batch = EventId::generate();
        let with_place = |mut headers: HeaderMap, place: usize| {
            headers.insert("Nats-Batch-Id", batch.as_str());
            headers.insert("Nats-Batch-Sequence", place.to_string());
            headers
        };
        let messages = others.len() + 1;
        for (index, Outgoing { subject, headers, payload }) in others.into_iter().enumerate() {
            self.log
                .client()
                .publish_with_headers(subject, with_place(headers, index + 1), payload)
                .await
                .map_err(|error| PublishFailure::Unavailable(error.to_string()))?;
        }
        let mut headers = with_place(last.headers, messages);
        headers.insert("Nats-Batch-Commit", "1");
        self.log.publish_once(Outgoing { headers, ..last }, Duration::MAX).await
    }

    /// The answer to a command that was carried out before, if the event at `version` is its first.
    async fn answer_again(
        &self,
        id: &EntityId,
        version: u64,
        first_id: &EventId,
        cause: &Cause,
        decided_now: Option<&[A::Event]>,
    ) -> Result<Option<Executed<A>>, StoreError> {
        let Some((events, causation)) = self.decision_at(id, version, first_id).await? else {
            return Ok(None);
        };
        let now = decided_now.and_then(<[_]>::first).map(EventSet::kind);
        let another_kind = now.is_some_and(|now| events.first().is_some_and(|first| first.kind() != now));
        let another_cause = causation.as_ref() != cause.causation_of(first_id);
        if another_kind || another_cause {
            return Err(StoreError::CauseReused { entity: A::ENTITY, id: id.clone() });
        }
        let last = version + events.len() as u64 - 1;
        let Loaded { state, version, sequence } = self.load_at(id, last).await?;
        Ok(Some(Executed { state, version, sequence, events, repeated: true }))
    }

    /// The events of the decision that begins at `version` with the event `first_id`. They stand next to each other and
    /// name the same cause, which is told too.
    async fn decision_at(
        &self,
        id: &EntityId,
        version: u64,
        first_id: &EventId,
    ) -> Result<Option<(Vec<A::Event>, Option<EventId>)>, StoreError> {
        let mut events = Vec::new();
        let mut cause = None;
        let mut first = version;
        loop {
            let read = self.history_of(id).versions(first, first + DECISION - 1).await?;
            let whole = read.stored.len() as u64 == DECISION;
            for stored in read.stored {
                let recorded = stored.decode::<A::Event>()?;
                if events.is_empty() {
                    if recorded.meta.id != *first_id {
                        return Ok(None);
                    }
                    cause = recorded.meta.causation_id;
                } else if cause.is_none() || cause != recorded.meta.causation_id {
                    return Ok(Some((events, cause)));
                }
                events.push(recorded.event);
            }
            if !whole {
                return Ok((!events.is_empty()).then_some((events, cause)));
            }
            first += DECISION;
        }
    }

    /// Reads an entity: its snapshot and what came after, or everything.
    async fn fold(&self, id: &EntityId) -> Result<Hot<A>, StoreError> {
        let history = self.history_of(id);
        let (snapshot, first) = tokio::join!(snapshot::latest(&self.log, id), history.versions(1, FIRST));
        let mut first = first?;
        let from_snapshot = match snapshot {
            Some(snapshot) => self.catch_up(id, snapshot, u64::MAX).await?,
            None => None,
        };
        let mut hot = if let Some(hot) = from_snapshot {
            hot
        } else {
            if first.stored.len() as u64 == FIRST {
                let rest = history.versions(FIRST + 1, u64::MAX).await?;
                first.stored.extend(rest.stored);
                first.beyond = rest.beyond;
            }
            Hot::default().with_all(first)?
        };
        self.snapshots.offer(&self.log, id, &mut hot);
        Ok(hot)
    }

    /// Brings a snapshot to `version`, or to the latest. [`None`]: the log does not hold its last event where it says, so
    /// it is of another log.
    async fn catch_up(
        &self,
        id: &EntityId,
        snapshot: Hot<A>,
        version: u64,
    ) -> Result<Option<Hot<A>>, StoreError> {
        let Loaded { version: at, sequence, .. } = snapshot.loaded;
        let mut read = self.history_of(id).versions(at, version).await?;
        if read.stored.first().is_none_or(|last| last.sequence != sequence) {
            snapshot::discarded::<A>(id, "the log does not hold its last event where it says");
            return Ok(None);
        }
        read.stored.remove(0);
        snapshot.with_all(read).map(Some)
    }

    fn history_of<'a>(&'a self, id: &'a EntityId) -> History<'a> {
        History { log: &self.log, entity: A::ENTITY, id }
    }
}

/// An aggregate kept in memory, with what is remembered of its latest events.
#[derive(Debug)]
struct Hot<A> {
    loaded: Loaded<A>,
    /// Fingerprints of the latest events' ids, oldest first; the last one is that of the event at `loaded.version`.
    recent: VecDeque<u32>,
    /// The version of the latest snapshot that is known of.
    snapshot_at: u64,
    /// The first version after a hole at which a foreign message stands.
    beyond: Option<u64>,
}

impl<A: Aggregate> Default for Hot<A> {
    fn default() -> Self {
        Self::from_snapshot(A::default(), 0, 0, VecDeque::new())
    }
}

impl<A: Aggregate> Hot<A> {
    fn from_snapshot(state: A, version: u64, sequence: u64, recent: VecDeque<u32>) -> Self {
        Self { loaded: Loaded { state, version, sequence }, recent, snapshot_at: version, beyond: None }
    }

    /// The versions at which an event with that id may stand, latest first: nearly always none or one. The log tells.
    fn perhaps_at(&self, id: &EventId) -> Vec<u64> {
        let wanted = fingerprint(id);
        let latest_first = (1..=self.loaded.version).rev().zip(self.recent.iter().rev());
        latest_first.filter(|(_, found)| **found == wanted).map(|(version, _)| version).collect()
    }

    /// The same with what was read after it.
    fn with_all(mut self, read: history::Read) -> Result<Self, StoreError> {
        for stored in read.stored {
            let recorded = stored.decode::<A::Event>()?;
            self.loaded.state.apply(&recorded.event);
            self.loaded.version = recorded.version;
            self.loaded.sequence = recorded.sequence;
            self.remember(&recorded.meta.id);
        }
        self.beyond = read.beyond;
        Ok(self)
    }

    fn after(mut self, events: &[A::Event], ids: &[EventId], sequence: u64) -> Self {
        for (event, id) in events.iter().zip(ids) {
            self.loaded.state.apply(event);
            self.loaded.version += 1;
            self.remember(id);
        }
        self.loaded.sequence = sequence;
        self
    }

    fn remember(&mut self, id: &EventId) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(fingerprint(id));
    }
}

/// FNV-1a, 32 bits. It stands in snapshots; two ids with the same one cost a read.
fn fingerprint(id: &EventId) -> u32 {
    id.as_str().bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Waits a little, at random, longer the more often it was called for: up to a quarter of a second.
async fn pause(times: u32) {
    let most = 1_u64 << times.min(8);
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=most))).await;
}

/// A command that was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<R> {
    /// The rules say no. Nothing was written.
    #[error("{0}")]
    Rejected(R),
    /// The entity is not at the version that the caller expects. Nothing was written; read it and decide again.
    #[error("version {expected} was expected, but it is at {actual}")]
    VersionMismatch {
        /// As the caller gave it.
        expected: u64,
        /// As it is.
        actual: u64,
    },
    /// Other writers came first each time. Nothing was written; try again later.
    #[error("other writers came first {attempts} times")]
    Conflict {
        /// How often it was tried.
        attempts: u32,
    },
    /// The log failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
