//! The latest attempt at each event that is not done, as far as there is room in memory; the stream has them all.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::Key;

/// An attempt that was seen on the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeenClaim {
    pub(super) sequence: u64,
    pub(super) attempt: u32,
    pub(super) finished: bool,
    pub(super) until: Instant,
    pub(super) postponed: u32,
    pub(super) first_failed_at: Option<DateTime<Utc>>,
}

/// Attempts by event, and in the order in which they were seen: one that is read again from the stream is new here.
#[derive(Debug)]
pub(super) struct Claims {
    latest: HashMap<Key, (u64, SeenClaim)>,
    order: BTreeMap<u64, Key>,
    seen: u64,
    at_most: usize,
}

impl Claims {
    pub(super) fn new(at_most: usize) -> Self {
        Self { latest: HashMap::new(), order: BTreeMap::new(), seen: 0, at_most: at_most.max(1) }
    }

    pub(super) fn get(&self, key: Key) -> Option<&SeenClaim> {
        // Nearly always there is none at all.
        if self.latest.is_empty() { None } else { self.latest.get(&key).map(|(_, claim)| claim) }
    }

    pub(super) fn len(&self) -> usize {
        self.latest.len()
    }

    /// Takes an attempt, unless a later one is known. Where there is no room, the oldest goes; returns how many went.
    pub(super) fn see(&mut self, key: Key, claim: SeenClaim) -> u64 {
        if self.get(key).is_some_and(|known| known.sequence >= claim.sequence) {
            return 0;
        }
        self.remove(key);
        self.seen += 1;
        self.latest.insert(key, (self.seen, claim));
        self.order.insert(self.seen, key);
        let mut dropped = 0;
        while self.latest.len() > self.at_most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.latest.remove(&oldest);
            dropped += 1;
        }
        dropped
    }

    pub(super) fn remove(&mut self, key: Key) {
        if let Some((seen, _)) = self.latest.remove(&key) {
            self.order.remove(&seen);
        }
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.latest.clear();
        self.order.clear();
    }

    /// Forgets the oldest for as long as they are `old`.
    pub(super) fn forget_while(&mut self, old: impl Fn(&SeenClaim) -> bool) {
        while let Some((_, &key)) = self.order.first_key_value()
            && self.get(key).is_none_or(&old)
        {
            self.order.pop_first();
            self.latest.remove(&key);
        }
    }
}
