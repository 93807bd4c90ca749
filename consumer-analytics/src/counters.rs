//! Counters in rows: a table has a row for each key, made when something is first counted in it.

use common::money::{Currency, Money};
use jetkit::projection::{Tables, ToSql, Word, params, rusqlite};

/// A table of counters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counters {
    pub(crate) table: &'static str,
    pub(crate) key: &'static str,
}

/// A table of counters that has a row for each key and currency. Money is in it in minor units.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums {
    pub(crate) table: &'static str,
    pub(crate) key: &'static str,
}

impl Counters {
    /// Adds to a counter.
    pub(crate) fn add(
        self,
        tables: &Tables<'_>,
        of: impl ToSql,
        counter: &str,
        by: i64,
    ) -> rusqlite::Result<()> {
        let Self { table, key } = self;
        let sql = format!(
            "INSERT INTO {table} ({key}, {counter}) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET {counter} = {counter} + excluded.{counter}"
        );
        tables.run(&sql, params![of, by]).map(drop)
    }
}

impl Sums {
    /// Adds to a counter that there is in each currency.
    pub(crate) fn add(
        self,
        tables: &Tables<'_>,
        of: impl ToSql,
        currency: Currency,
        counter: &str,
        by: i64,
    ) -> rusqlite::Result<()> {
        let Self { table, key } = self;
        let sql = format!(
            "INSERT INTO {table} ({key}, currency, {counter}) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET {counter} = {counter} + excluded.{counter}"
        );
        tables.run(&sql, params![of, Word(currency), by]).map(drop)
    }

    /// Adds money.
    pub(crate) fn add_money(
        self,
        tables: &Tables<'_>,
        of: impl ToSql,
        counter: &str,
        amount: Money,
    ) -> rusqlite::Result<()> {
        self.add(tables, of, amount.currency(), counter, amount.minor())
    }

    /// Takes money away.
    pub(crate) fn take_money(
        self,
        tables: &Tables<'_>,
        of: impl ToSql,
        counter: &str,
        amount: Money,
    ) -> rusqlite::Result<()> {
        self.add(tables, of, amount.currency(), counter, -amount.minor())
    }
}
