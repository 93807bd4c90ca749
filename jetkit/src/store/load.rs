//! Loads: an aggregate is read from its snapshot and what came after, page by page, into the place where it is kept.
//!
//! A load goes on from what is in memory, whoever read that: a command that was cut off, an earlier load that the server
//! interrupted, or this process before another one wrote. A long one runs in a task of its own, so that no command's time
//! limit ends it.

use std::sync::{Arc, PoisonError};

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::history::{FIRST_PAGE, History, PAGE};
use super::hot::Hot;
use super::{EventStore, Loaded, Tries, snapshot};
use crate::StoreError;
use crate::{Aggregate, EntityId};

/// One entity in memory. The holder of the lock gives it a command, or loads it.
pub(super) type Slot<A> = Arc<Mutex<Hot<A>>>;

/// How many pages a command reads by itself. What is longer is read by a task that outlives the command.
const OWN_PAGES: usize = 2;

/// After how many pages a long load says how far it has come, and may write a snapshot.
const CHUNK: usize = 1024;

/// How far a read came.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// To the last event, or to the version that was asked for.
    End,
    /// There is more; the pages that it was given are used up.
    More,
    /// The log does not hold what it was to go on from.
    Lost,
}

impl<A: Aggregate> EventStore<A> {
    /// Loads an entity into memory before its first command comes, however long that takes.
    pub async fn warm_up(&self, id: &EntityId) -> Result<(), StoreError> {
        self.warm_up_telling(id, |_| {}).await
    }

    /// The same, telling which version it has come to.
    pub(crate) async fn warm_up_telling(
        &self,
        id: &EntityId,
        progress: impl Fn(u64) + Send,
    ) -> Result<(), StoreError> {
        let mut slot = self.slot(id).lock_owned().await;
        self.load_long(id, &mut slot, 0, progress).await
    }

    /// The state as the log's leader has it now, kept in memory: where it is there already, only what came after is read.
    pub async fn latest(&self, id: &EntityId) -> Result<Loaded<A>, StoreError> {
        let mut tries = Tries::until(Instant::now() + self.log.deadline());
        let mut slot = self.lock(id, tries.deadline).await?;
        loop {
            slot = self.bring_up(slot, id, &tries).await?;
            tries.known = tries.known.max(slot.loaded.version);
            if !self.is_past(id, slot.loaded.version).await? {
                return Ok(slot.loaded.clone());
            }
            tries.known += 1;
            slot.behind = true;
        }
    }

    /// Waits for its turn with an entity, until `deadline`.
    pub(super) async fn lock(
        &self,
        id: &EntityId,
        deadline: Instant,
    ) -> Result<OwnedMutexGuard<Hot<A>>, StoreError> {
        let slot = self.slot(id);
        if let Ok(free) = Arc::clone(&slot).try_lock_owned() {
            return Ok(free);
        }
        timeout_at(deadline, slot.lock_owned()).await.map_err(|_| {
            let entity = A::ENTITY;
            StoreError::unavailable(format_args!(
                "{entity} {id} is being loaded, or busy with other commands"
            ))
        })
    }

    fn slot(&self, id: &EntityId) -> Slot<A> {
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hot.get_or_insert(id.clone(), Slot::default))
    }

    /// Brings what is in memory to what the log holds, at least to the version that is known. A load that takes longer than
    /// the command may wait goes on without it.
    pub(super) async fn bring_up(
        &self,
        mut slot: OwnedMutexGuard<Hot<A>>,
        id: &EntityId,
        tries: &Tries,
    ) -> Result<OwnedMutexGuard<Hot<A>>, StoreError> {
        if !slot.behind && self.still_stands(id, &mut slot).await? {
            return Ok(slot);
        }
        if self.load_into(id, &mut slot, tries.known, Some(OWN_PAGES)).await? {
            return Ok(slot);
        }
        let (store, of, known) = (self.clone(), id.clone(), tries.known);
        let load = tokio::spawn(async move {
            let loaded = store.load_long(&of, &mut slot, known, |_| {}).await;
            if let Err(error) = &loaded {
                warn!(entity = A::ENTITY, entity.id = %of, %error, "a load was interrupted; the next command goes on");
            }
            loaded.map(|()| slot)
        });
        let entity = A::ENTITY;
        match timeout_at(tries.deadline, load).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => Err(StoreError::unavailable(format_args!("loading {entity} {id}: {error}"))),
            Err(_) => Err(StoreError::unavailable(format_args!("{entity} {id} is being loaded"))),
        }
    }

    async fn load_long(
        &self,
        id: &EntityId,
        hot: &mut Hot<A>,
        known: u64,
        progress: impl Fn(u64) + Send,
    ) -> Result<(), StoreError> {
        let start = std::time::Instant::now();
        while !self.load_into(id, hot, known, Some(CHUNK)).await? {
            let version = hot.loaded.version;
            info!(entity = A::ENTITY, entity.id = %id, version, elapsed = ?start.elapsed(), "loading");
            progress(version);
            self.snapshots.write_midway(&self.log, id, hot).await;
        }
        Ok(())
    }

    /// Reads an entity on from what is there, or from its snapshot, or from its first event: at least to the version that is
    /// known, and at most so many pages. Returns whether that was all.
    pub(super) async fn load_into(
        &self,
        id: &EntityId,
        hot: &mut Hot<A>,
        known: u64,
        pages: Option<usize>,
    ) -> Result<bool, StoreError> {
        let (history, connects) = (self.history_of(id).holding(known), self.log.connects());
        if hot.torn {
            *hot = Hot::default();
        }
        hot.behind = true;
        let mut read = Read::Lost;
        if hot.loaded.version > 0 {
            read = read_on(history, hot, u64::MAX, pages).await?;
            if read == Read::Lost {
                warn!(entity = A::ENTITY, entity.id = %id, "the log has lost what it held: loading again");
                *hot = Hot::default();
            }
        }
        if read == Read::Lost
            && let Some(found) = snapshot::find::<A>(&self.log, id).await?
        {
            if found.is_large() && pages.is_some_and(|pages| pages <= OWN_PAGES) {
                return Ok(false);
            }
            if let Some(from) = found.latest(&self.log, id).await? {
                *hot = from;
                read = read_on(history, hot, u64::MAX, pages).await?;
            }
        }
        if read == Read::Lost {
            *hot = Hot::default();
            read = read_on(history, hot, u64::MAX, pages).await?;
        }
        if read == Read::More {
            return Ok(false);
        }
        (hot.behind, hot.connects) = (false, connects);
        self.snapshots.offer(&self.log, id, hot);
        Ok(true)
    }

    /// The state as it was at `version`, or as it is now if the entity has not come so far.
    pub(super) async fn fold_to(&self, history: History<'_>, version: u64) -> Result<Loaded<A>, StoreError> {
        if let Some(mut hot) = snapshot::at_most(&self.log, history.id, version).await?
            && read_on(history, &mut hot, version, None).await? != Read::Lost
        {
            return Ok(hot.loaded);
        }
        let mut hot = Hot::default();
        read_on(history, &mut hot, version, None).await?;
        Ok(hot.loaded)
    }

    /// Whether the log still holds what is in memory, which is forgotten if it does not. A server that comes back may have
    /// lost the end of its log (a power failure, a backup): what is appended after a version that is not there any more would
    /// be lost as well.
    pub(super) async fn still_stands(&self, id: &EntityId, hot: &mut Hot<A>) -> Result<bool, StoreError> {
        let connects = self.log.connects();
        let Loaded { version, sequence, .. } = hot.loaded;
        if hot.connects != connects && version > 0 && self.leader_has(id, version).await? != Some(sequence) {
            warn!(entity = A::ENTITY, entity.id = %id, version, "the log has lost what it held: loading again");
            *hot = Hot::default();
            return Ok(false);
        }
        hot.connects = connects;
        Ok(true)
    }
}

/// Reads an entity on from where `hot` is, to `version` or to the end, at most so many pages. After an error it holds all
/// that was read before.
async fn read_on<A: Aggregate>(
    history: History<'_>,
    hot: &mut Hot<A>,
    version: u64,
    pages: Option<usize>,
) -> Result<Read, StoreError> {
    // The event that it goes on from is read once more: the log must hold it where it did.
    let mut to_check = hot.loaded.version > 0;
    let mut size = FIRST_PAGE;
    for _ in 0..pages.unwrap_or(usize::MAX) {
        let first = hot.loaded.version + u64::from(!to_check);
        if first > version {
            return Ok(Read::End);
        }
        let last = version.min(first.saturating_add(size - 1));
        let mut page = history.page(first, last).await?;
        let is_whole = page.stored.len() as u64 == last - first + 1;
        if to_check {
            if !hot.ends_with(page.stored.first()) {
                snapshot::discarded::<A>(history.id, "the log does not hold its last event where it says");
                return Ok(Read::Lost);
            }
            page.stored.remove(0);
        }
        hot.take_in(page)?;
        if !is_whole || last == version {
            return Ok(Read::End);
        }
        (to_check, size) = (false, PAGE);
    }
    Ok(Read::More)
}
