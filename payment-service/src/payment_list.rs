//! What readers see of payments: one by its id, a list by order.

use common::money::{Currency, Money};
use common::payment::{PaymentEvent, PaymentMethodKind, PaymentOutcome};
use jetkit::http::{Page, PageQuery};
use jetkit::projection::{
    Conditions, Json, List, Order, OutOfTurn, Row, Tables, Word, params, rusqlite, unreadable_row,
};
use jetkit::{EntityId, EventSet, Projection, Recorded};

use crate::payment::PaymentStatus;

/// Every payment, by its id.
#[derive(Debug)]
pub struct PaymentList;

/// One payment.
#[derive(Debug, Clone, PartialEq)]
pub struct PaymentSummary {
    /// The payment.
    pub payment_id: EntityId,
    /// How many events that is.
    pub version: u64,
    /// What it is for.
    pub order_id: EntityId,
    /// Where it stands.
    pub status: PaymentStatus,
    /// What was tried, if anything was.
    pub tried: Option<Tried>,
}

/// What was tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// How much.
    pub amount: Money,
    /// By what.
    pub payment_method: PaymentMethodKind,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// What the gateway knows it by.
    pub reference: Option<String>,
}

const COLUMNS: &str =
    "payment_id, version, order_id, status, amount, currency, payment_method, failure, reference";

impl PaymentSummary {
    /// One payment.
    pub fn find(tables: &Tables<'_>, payment_id: &EntityId) -> rusqlite::Result<Option<Self>> {
        tables.first(
            &format!("SELECT {COLUMNS} FROM payments WHERE payment_id = ?1"),
            [payment_id],
            Self::read,
        )
    }

    /// The payments for one order, or all.
    pub fn list(
        tables: &Tables<'_>,
        order_id: Option<EntityId>,
        page: &PageQuery,
    ) -> rusqlite::Result<Page<Self>> {
        let matching = Conditions::default().equal("order_id", order_id);
        let order = Order::Ascending("payment_id");
        tables.page(List { columns: COLUMNS, from: "payments", matching, order }, page, Self::read)
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let tried = match row.get("currency")? {
            None => None,
            Some(Word::<Currency>(currency)) => Some(Tried {
                amount: Money::new(row.get("amount")?, currency).map_err(unreadable_row)?,
                payment_method: row.get::<_, Json<_>>("payment_method")?.0,
                failure: row.get("failure")?,
                reference: row.get("reference")?,
            }),
        };
        Ok(Self {
            payment_id: row.get("payment_id")?,
            version: row.get("version")?,
            order_id: row.get("order_id")?,
            status: row.get::<_, Word<_>>("status")?.0,
            tried,
        })
    }
}

impl Projection for PaymentList {
    const NAME: &'static str = "payments";
    const VERSION: u32 = 2;
    const SCHEMA: &'static str = "
        CREATE TABLE payments (
            payment_id TEXT PRIMARY KEY,
            version INTEGER NOT NULL,
            order_id TEXT NOT NULL,
            status TEXT NOT NULL,
            amount INTEGER, -- minor units; this and the rest where something was tried
            currency TEXT,
            payment_method TEXT, -- JSON
            failure TEXT,
            reference TEXT
        ) WITHOUT ROWID;
        CREATE INDEX payments_of_order ON payments (order_id);
    ";
    type Event = Recorded<PaymentEvent>;

    fn apply(tables: &Tables<'_>, event: &Recorded<PaymentEvent>) -> anyhow::Result<()> {
        let (payment_id, version) = (event.entity_id(), event.version);
        if version == 1 {
            // Any of them may be the first. What it is, is said below.
            tables.run(
                "INSERT INTO payments (payment_id, version, order_id, status) VALUES (?1, 0, ?2, ?3)",
                params![payment_id, order_of(&event.event), Word(PaymentStatus::Voided)],
            )?;
        }
        let rows = match &event.event {
            PaymentEvent::Processed(processed) => {
                let status = match processed.status {
                    PaymentOutcome::Success => PaymentStatus::Success,
                    PaymentOutcome::Failed => PaymentStatus::Failed,
                };
                tables.run(
                    "UPDATE payments SET version = ?2, status = ?3, amount = ?4, currency = ?5, payment_method = ?6,
                                         failure = ?7, reference = ?8
                     WHERE payment_id = ?1 AND version = ?2 - 1",
                    params![
                        payment_id,
                        version,
                        Word(status),
                        processed.amount.minor(),
                        Word(processed.amount.currency()),
                        Json(&processed.payment_method),
                        processed.failure,
                        processed.reference,
                    ],
                )?
            }
            PaymentEvent::Refunded(_) => tables.run(
                "UPDATE payments SET version = ?2, status = ?3 WHERE payment_id = ?1 AND version = ?2 - 1",
                params![payment_id, version, Word(PaymentStatus::Refunded)],
            )?,
            // A payment that failed stays one that failed.
            PaymentEvent::Voided(_) => tables.run(
                "UPDATE payments SET version = ?2 WHERE payment_id = ?1 AND version = ?2 - 1",
                params![payment_id, version],
            )?,
        };
        Ok(OutOfTurn::unless_changed(rows, event)?)
    }
}

fn order_of(event: &PaymentEvent) -> &EntityId {
    match event {
        PaymentEvent::Processed(processed) => &processed.order_id,
        PaymentEvent::Refunded(refunded) => &refunded.order_id,
        PaymentEvent::Voided(voided) => &voided.order_id,
    }
}
