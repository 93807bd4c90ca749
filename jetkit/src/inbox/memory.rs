//! An idempotency set in memory, for tests: clones share it, as replicas would.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio::time::Instant;

use super::{Claim, Ended, Grant, Inbox, InboxError, Key, Turn};

/// Forgets everything when the last clone is dropped. For tests, and for consumers whose effects are idempotent anyway.
#[derive(Debug, Clone)]
pub struct MemoryInbox {
    lease: Duration,
    entries: Arc<Mutex<HashMap<Key, Entry>>>,
}

#[derive(Debug, Clone, Copy)]
enum Entry {
    Done,
    Running { grant: Grant, until: Instant },
    Ended(Ended),
}

impl MemoryInbox {
    /// An empty set whose claims run out after `lease`.
    pub fn new(lease: Duration) -> Self {
        Self { lease, entries: Arc::default() }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim_now(&self, key: Key, delivery: Turn) -> Claim {
        let mut entries = self.entries();
        let grant = match entries.get(&key) {
            Some(Entry::Done) => return Claim::Done,
            Some(Entry::Running { until, .. }) if *until > Instant::now() => return Claim::Held,
            Some(Entry::Running { grant, .. }) => {
                Grant { attempt: grant.attempt + 1, unfinished: true, ..*grant }
            }
            Some(Entry::Ended(Ended { attempts, postponed, first_failed_at })) => Grant {
                attempt: attempts + 1,
                unfinished: false,
                postponed: *postponed,
                first_failed_at: Some(*first_failed_at),
            },
            // Before a redelivery there was a first delivery, of which nothing was written down.
            None => Grant { attempt: if delivery == Turn::Again { 2 } else { 1 }, ..Grant::first() },
        };
        if delivery != Turn::First {
            entries.insert(key, Entry::Running { grant, until: Instant::now() + self.lease });
        }
        Claim::Granted(grant)
    }
}

impl Inbox for MemoryInbox {
    fn claim(&self, key: Key, delivery: Turn) -> BoxFuture<'_, Result<Claim, InboxError>> {
        ready(Ok(self.claim_now(key, delivery))).boxed()
    }

    fn done<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<(), InboxError>> {
        self.entries().extend(keys.iter().map(|key| (*key, Entry::Done)));
        ready(Ok(())).boxed()
    }

    fn release(&self, key: Key, ended: Ended) -> BoxFuture<'_, Result<(), InboxError>> {
        self.entries().insert(key, Entry::Ended(ended));
        ready(Ok(())).boxed()
    }

    fn is_suspect(&self, key: Key) -> bool {
        matches!(self.entries().get(&key), Some(Entry::Running { until, .. }) if *until <= Instant::now())
    }

    fn is_done(&self, key: Key) -> bool {
        matches!(self.entries().get(&key), Some(Entry::Done))
    }
}
