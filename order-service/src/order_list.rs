//! What readers see of orders: one by its id, lists by customer and status.

use std::ops::RangeInclusive;

use common::money::{Currency, Money};
use common::order::{CancelReason, OrderEvent, OrderItem, PaymentMethod};
use jetkit::http::{Page, PageQuery};
use jetkit::projection::{
    Conditions, Json, List, Order, OutOfTurn, Row, Tables, Word, params, rusqlite, unreadable_row,
};
use jetkit::{EntityId, EventSet, Projection, Recorded};

use crate::order::OrderStatus;

/// Every order, in the order of placing.
#[derive(Debug)]
pub struct OrderList;

/// One order. Its card, if one pays, is not in it.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderSummary {
    /// The order.
    pub order_id: EntityId,
    /// How many events it is the sum of.
    pub version: u64,
    /// Where it stands.
    pub status: OrderStatus,
    /// Who ordered.
    pub customer_id: EntityId,
    /// Where mails about it go.
    pub customer_email: Option<String>,
    /// What was ordered.
    pub items: Vec<OrderItem>,
    /// What is to be paid.
    pub total: Money,
    /// `account`, `card` or `external`.
    pub pays_by: String,
    /// The account that pays, if one does.
    pub account_id: Option<EntityId>,
    /// The payment that paid it.
    pub payment_id: Option<EntityId>,
    /// Who carries it.
    pub carrier: Option<String>,
    /// What the carrier knows it by.
    pub tracking_number: Option<String>,
    /// Why it was cancelled.
    pub cancel_reason: Option<CancelReason>,
    /// More about that.
    pub cancel_detail: Option<String>,
}

const COLUMNS: &str = "order_id, version, status, customer_id, customer_email, items, total, currency, pays_by, \
                       account_id, payment_id, carrier, tracking_number, cancel_reason, cancel_detail";

impl OrderSummary {
    /// One order.
    pub fn find(tables: &Tables<'_>, order_id: &EntityId) -> rusqlite::Result<Option<Self>> {
        tables.first(&format!("SELECT {COLUMNS} FROM orders WHERE order_id = ?1"), [order_id], Self::read)
    }

    /// The orders of one customer, or of all, that stand at `status`, or anywhere.
    pub fn list(
        tables: &Tables<'_>,
        customer_id: Option<EntityId>,
        status: Option<OrderStatus>,
        page: &PageQuery,
    ) -> rusqlite::Result<Page<Self>> {
        let matching =
            Conditions::default().equal("customer_id", customer_id).equal("status", status.map(Word));
        let order = Order::Ascending("place");
        tables.page(List { columns: COLUMNS, from: "orders", matching, order }, page, Self::read)
    }

    /// Finds the first `limit` orders that are neither confirmed nor cancelled, and were placed at one of these sequences, with
    /// where each was placed.
    pub fn waiting(
        tables: &Tables<'_>,
        paid_outside: bool,
        places: RangeInclusive<u64>,
        limit: usize,
    ) -> rusqlite::Result<Vec<(u64, EntityId)>> {
        tables.all(
            "SELECT place, order_id FROM orders
             WHERE status = ?1 AND (pays_by = 'external') = ?2 AND place BETWEEN ?3 AND ?4 ORDER BY place LIMIT ?5",
            params![Word(OrderStatus::Placed), paid_outside, places.start(), places.end(), limit],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let Word(currency) = row.get::<_, Word<Currency>>("currency")?;
        let total = Money::new(row.get("total")?, currency).map_err(unreadable_row)?;
        Ok(Self {
            order_id: row.get("order_id")?,
            version: row.get("version")?,
            status: row.get::<_, Word<_>>("status")?.0,
            customer_id: row.get("customer_id")?,
            customer_email: row.get("customer_email")?,
            items: row.get::<_, Json<_>>("items")?.0,
            total,
            pays_by: row.get("pays_by")?,
            account_id: row.get("account_id")?,
            payment_id: row.get("payment_id")?,
            carrier: row.get("carrier")?,
            tracking_number: row.get("tracking_number")?,
            cancel_reason: row.get::<_, Option<Word<_>>>("cancel_reason")?.map(|Word(reason)| reason),
            cancel_detail: row.get("cancel_detail")?,
        })
    }
}

impl Projection for OrderList {
    const NAME: &'static str = "orders";
    const SCHEMA: &'static str = "
        CREATE TABLE orders (
            place INTEGER PRIMARY KEY, -- of its first event on the log
            order_id TEXT NOT NULL UNIQUE,
            version INTEGER NOT NULL,
            status TEXT NOT NULL,
            customer_id TEXT NOT NULL,
            customer_email TEXT,
            items TEXT NOT NULL, -- JSON
            total INTEGER NOT NULL, -- minor units
            currency TEXT NOT NULL,
            pays_by TEXT NOT NULL,
            account_id TEXT,
            payment_id TEXT,
            carrier TEXT,
            tracking_number TEXT,
            cancel_reason TEXT,
            cancel_detail TEXT
        );
        CREATE INDEX orders_of_customer ON orders (customer_id, status);
        CREATE INDEX orders_at_status ON orders (status);
    ";
    type Event = Recorded<OrderEvent>;

    fn apply(tables: &Tables<'_>, event: &Recorded<OrderEvent>) -> anyhow::Result<()> {
        let (order_id, version) = (event.entity_id(), event.version);
        let rows = match &event.event {
            OrderEvent::Placed(placed) => {
                let (pays_by, account_id) = match &placed.payment_method {
                    PaymentMethod::Account { account_id } => ("account", Some(account_id)),
                    PaymentMethod::Card { .. } => ("card", None),
                    PaymentMethod::External {} => ("external", None),
                };
                tables.run(
                    "INSERT INTO orders (place, order_id, version, status, customer_id, customer_email, items, total,
                                         currency, pays_by, account_id)
                     SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11 WHERE ?3 = 1",
                    params![
                        event.sequence,
                        order_id,
                        version,
                        Word(OrderStatus::Placed),
                        placed.customer_id,
                        placed.customer_email,
                        Json(&placed.items),
                        placed.total.minor(),
                        Word(placed.total.currency()),
                        pays_by,
                        account_id,
                    ],
                )?
            }
            OrderEvent::Confirmed(confirmed) => tables.run(
                "UPDATE orders SET version = ?2, status = ?3, payment_id = ?4 WHERE order_id = ?1 AND version = ?2 - 1",
                params![order_id, version, Word(OrderStatus::Confirmed), confirmed.payment_id],
            )?,
            OrderEvent::Shipped(shipped) => tables.run(
                "UPDATE orders SET version = ?2, status = ?3, carrier = ?4, tracking_number = ?5
                 WHERE order_id = ?1 AND version = ?2 - 1",
                params![
                    order_id,
                    version,
                    Word(OrderStatus::Shipped),
                    shipped.carrier,
                    shipped.tracking_number
                ],
            )?,
            OrderEvent::Cancelled(cancelled) => tables.run(
                "UPDATE orders SET version = ?2, status = ?3, cancel_reason = ?4, cancel_detail = ?5
                 WHERE order_id = ?1 AND version = ?2 - 1",
                params![
                    order_id,
                    version,
                    Word(OrderStatus::Cancelled),
                    Word(cancelled.reason),
                    cancelled.detail
                ],
            )?,
        };
        Ok(OutOfTurn::unless_changed(rows, event)?)
    }
}
