//! An entity's history, read from the log: version after version, and nothing that does not belong to it.
//!
//! Anybody with a client can store a message on an entity's subjects. An append expects that the version after the
//! latest is empty, and nothing else, so what stands beyond a hole, or a second time at a version, was appended by no
//! aggregate. It is left out, counted and logged. What stands at the next version is the history, whoever wrote it.

use metrics::counter;
use tokio::time::Instant;
use tracing::error;

use super::pause;
use crate::StoreError;
use crate::direct::MAX_READ;
use crate::log::Stored;
use crate::{EntityId, EventId, EventLog, EventSet, Metadata, Recorded, subject};

/// How many versions one read asks for. They are asked for one by one: a wildcard costs the server the length of the
/// whole history, and past 1,024 events brings nothing.
pub(super) const PAGE: u64 = 64;

/// How many the first read asks for: most entities have no more.
pub(super) const FIRST_PAGE: u64 = 32;

/// How many are read at once to find the events of one decision.
const DECISION: u64 = 8;

/// One entity's place on the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct History<'a> {
    pub(super) log: &'a EventLog,
    pub(super) entity: &'static str,
    pub(super) id: &'a EntityId,
    /// The version that the log is known to hold. Any replica may answer a read; one that lags is asked again.
    pub(super) known: u64,
}

/// The events of one decision.
#[derive(Debug)]
pub(super) struct Decision<E> {
    pub(super) events: Vec<E>,
    /// The context of the first of them.
    pub(super) first: Metadata,
    /// Where the log holds the last of them.
    pub(super) sequence: u64,
}

/// What was read of a history.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// In order, without a hole.
    pub(super) stored: Vec<Stored>,
    /// The first version beyond the hole that they end at, if something stands there.
    pub(super) beyond: Option<u64>,
}

impl History<'_> {
    /// The same, of which that much is known to be there.
    pub(super) fn holding(self, known: u64) -> Self {
        Self { known, ..self }
    }

    /// The versions from `first` to `last`, as far as there are any, page by page. What came before costs nothing. An
    /// entity that never existed has an empty history.
    pub(super) async fn versions(&self, first: u64, last: u64) -> Result<Read, StoreError> {
        let mut all = Read::default();
        let mut next = first;
        while next <= last {
            let size = if next == first { FIRST_PAGE } else { PAGE };
            let end = last.min(next.saturating_add(size - 1));
            let page = self.page(next, end).await?;
            let read = page.stored.len() as u64;
            all.stored.extend(page.stored);
            all.beyond = page.beyond;
            if read <= end - next {
                break;
            }
            next = end + 1;
        }
        Ok(all)
    }

    /// The decision that begins at `version`, of whose events `is_part` knows the ids by their places in it; they stand next to
    /// each other.
    pub(super) async fn decision_at<E: EventSet>(
        self,
        version: u64,
        is_part: impl Fn(usize, &EventId) -> bool,
    ) -> Result<Option<Decision<E>>, StoreError> {
        let mut decision: Option<Decision<E>> = None;
        let mut first = version;
        loop {
            let read = self.versions(first, first + DECISION - 1).await?;
            let whole = read.stored.len() as u64 == DECISION;
            for stored in read.stored {
                let Recorded { event, meta, sequence, .. } = stored.decode::<E>()?;
                if !is_part(decision.as_ref().map_or(0, |begun| begun.events.len()), &meta.id) {
                    return Ok(decision);
                }
                match &mut decision {
                    None => decision = Some(Decision { events: vec![event], first: meta, sequence }),
                    Some(begun) => {
                        begun.events.push(event);
                        begun.sequence = sequence;
                    }
                }
            }
            if !whole {
                return Ok(decision);
            }
            first += DECISION;
        }
    }

    /// One page, read again while it ends before the version that is known.
    pub(super) async fn page(&self, first: u64, last: u64) -> Result<Read, StoreError> {
        let filters: Vec<_> = (first..=last).map(|v| subject::of_version(self.entity, self.id, v)).collect();
        let deadline = Instant::now() + self.log.deadline();
        let mut times = 0;
        loop {
            let page = self.in_order(first, self.log.read_retrying(&filters).await?).await?;
            let next = first + page.stored.len() as u64;
            if next > self.known.min(last) {
                return Ok(page);
            }
            if Instant::now() >= deadline {
                let Self { entity, id, known, .. } = self;
                return Err(StoreError::unavailable(format_args!(
                    "the replica that answers reads has not got version {next} of {entity} {id}; there are {known}"
                )));
            }
            times += 1;
            pause(times).await;
        }
    }

    /// Brings what was read into order, from version `first` on.
    async fn in_order(&self, first: u64, mut read: Vec<Stored>) -> Result<Read, StoreError> {
        // An event published for itself has version 0 and stands in no history.
        read.retain(|stored| stored.version() >= first);
        read.sort_by_key(|stored| (stored.version(), stored.sequence));
        self.restore_overwritten(&mut read).await?;
        let mut stored: Vec<Stored> = Vec::with_capacity(read.len());
        let (mut next, mut beyond) = (first, None);
        for message in read {
            let version = message.version();
            if version == next {
                next += 1;
                stored.push(message);
                continue;
            }
            if version > next {
                beyond = beyond.or(Some(version));
            }
            self.leave_out(&message, next - 1);
        }
        Ok(Read { stored, beyond })
    }

    /// A message stored later on the very subject of an event hides it from a read of the last ones. It gives itself away
    /// by standing later on the log than the versions after it; the event is the first message there. (An event stands
    /// there too where somebody stored the version after it too early.)
    async fn restore_overwritten(&self, read: &mut [Stored]) -> Result<(), StoreError> {
        let mut earliest = u64::MAX;
        let mut late = Vec::new();
        for (place, stored) in read.iter().enumerate().rev() {
            if stored.sequence > earliest {
                late.push(place);
            }
            earliest = earliest.min(stored.sequence);
        }
        for place in late {
            let first = self.log.get_first(&read[place].subject).await?;
            if let Some(first) = first.filter(|first| first.sequence != read[place].sequence) {
                self.leave_out(&read[place], first.version());
                read[place] = first;
            }
        }
        read.sort_by_key(|stored| (stored.version(), stored.sequence));
        Ok(())
    }

    fn leave_out(&self, stored: &Stored, at: u64) {
        counter!("jetkit_foreign_messages_total", "entity" => self.entity).increment(1);
        error!(
            entity = self.entity,
            entity.id = %self.id,
            entity.version = at,
            event.subject = stored.subject,
            event.sequence = stored.sequence,
            "a message that no aggregate appended is left out of a history; find out who may write to this subject"
        );
    }
}

impl EventLog {
    /// Reads, trying again while the log is not available, until its deadline.
    pub(super) async fn read_retrying(&self, filters: &[String]) -> Result<Vec<Stored>, StoreError> {
        debug_assert!(filters.len() <= MAX_READ, "a read carries at most {MAX_READ} events");
        let deadline = Instant::now() + self.deadline();
        loop {
            match self.get_last_of_each(filters).await {
                Err(StoreError::Unavailable(_)) if Instant::now() < deadline => pause(8).await,
                read => return read,
            }
        }
    }
}
