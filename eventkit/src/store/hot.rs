//! An aggregate in memory, between one command and the next.

use std::collections::VecDeque;

use super::history::Read;
use super::{Executed, Loaded};
use crate::log::StoreError;
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

    /// Whether the event at its version may be this one. Where nothing is remembered, nothing speaks against it.
    pub(super) fn may_end_with(&self, id: &EventId) -> bool {
        self.recent.back().is_none_or(|last| *last == fingerprint(id))
    }

    /// The same with what was read after it.
    pub(super) fn with_all(mut self, read: Read) -> Result<Self, StoreError> {
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

    /// What a command led to that left the entity so.
    pub(super) fn executed(&self, events: Vec<A::Event>) -> Executed<A> {
        let Loaded { state, version, sequence } = self.loaded.clone();
        Executed { state, version, sequence, events, repeated: false }
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

    pub(super) fn after(mut self, events: &[A::Event], ids: &[EventId], sequence: u64) -> Self {
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
