//! A projection's tables in memory: what events do to them and what readers see, without a broker.

use std::fmt;
use std::marker::PhantomData;

use rusqlite::Connection;

use crate::Projection;
use crate::projection::Tables;

/// The tables of a projection, folded from the events that a test gives.
pub struct Folded<P> {
    db: Connection,
    projection: PhantomData<fn() -> P>,
}

impl<P: Projection> Folded<P> {
    /// The tables after these events, each of which must be taken in.
    pub fn of(events: impl IntoIterator<Item = P::Event>) -> Self {
        let db = Connection::open_in_memory().expect("a database in memory");
        db.execute_batch(P::SCHEMA).expect("the projection's tables");
        let mut folded = Self { db, projection: PhantomData };
        for event in events {
            folded.apply(&event).expect("an event that is taken in");
        }
        folded
    }

    /// Takes one event in. An error says why it would be parked; it has no effect then.
    pub fn apply(&mut self, event: &P::Event) -> anyhow::Result<()> {
        let transaction = self.db.transaction()?;
        P::apply(&Tables::of(&transaction), event)?;
        Ok(transaction.commit()?)
    }

    /// What a reader sees.
    pub fn read<T>(&self, read: impl FnOnce(&Tables<'_>) -> rusqlite::Result<T>) -> T {
        read(&Tables::of(&self.db)).expect("a query that works")
    }
}

impl<P: Projection> fmt::Debug for Folded<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folded").field("projection", &P::NAME).finish_non_exhaustive()
    }
}
