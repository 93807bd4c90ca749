//! The event store: an aggregate's history is read from the log, and a decision is appended to it.
//!
//! Stored is published: there is no second write. See docs/decisions for why the version is in the subject.

mod again;
mod append;
mod expected;
mod history;
mod hot;
mod load;
mod snapshot;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use self::again::Asked;
pub use self::expected::ExpectedVersion;
use self::history::History;
use self::hot::Hot;
use self::load::Slot;
use self::snapshot::Snapshots;
use crate::StoreError;
use crate::log::{Ack, PublishFailure, Stored};
use crate::subject::are_of;
use crate::{Aggregate, Cause, EntityId, EventLog, EventSet, Recorded, subject};

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

/// What a command's answer carries.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// The state after it.
    WithState,
    /// Nothing that anybody looks at: in place of the state there is the default.
    Done,
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
    fn new(log: EventLog) -> Self {
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
        let mut hot = Hot::default();
        self.load_into(id, &mut hot, 0, None).await?;
        Ok(hot.loaded)
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
        self.run(id, ExpectedVersion::Any, command, cause, Answer::WithState).await
    }

    /// Carries out a command whose answer nobody needs, as a reaction to an event does: the same as
    /// [`EventStore::execute`], without the cost of a copy of the state, or of adding up what it was after the first run.
    pub async fn react(
        &self,
        id: &EntityId,
        command: &A::Command,
        cause: &Cause,
    ) -> Result<(), ExecuteError<A::Rejection>> {
        self.run(id, ExpectedVersion::Any, command, cause, Answer::Done).await.map(drop)
    }

    /// The same, only if the entity is at a version that is expected (0: only if it does not exist).
    pub async fn execute_at(
        &self,
        id: &EntityId,
        version: impl Into<ExpectedVersion>,
        command: &A::Command,
        cause: &Cause,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        self.run(id, version.into(), command, cause, Answer::WithState).await
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
        expected: ExpectedVersion,
        command: &A::Command,
        cause: &Cause,
        answer: Answer,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        let mut tries = Tries::until(Instant::now() + self.log.deadline());
        let mut slot = self.lock(id, tries.deadline).await?;
        let first_id = cause.event_id(A::ENTITY, id, 0);
        loop {
            slot = self.bring_up(slot, id, &tries).await?;
            let hot = &mut *slot;
            let version = hot.loaded.version;
            tries.known = tries.known.max(version);
            let history = self.history_of(id).holding(tries.known);
            let decision = hot.loaded.state.decide(command);
            let decided_now = decision.as_deref().unwrap_or(&[]);
            let asked = Asked { command, cause, first_id: &first_id, decided_now };
            if let Some(before) = self.answer_again(history, hot, &asked).await? {
                // Others go on meanwhile.
                drop(slot);
                return self.first_answer(history, before, answer).await.inspect(|e| self.note_written(e));
            }
            let is_expected = expected.takes(version);
            let appends = is_expected && decision.as_ref().is_ok_and(|events| !events.is_empty());
            // An append is checked by the server. Any other answer must rest on all that the log holds: what is in memory,
            // and what another replica than the leader told, may be old.
            if !appends && self.is_past(id, version).await? {
                tries.known += 1;
                hot.behind = true;
                continue;
            }
            if !is_expected {
                return Err(ExecuteError::VersionMismatch { expected, actual: version });
            }
            let events = decision.map_err(ExecuteError::Rejected)?;
            if events.is_empty() {
                return Ok(hot.executed(events, answer));
            }
            hot.check_room(id, events.len() as u64)?;
            // Until the append is certain: whatever ends this command, the next one reads on from here.
            hot.behind = true;
            match self.append(id, version, &events, cause, &first_id).await {
                Ok((ids, Ack { sequence, duplicate: false })) => {
                    if !self.still_stands(id, hot).await? {
                        let lost = "the server lost what it held while this was stored";
                        return Err(StoreError::unavailable(lost).into());
                    }
                    hot.record(&events, &ids, sequence);
                    self.snapshots.offer(&self.log, id, hot);
                    let executed = hot.executed(events, answer);
                    self.note_written(&executed);
                    return Ok(executed);
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
            Err(failure @ PublishFailure::Closed(_)) => Err(StoreError::unavailable(failure).into()),
            Err(PublishFailure::TooLarge(reason)) => Err(StoreError::TooLarge(reason).into()),
            Err(PublishFailure::Refused(reason)) => Err(StoreError::Refused(reason).into()),
            Err(PublishFailure::Misplaced(what)) => Err(StoreError::Misplaced(what).into()),
        }
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

    fn history_of<'a>(&'a self, id: &'a EntityId) -> History<'a> {
        History { log: &self.log, entity: A::ENTITY, id, known: 0 }
    }
}

impl EventLog {
    /// The aggregates of one kind.
    pub fn store<A: Aggregate>(&self) -> EventStore<A> {
        EventStore::new(self.clone())
    }

    /// Everything that happened to an entity, in order, for whoever has not its rules: another service's entity. The set is
    /// all that can happen to it.
    pub async fn history<E: EventSet>(&self, id: &EntityId) -> Result<Vec<Recorded<E>>, StoreError> {
        let entity = E::TYPES.first().map_or("", |event_type| subject::entity_of(event_type));
        let history = History { log: self, entity, id, known: 0 };
        history.versions(1, u64::MAX).await?.stored.iter().map(Stored::decode).collect()
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
    #[error("{expected} was expected, but it is at version {actual}")]
    VersionMismatch {
        /// As the caller gave it.
        expected: ExpectedVersion,
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
