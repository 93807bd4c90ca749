//! The event store: an aggregate's history is read from the log, and a decision is appended to it.
//!
//! Stored is published: there is no second write. See docs/decisions for why the version is in the subject.

mod history;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::header::HeaderMap;
use lru::LruCache;
use tokio::time::Instant;

use self::history::History;
use crate::log::{Ack, Outgoing, PublishFailure, StoreError, Stored};
use crate::{Aggregate, Cause, EntityId, EventId, EventLog, EventSet, Recorded, subject};

/// How often a decision is taken anew because another writer came first. In one process commands to one entity queue,
/// so this counts other processes only.
const MAX_CONFLICTS: u32 = 64;

/// How many entities are kept in memory.
const HOT: usize = 1024;

/// How many of an entity's latest event ids are remembered, to recognise a command given again.
const REMEMBERED: usize = 4096;

/// The aggregates of one kind. Cheap to clone; clones share the entities kept in memory.
pub struct EventStore<A: Aggregate> {
    log: EventLog,
    hot: Arc<Mutex<LruCache<EntityId, Slot<A>>>>,
}

/// One entity in memory. Whoever holds the lock gives it a command; it is empty until it is loaded.
type Slot<A> = Arc<tokio::sync::Mutex<Option<Hot<A>>>>;

impl<A: Aggregate> Clone for EventStore<A> {
    fn clone(&self) -> Self {
        Self { log: self.log.clone(), hot: Arc::clone(&self.hot) }
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
        let capacity = NonZeroUsize::new(HOT).unwrap_or(NonZeroUsize::MIN);
        Self { log, hot: Arc::new(Mutex::new(LruCache::new(capacity))) }
    }

    /// The log that it is kept on.
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// The state as the log has it now. An entity that never existed is `A::default()` at version 0.
    pub async fn load(&self, id: &EntityId) -> Result<Loaded<A>, StoreError> {
        self.fold(id).await.map(|hot| hot.loaded)
    }

    /// Everything that happened to an entity, in order.
    pub async fn history(&self, id: &EntityId) -> Result<Vec<Recorded<A::Event>>, StoreError> {
        self.history_of(id).whole().await?.stored.iter().map(Stored::decode).collect()
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
        self.run(id, None, command, cause).await
    }

    /// The same, only if the entity is at `version` (0: only if it does not exist).
    pub async fn execute_at(
        &self,
        id: &EntityId,
        version: u64,
        command: &A::Command,
        cause: &Cause,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        self.run(id, Some(version), command, cause).await
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
            if hot.remembers(&first_id) {
                *slot = Some(hot);
                return self.answer_again(id, &first_id, cause, decision.ok()).await.map_err(Into::into);
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
                    let hot = slot.insert(hot.after(&events, ids, sequence));
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
                Outgoing::event(subject, &cause.message_id(&event_id), body)
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

    /// The answer to a command that was carried out before.
    async fn answer_again(
        &self,
        id: &EntityId,
        first_id: &EventId,
        cause: &Cause,
        decided_now: Option<Vec<A::Event>>,
    ) -> Result<Executed<A>, StoreError> {
        let mut hot = Hot::default();
        let mut events: Vec<A::Event> = Vec::new();
        let mut causation: Option<Option<EventId>> = None;
        for recorded in self.history(id).await? {
            if recorded.meta.id == *first_id {
                causation = Some(recorded.meta.causation_id.clone());
            }
            let Some(first) = &causation else {
                hot.take(&recorded);
                continue;
            };
            // The events of one decision stand next to each other and name the same cause.
            if !events.is_empty() && (first.is_none() || *first != recorded.meta.causation_id) {
                break;
            }
            hot.take(&recorded);
            events.push(recorded.event);
        }
        let now = decided_now.as_deref().and_then(<[_]>::first).map(EventSet::kind);
        let another_kind = now.is_some_and(|now| events.first().is_some_and(|first| first.kind() != now));
        let another_cause = causation.is_some_and(|first| first.as_ref() != cause.causation_of(first_id));
        if another_kind || another_cause {
            return Err(StoreError::CauseReused { entity: A::ENTITY, id: id.clone() });
        }
        let Loaded { state, version, sequence } = hot.loaded;
        Ok(Executed { state, version, sequence, events, repeated: true })
    }

    /// Reads an entity's history and adds it up, trying again for as long as the log may take.
    async fn fold(&self, id: &EntityId) -> Result<Hot<A>, StoreError> {
        let mut hot = Hot::default();
        let read = self.history_of(id).whole().await?;
        hot.beyond = read.beyond;
        for stored in read.stored {
            hot.take(&stored.decode()?);
        }
        Ok(hot)
    }

    fn history_of<'a>(&'a self, id: &'a EntityId) -> History<'a> {
        History { log: &self.log, entity: A::ENTITY, id }
    }
}

/// An aggregate kept in memory, with the ids of its latest events.
struct Hot<A> {
    loaded: Loaded<A>,
    /// The latest ids, oldest first, and the same as a set.
    recent: VecDeque<EventId>,
    known: HashSet<EventId>,
    /// The first version after a hole at which a foreign message stands.
    beyond: Option<u64>,
}

impl<A: Aggregate> Default for Hot<A> {
    fn default() -> Self {
        Self {
            loaded: Loaded { state: A::default(), version: 0, sequence: 0 },
            recent: VecDeque::new(),
            known: HashSet::new(),
            beyond: None,
        }
    }
}

impl<A: Aggregate> Hot<A> {
    fn remembers(&self, id: &EventId) -> bool {
        self.known.contains(id)
    }

    fn take(&mut self, recorded: &Recorded<A::Event>) {
        self.loaded.state.apply(&recorded.event);
        self.loaded.version = recorded.version;
        self.loaded.sequence = recorded.sequence;
        self.remember(recorded.meta.id.clone());
    }

    fn after(mut self, events: &[A::Event], ids: Vec<EventId>, sequence: u64) -> Self {
        for (event, id) in events.iter().zip(ids) {
            self.loaded.state.apply(event);
            self.loaded.version += 1;
            self.remember(id);
        }
        self.loaded.sequence = sequence;
        self
    }

    fn remember(&mut self, id: EventId) {
        if self.recent.len() == REMEMBERED
            && let Some(oldest) = self.recent.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.known.insert(id.clone());
        self.recent.push_back(id);
    }
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
