//! A projection without a broker: its tables in memory, and events as a test makes them up.

use std::marker::PhantomData;

use rusqlite::Connection;

use crate::Projection;
use crate::projection::Tables;

/// The tables of a `P` after some events.
#[derive(Debug)]
pub struct Projected<P> {
    db: Connection,
    projection: PhantomData<P>,
}

impl<P: Projection> Projected<P> {
    /// After these events. Fails the test if one cannot be taken in.
    pub fn after(events: impl IntoIterator<Item = P::Event>) -> Self {
        let db = Connection::open_in_memory().expect("a database in memory");
        db.execute_batch(P::SCHEMA).expect("a valid schema");
        let mut projected = Self { db, projection: PhantomData };
        for event in events {
            projected.take(&event).expect("an event that can be taken in");
        }
        projected
    }

    /// Takes in one more, or says why it would be parked.
    pub fn take(&mut self, event: &P::Event) -> anyhow::Result<()> {
        let transaction = self.db.transaction()?;
        P::apply(&Tables::of(&transaction), event)?;
        Ok(transaction.commit()?)
    }

    /// Reads, as a handler does.
    pub fn read<T>(&self, read: impl FnOnce(&Tables<'_>) -> rusqlite::Result<T>) -> T {
        read(&Tables::of(&self.db)).expect("a query that works")
    }
}
