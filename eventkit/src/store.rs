//! The event store: an aggregate's history is read from the log, and a decision is appended to it.
//!
//! Stored is published: there is no second write. See docs/decisions for why the version is in the subject.

mod append;
mod history;
mod hot;
mod snapshot;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use self::history::History;
use self::hot::Hot;
use self::snapshot::Snapshots;
use crate::log::{Ack, PublishFailure, StoreError, Stored};
use crate::subject::are_of;
use crate::{Aggregate, Cause, EntityId, EventId, EventLog, EventSet, Recorded, subject};

/// How often a decision is taken anew because another writer came first. In one process commands to one entity queue,
/// so this counts other processes only.
const MAX_CONFLICTS: u32 = 64;

/// How many entities are kept in memory.
const HOT: usize = 1024;

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
    /// The command had been carried out before, for the same cause: nothing was written now, and the other fields are those
    /// of the first answer.
    pub repeated: bool,
}

/// A command, the id of the first event that it leads to, and what it leads to in the state of now.
struct Asked<'a, A: Aggregate> {
    command: &'a A::Command,
    first_id: &'a EventId,
    decided_now: &'a [A::Event],
}

/// How often a command was tried, and what was learnt.
struct Tries {
    deadline: Instant,
    conflicts: u32,
    /// The version that the log is known to hold.
    known: u64,
    /// The version after which an append may have been stored.
    in_doubt: Option<u64>,
}

impl Tries {
    fn until(deadline: Instant) -> Self {
        Self { deadline, conflicts: 0, known: 0, in_doubt: None }
    }
}

impl<A: Aggregate> EventStore<A> {
    pub(crate) fn new(log: EventLog) -> Self {
        const {
            assert!(A::SNAPSHOT_EVERY >= 1 && A::SNAPSHOT_EVERY <= 500, "SNAPSHOT_EVERY is 1 to 500");
            assert!(are_of(A::Event::TYPES, A::ENTITY), "an aggregate's events are types of its own ENTITY");
        }
        let capacity = NonZeroUsize::new(HOT).unwrap_or(NonZeroUsize::MIN);
        Self { log, hot: Arc::new(Mutex::new(LruCache::new(capacity))), snapshots: Snapshots::default() }
    }

    /// The log that it is kept on.
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// The state as the log has it now; on a cluster, as the replica that answers has it, which may be a moment old. A
    /// command's answer never rests on that. An entity that never existed is `A::default()` at version 0.
    pub async fn load(&self, id: &EntityId) -> Result<Loaded<A>, StoreError> {
        self.fold(id, 0).await.map(|hot| hot.loaded)
    }

    /// The same of an entity that must exist.
    pub async fn get(&self, id: &EntityId) -> Result<Loaded<A>, StoreError> {
        let loaded = self.load(id).await?;
        let found = loaded.version > 0;
        found.then_some(loaded).ok_or_else(|| StoreError::NotFound { entity: A::ENTITY, id: id.clone() })
    }

    /// The state as it was at `version`; as it is now if the entity has not come so far.
    pub async fn load_at(&self, id: &EntityId, version: u64) -> Result<Loaded<A>, StoreError> {
        self.fold_to(self.history_of(id), version).await
    }

    async fn fold_to(&self, history: History<'_>, version: u64) -> Result<Loaded<A>, StoreError> {
        if let Some(hot) = snapshot::at_most(&self.log, history.id, version).await
            && let Some(hot) = catch_up(history, hot, version).await?
        {
            return Ok(hot.loaded);
        }
        let read = history.versions(1, version).await?;
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
        self.history_between(id, version.max(1), u64::MAX).await
    }

    /// The same up to `last`, which is included.
    pub(crate) async fn history_between(
        &self,
        id: &EntityId,
        first: u64,
        last: u64,
    ) -> Result<Vec<Recorded<A::Event>>, StoreError> {
        let read = self.history_of(id).versions(first, last).await?;
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

    /// The same, only if the entity is at `version` (0: only if it does not exist). [`None`], as where a request has no
    /// `If-Match`, is any version.
    pub async fn execute_at(
        &self,
        id: &EntityId,
        version: impl Into<Option<u64>>,
        command: &A::Command,
        cause: &Cause,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        self.run(id, version.into(), command, cause).await.inspect(|executed| self.note_written(executed))
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
        let first_id = cause.event_id(A::ENTITY, id, 0);
        let mut tries = Tries::until(Instant::now() + self.log.deadline());
        loop {
            // Taken out of its slot: unless the append is certain, the next command loads it again.
            let hot = match self.still_stands(id, slot.take()).await? {
                Some(hot) => hot,
                None => self.fold(id, tries.known).await?,
            };
            tries.known = tries.known.max(hot.loaded.version);
            let history = self.history_of(id).holding(tries.known);
            let decision = hot.loaded.state.decide(command);
            let asked =
                Asked { command, first_id: &first_id, decided_now: decision.as_deref().unwrap_or(&[]) };
            if let Some(first) = self.answer_again(history, &hot, cause, &asked).await? {
                *slot = Some(hot);
                return Ok(first);
            }
            let mismatch = expected.filter(|expected| *expected != hot.loaded.version);
            let appends = mismatch.is_none() && decision.as_ref().is_ok_and(|events| !events.is_empty());
            // An append is checked by the server. Any other answer must rest on all that the log holds: what is in memory,
            // and what another replica than the leader told, may be old.
            if !appends && self.is_past(id, hot.loaded.version).await? {
                tries.known += 1;
                continue;
            }
            if let Some(expected) = mismatch {
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
                return Ok(slot.insert(hot).executed(events));
            }
            let version = hot.loaded.version;
            hot.check_room(id, events.len() as u64)?;
            match self.append(id, version, &events, cause, &first_id).await {
                Ok((ids, Ack { sequence, duplicate: false })) => {
                    let Some(hot) = self.still_stands(id, Some(hot)).await? else {
                        let lost = "the server lost what it held while this was stored";
                        return Err(StoreError::unavailable(lost).into());
                    };
                    let hot = slot.insert(hot.after(&events, &ids, sequence));
                    self.snapshots.offer(&self.log, id, hot);
                    return Ok(hot.executed(events));
                }
                outcome => {
                    let outcome = outcome.map(|(_, duplicate)| duplicate);
                    self.once_more(id, version, outcome, &mut tries).await?;
                }
            }
        }
    }

    /// What follows an append that is not certain to have stored something: the decision is taken once more, after a pause,
    /// or it is an error.
    async fn once_more(
        &self,
        id: &EntityId,
        version: u64,
        outcome: Result<Ack, PublishFailure>,
        tries: &mut Tries,
    ) -> Result<(), ExecuteError<A::Rejection>> {
        match outcome {
            // A duplicate: stored by an earlier attempt, or the id is somebody else's. The reload will tell.
            Ok(_) | Err(PublishFailure::Conflict) if tries.conflicts < MAX_CONFLICTS => {
                tries.conflicts += 1;
                pause(tries.conflicts).await;
                tries.known += u64::from(self.is_past(id, version).await?);
                Ok(())
            }
            Err(PublishFailure::Conflict) if tries.in_doubt != Some(version) => {
                Err(ExecuteError::Conflict { attempts: tries.conflicts })
            }
            Ok(_) | Err(PublishFailure::Conflict) => {
                let doubt =
                    "whether it is stored cannot be told yet: the log has its id, or had no answer to it";
                Err(StoreError::unavailable(doubt).into())
            }
            // Perhaps stored: the reload will tell, by its id.
            Err(failure @ (PublishFailure::Unknown(_) | PublishFailure::Unavailable(_))) => {
                if Instant::now() >= tries.deadline {
                    return Err(StoreError::unavailable(failure).into());
                }
                tracing::debug!(error = %failure, entity = A::ENTITY, entity.id = %id, "append again");
                tries.in_doubt = Some(version);
                pause(tries.conflicts + 8).await;
                Ok(())
            }
            Err(PublishFailure::TooLarge(reason)) => Err(StoreError::TooLarge(reason).into()),
            Err(PublishFailure::Refused(reason)) => Err(StoreError::Refused(reason).into()),
            Err(PublishFailure::Misplaced(what)) => Err(StoreError::Misplaced(what).into()),
        }
    }

    /// What is in memory, if the log still holds it. A server that comes back may have lost the end of its log (a power
    /// failure, a backup): what is appended after a version that is not there any more would be lost as well.
    async fn still_stands(&self, id: &EntityId, hot: Option<Hot<A>>) -> Result<Option<Hot<A>>, StoreError> {
        let Some(mut hot) = hot else { return Ok(None) };
        let connects = self.log.connects();
        let Loaded { version, sequence, .. } = hot.loaded;
        if hot.connects != connects && version > 0 && self.leader_has(id, version).await? != Some(sequence) {
            tracing::warn!(entity = A::ENTITY, entity.id = %id, version, "the log has lost what it held: loading again");
            return Ok(None);
        }
        hot.connects = connects;
        Ok(Some(hot))
    }

    /// Whether the log holds more of an entity than this version.
    async fn is_past(&self, id: &EntityId, version: u64) -> Result<bool, StoreError> {
        Ok(self.leader_has(id, version + 1).await?.is_some())
    }

    /// Where the log holds a version of an entity. Its leader is asked: another replica may lag.
    async fn leader_has(&self, id: &EntityId, version: u64) -> Result<Option<u64>, StoreError> {
        let subject = subject::of_version(A::ENTITY, id, version);
        let deadline = Instant::now() + self.log.deadline();
        loop {
            match self.log.leader_has(&subject).await {
                Err(StoreError::Unavailable(_)) if Instant::now() < deadline => pause(8).await,
                answer => return answer,
            }
        }
    }

    fn slot(&self, id: &EntityId) -> Slot<A> {
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hot.get_or_insert(id.clone(), Slot::default))
    }

    /// The answer to a command that was carried out before, if one of the entity's events is its first.
    async fn answer_again(
        &self,
        history: History<'_>,
        hot: &Hot<A>,
        cause: &Cause,
        asked: &Asked<'_, A>,
    ) -> Result<Option<Executed<A>>, StoreError> {
        let first_id = asked.first_id;
        for version in hot.perhaps_at(first_id) {
            let Some((events, causation)) = history.decision_at::<A::Event>(version, first_id).await? else {
                continue;
            };
            let same_cause = causation.as_ref() == cause.causation_of(first_id);
            if !same_cause || !self.led_to(history, version, &events, asked).await? {
                return Err(StoreError::CauseReused { entity: A::ENTITY, id: history.id.clone() });
            }
            let last = version + events.len() as u64 - 1;
            let Loaded { state, version, sequence } = self.fold_to(history, last).await?;
            return Ok(Some(Executed { state, version, sequence, events, repeated: true }));
        }
        Ok(None)
    }

    /// Whether it was this command that led to those events at `version`. Another one shows where it leads to another type
    /// of event now, and would have led to another one then.
    async fn led_to(
        &self,
        history: History<'_>,
        version: u64,
        events: &[A::Event],
        Asked { command, decided_now, .. }: &Asked<'_, A>,
    ) -> Result<bool, StoreError> {
        let same_kind = |other: &[A::Event]| match (other.first(), events.first()) {
            (Some(other), Some(event)) => other.kind() == event.kind(),
            _ => false,
        };
        if decided_now.is_empty() || same_kind(decided_now) {
            return Ok(true);
        }
        let before = self.fold_to(history, version - 1).await?.state;
        Ok(before.decide(command).is_ok_and(|decided| same_kind(&decided)))
    }

    /// Reads an entity: its snapshot and what came after, or everything; at least to the version that is known.
    async fn fold(&self, id: &EntityId, known: u64) -> Result<Hot<A>, StoreError> {
        let (history, connects) = (self.history_of(id).holding(known), self.log.connects());
        let from_snapshot = match snapshot::latest(&self.log, id).await {
            Some(snapshot) => catch_up(history, snapshot, u64::MAX).await?,
            None => None,
        };
        let mut hot = match from_snapshot {
            Some(hot) => hot,
            None => Hot::default().with_all(history.versions(1, u64::MAX).await?)?,
        };
        hot.connects = connects;
        self.snapshots.offer(&self.log, id, &mut hot);
        Ok(hot)
    }

    fn history_of<'a>(&'a self, id: &'a EntityId) -> History<'a> {
        History { log: &self.log, entity: A::ENTITY, id, known: 0 }
    }
}

impl EventLog {
    /// Everything that happened to an entity, in order, for whoever has not its rules: another service's entity. The set is
    /// all that can happen to it.
    pub async fn history<E: EventSet>(&self, id: &EntityId) -> Result<Vec<Recorded<E>>, StoreError> {
        let entity = E::TYPES.first().map_or("", |event_type| subject::entity_of(event_type));
        let history = History { log: self, entity, id, known: 0 };
        history.versions(1, u64::MAX).await?.stored.iter().map(Stored::decode).collect()
    }
}

/// Brings a snapshot to `version`, or to the latest. [`None`]: the log does not hold its last event where it says, or
/// another one, so it is of another log.
async fn catch_up<A: Aggregate>(
    history: History<'_>,
    snapshot: Hot<A>,
    version: u64,
) -> Result<Option<Hot<A>>, StoreError> {
    let Loaded { version: at, sequence, .. } = snapshot.loaded;
    let mut read = history.versions(at, version).await?;
    let last = read.stored.first().filter(|last| last.sequence == sequence);
    let last = last.and_then(|last| last.decode::<A::Event>().ok());
    if last.is_none_or(|last| !snapshot.may_end_with(&last.meta.id)) {
        snapshot::discarded::<A>(history.id, "the log does not hold its last event where it says");
        return Ok(None);
    }
    read.stored.remove(0);
    snapshot.with_all(read).map(Some)
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
    /// Other writers came first each time. Nothing was written; try again later. (Where an append had no answer and may be
    /// stored, this is [`StoreError::Unavailable`].)
    #[error("other writers came first {attempts} times")]
    Conflict {
        /// How often it was tried.
        attempts: u32,
    },
    /// The log failed.
    #[error("{0}")]
    Store(#[from] StoreError),
}
