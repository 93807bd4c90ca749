//! What readers see of accounts: one by its id.

use common::account::AccountEvent;
use common::money::{Currency, Money};
use jetkit::projection::{OutOfTurn, Row, Tables, Word, params, rusqlite, unreadable_row};
use jetkit::{EntityId, EventSet, Projection, Recorded};

use crate::account::Ledger;

/// Every account.
#[derive(Debug)]
pub struct AccountList;

/// One account.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountSummary {
    /// What is on it.
    pub ledger: Ledger,
    /// How many events that is.
    pub version: u64,
}

impl AccountSummary {
    /// One account.
    pub fn find(tables: &Tables<'_>, account_id: &EntityId) -> rusqlite::Result<Option<Self>> {
        let one = "SELECT account_id, version, owner, balance, currency FROM accounts WHERE account_id = ?1";
        tables.first(one, [account_id], Self::read)
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let Word(currency) = row.get::<_, Word<Currency>>("currency")?;
        let balance = Money::new(row.get("balance")?, currency).map_err(unreadable_row)?;
        let ledger = Ledger { account_id: row.get("account_id")?, owner: row.get("owner")?, balance };
        Ok(Self { ledger, version: row.get("version")? })
    }
}

impl Projection for AccountList {
    const NAME: &'static str = "accounts";
    const SCHEMA: &'static str = "
        CREATE TABLE accounts (
            account_id TEXT PRIMARY KEY,
            version INTEGER NOT NULL,
            owner TEXT NOT NULL,
            balance INTEGER NOT NULL, -- minor units
            currency TEXT NOT NULL
        ) WITHOUT ROWID;
    ";
    type Event = Recorded<AccountEvent>;

    fn apply(tables: &Tables<'_>, event: &Recorded<AccountEvent>) -> anyhow::Result<()> {
        let account_id = event.entity_id();
        let before = |tables| {
            anyhow::Ok(AccountSummary::find(tables, account_id)?.map(|account| account.ledger.balance))
        };
        // The sum is Money's, which is never wrong; SQLite's would turn into a float where it overflows.
        let balance = match &event.event {
            AccountEvent::Opened(opened) => {
                let balance = opened.initial_balance;
                let rows = tables.run(
                    "INSERT INTO accounts SELECT ?1, ?2, ?3, ?4, ?5 WHERE ?2 = 1",
                    params![
                        account_id,
                        event.version,
                        opened.owner,
                        balance.minor(),
                        Word(balance.currency())
                    ],
                )?;
                return Ok(OutOfTurn::unless_changed(rows, event)?);
            }
            AccountEvent::Deposited(deposited) => {
                before(tables)?.map(|balance| balance.plus(deposited.amount))
            }
            AccountEvent::Withdrawn(withdrawn) => {
                before(tables)?.map(|balance| balance.minus(withdrawn.amount))
            }
        };
        let rows = match balance.transpose()? {
            Some(balance) => tables.run(
                "UPDATE accounts SET version = ?2, balance = ?3 WHERE account_id = ?1 AND version = ?2 - 1",
                params![account_id, event.version, balance.minor()],
            )?,
            None => 0,
        };
        Ok(OutOfTurn::unless_changed(rows, event)?)
    }
}
