//! An aggregate in memory, between one command and the next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::history::Read;
use super::{Answer, Executed, Loaded};
use crate::StoreError;
use crate::log::Stored;
use crate::{Aggregate, EntityId, EventId};

/// How many of an entity's latest event ids are remembered, to recognise a command given again.
pub(super) const REMEMBERED: usize = 4096;

/// An aggregate kept in memory, with what is remembered of its latest events.
#[derive(Debug)]
pub(super) struct Hot<A> {
    pub(super) loaded: Loaded<A>,
    /// Fingerprints of the latest events' ids, oldest first; the last one is that of the event at `loaded.version`.
    pub(super) recent: VecDeque<u32>,
    /// The version of the latest snapshot that is known of.
    pub(super) snapshot_at: u64,
    /// How large that one is, in bytes; shared with who writes it. 0 if that is not known.
    pub(super) snapshot_bytes: Arc<AtomicU64>,
    /// The log may hold more than this: it is to be read on from here.
    pub(super) behind: bool,
    /// The state is not to be used: taking an event into it did not come to an end.
    pub(super) torn: bool,
    /// The connection by which the log was last seen to hold all of it; 0 if by none.
    pub(super) connects: u64,
    /// The first version after a hole at which a foreign message stands.
    beyond: Option<u64>,
}

impl<A: Aggregate> Default for Hot<A> {
    fn default() -> Self {
        Self::from_snapshot(A::default(), 0, 0, VecDeque::new())
    }
}

impl<A: Aggregate> Hot<A> {
    pub(super) fn from_snapshot(state: A, version: u64, sequence: u64, recent: VecDeque<u32>) -> Self {
        Self {
            loaded: Loaded { state, version, sequence },
            recent,
            snapshot_at: version,
            snapshot_bytes: Arc::default(),
            behind: true,
            torn: false,
            connects: 0,
            beyond: None,
        }
    }

    /// The versions at which an event with that id may stand, latest first: nearly always none or one. The log tells.
    pub(super) fn perhaps_at(&self, id: &EventId) -> Vec<u64> {
        let wanted = fingerprint(id);
        // Every command asks, and for nearly every one there is none: a sum, which looks at all of them, is compiled to
        // vector instructions.
        let (older, newer) = self.recent.as_slices();
        let found_in = |part: &[u32]| part.iter().map(|found| u32::from(*found == wanted)).sum::<u32>();
        if found_in(older) + found_in(newer) == 0 {
            return Vec::new();
        }
        let latest_first = (1..=self.loaded.version).rev().zip(self.recent.iter().rev());
        latest_first.filter(|(_, found)| **found == wanted).map(|(version, _)| version).collect()
    }

    /// Whether this is the event at its version. Where no id is remembered, none speaks against it.
    pub(super) fn ends_with(&self, stored: Option<&Stored>) -> bool {
        let at_its_place = stored.filter(|stored| stored.sequence == self.loaded.sequence);
        let event = at_its_place.and_then(|stored| stored.decode::<A::Event>().ok());
        event.is_some_and(|event| self.recent.back().is_none_or(|last| *last == fingerprint(&event.meta.id)))
    }

    /// Takes in what was read after it. At an error, all that came before is in.
    pub(super) fn take_in(&mut self, read: Read) -> Result<(), StoreError> {
        for stored in read.stored {
            let recorded = stored.decode::<A::Event>()?;
            self.apply(&recorded.event, &recorded.meta.id, recorded.sequence);
        }
        self.beyond = read.beyond;
        Ok(())
    }

    /// What a command led to that left the entity so.
    pub(super) fn executed(&self, events: Vec<A::Event>, answer: Answer) -> Executed<A> {
        let Loaded { state, version, sequence } = &self.loaded;
        let state = match answer {
            Answer::WithState => state.clone(),
            Answer::Done => A::default(),
        };
        Executed { state, version: *version, sequence: *sequence, events, repeated: false }
    }

    /// Whether nothing stands where so many events would come.
    pub(super) fn check_room(&self, id: &EntityId, events: u64) -> Result<(), StoreError> {
        let version = self.loaded.version;
        match self.beyond {
            Some(found) if found <= version + events => {
                let id = id.clone();
                Err(StoreError::Blocked { entity: A::ENTITY, id, expected: version + 1, found })
            }
            _ => Ok(()),
        }
    }

    /// Takes in what was appended after it.
    pub(super) fn record(&mut self, events: &[A::Event], ids: &[EventId], sequence: u64) {
        for (event, id) in events.iter().zip(ids) {
            self.apply(event, id, sequence);
        }
        self.behind = false;
    }

    fn apply(&mut self, event: &A::Event, id: &EventId, sequence: u64) {
        // A panic in here leaves half an event in the state.
        self.torn = true;
        self.loaded.state.apply(event);
        self.torn = false;
        self.loaded.version += 1;
        self.loaded.sequence = sequence;
        self.remember(id);
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
