//! The fold of the log into the shop's numbers. Read [`ShopMetrics`] first.
//!
//! The read model gives every stored event once and in order, so the numbers are exact however often something was
//! delivered or published. Everything is a whole number: counts, minor units, milliseconds.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use common::money::{Currency, Money};
use common::order::{OrderCancelled, OrderConfirmed, OrderItem, OrderPlaced, OrderShipped};
use common::payment::{PaymentOutcome, PaymentProcessed, PaymentRefunded, PaymentVoided};
use jetkit::projection::{Json, OutOfTurn, Tables, Word, params, rusqlite};
use jetkit::{EntityId, EventSet, Projection, Recorded};
use serde::{Deserialize, Serialize};

use crate::counters::{Counters, Sums};
use crate::durations::{three_digits, whole_ms};

/// The most payment methods and failure codes that are counted apart. Other producers name them, so there could be any
/// number; the rest is counted as [`OTHER`].
const MAX_LABELS: i64 = 50;

/// What is counted under no name of its own.
pub const OTHER: &str = "other";

const STATUSES: Counters = Counters { table: "statuses", key: "status" };
const DAYS: Counters = Counters { table: "days", key: "day" };
const DAY_SUMS: Sums = Sums { table: "day_sums", key: "day" };
const CUSTOMER_SUMS: Sums = Sums { table: "customer_sums", key: "customer_id" };
const PRODUCT_SUMS: Sums = Sums { table: "product_sums", key: "product_id" };
const METHODS: Counters = Counters { table: "methods", key: "method" };
const METHOD_SUMS: Sums = Sums { table: "method_sums", key: "method" };
const FAILURES: Counters = Counters { table: "failures", key: "reason" };

jetkit::events! {
    /// What is measured. Stock, accounts, users and mails are not.
    pub enum SalesEvent {
        OrderPlaced(OrderPlaced),
        OrderConfirmed(OrderConfirmed),
        OrderShipped(OrderShipped),
        OrderCancelled(OrderCancelled),
        PaymentProcessed(PaymentProcessed),
        PaymentRefunded(PaymentRefunded),
        PaymentVoided(PaymentVoided),
    }
}

/// The shop in numbers: what is known about every order, and counters over all of them.
///
/// A payment may come before its order (another producer's), and counts by itself at once; what it says about the order,
/// its customer and its products counts when the order is placed. A day's numbers are of what happened on it, in UTC, by the
/// time that the event's producer gives it. Everything else goes by the log: what stands later on it is the later, and how
/// long something took is between two times of the server.
#[derive(Debug)]
pub struct ShopMetrics;

/// Where an order stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// None of the others yet.
    #[default]
    Placed,
    /// Reserved and paid.
    Confirmed,
    /// On its way.
    Shipped,
    /// Off.
    Cancelled,
}

impl Projection for ShopMetrics {
    const NAME: &'static str = "shop_metrics";
    // 2: what came later, and how long something took, the server's clock says and not its producer's.
    const VERSION: u32 = 2;
    // STRICT: a sum beyond 64 bits is refused. Otherwise it would become a float.
    const SCHEMA: &'static str = "
        CREATE TABLE orders (
            order_id TEXT PRIMARY KEY,
            version INTEGER NOT NULL, -- 0: it was paid, but is not placed yet
            status TEXT NOT NULL,
            placed TEXT, -- JSON
            paid_at TEXT, -- first
            paid TEXT NOT NULL, -- JSON: minor units by currency, less what was given back
            payments_kept INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE payments (
            payment_id TEXT PRIMARY KEY,
            version INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE statuses (
            status TEXT PRIMARY KEY,
            orders INTEGER NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE days (
            day TEXT PRIMARY KEY,
            orders INTEGER NOT NULL DEFAULT 0,
            cancelled INTEGER NOT NULL DEFAULT 0,
            succeeded INTEGER NOT NULL DEFAULT 0,
            failed INTEGER NOT NULL DEFAULT 0,
            refunds INTEGER NOT NULL DEFAULT 0,
            voided INTEGER NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE day_sums (
            day TEXT NOT NULL,
            currency TEXT NOT NULL,
            orders INTEGER NOT NULL DEFAULT 0,
            ordered INTEGER NOT NULL DEFAULT 0,
            paid INTEGER NOT NULL DEFAULT 0,
            refunded INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (day, currency)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE customers (
            customer_id TEXT PRIMARY KEY,
            orders INTEGER NOT NULL,
            cancelled INTEGER NOT NULL,
            last_order_at TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX customers_by_orders ON customers (orders DESC, customer_id);
        CREATE TABLE customer_sums (
            customer_id TEXT NOT NULL,
            currency TEXT NOT NULL,
            ordered INTEGER NOT NULL DEFAULT 0,
            paid INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (customer_id, currency)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE products (
            product_id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            orders INTEGER NOT NULL,
            units_ordered INTEGER NOT NULL,
            units_sold INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX products_by_units_ordered ON products (units_ordered DESC, product_id);
        CREATE TABLE product_sums (
            product_id TEXT NOT NULL,
            currency TEXT NOT NULL,
            revenue INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (product_id, currency)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE methods (
            method TEXT PRIMARY KEY,
            succeeded INTEGER NOT NULL DEFAULT 0,
            failed INTEGER NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE method_sums (
            method TEXT NOT NULL,
            currency TEXT NOT NULL,
            paid INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (method, currency)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE failures (
            reason TEXT PRIMARY KEY,
            payments INTEGER NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE waits ( -- from an order to its first payment
            three_digits INTEGER PRIMARY KEY, -- of the milliseconds
            orders INTEGER NOT NULL,
            sum_ms INTEGER NOT NULL
        ) STRICT;
    ";
    type Event = Recorded<SalesEvent>;

    fn apply(tables: &Tables<'_>, event: &Recorded<SalesEvent>) -> anyhow::Result<()> {
        let at = event.meta.time;
        match &event.event {
            SalesEvent::OrderPlaced(e) => Order::next(tables, event)?.place(tables, e, at, event.stored_at),
            SalesEvent::OrderConfirmed(_) => {
                Order::next(tables, event)?.move_to(tables, OrderStatus::Confirmed, at)
            }
            SalesEvent::OrderShipped(_) => {
                Order::next(tables, event)?.move_to(tables, OrderStatus::Shipped, at)
            }
            SalesEvent::OrderCancelled(_) => {
                Order::next(tables, event)?.move_to(tables, OrderStatus::Cancelled, at)
            }
            SalesEvent::PaymentProcessed(e) => {
                next_of_payment(tables, event)?;
                count_payment(tables, e, at)?;
                match e.status {
                    PaymentOutcome::Success => {
                        Order::load(tables, &e.order_id)?.pay(tables, e.amount, event.stored_at)
                    }
                    PaymentOutcome::Failed => Ok(()),
                }
            }
            SalesEvent::PaymentRefunded(e) => {
                next_of_payment(tables, event)?;
                DAYS.add(tables, day(at), "refunds", 1)?;
                DAY_SUMS.add_money(tables, day(at), "refunded", e.amount)?;
                Order::load(tables, &e.order_id)?.refund(tables, e.amount)
            }
            SalesEvent::PaymentVoided(_) => {
                next_of_payment(tables, event)?;
                Ok(DAYS.add(tables, day(at), "voided", 1)?)
            }
        }
    }
}

/// What is known about one order.
#[derive(Debug)]
struct Order {
    id: EntityId,
    version: u64,
    status: OrderStatus,
    placed: Option<Placed>,
    /// When the server stored the first payment.
    paid_at: Option<DateTime<Utc>>,
    paid: BTreeMap<Currency, i64>,
    /// How many of its payments succeeded and were not given back.
    payments_kept: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Placed {
    /// When the server stored it.
    at: DateTime<Utc>,
    customer_id: EntityId,
    items: Vec<Item>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Item {
    product_id: EntityId,
    quantity: u32,
    /// None if the price times the quantity is beyond all bounds, as only another producer could write it.
    amount: Option<Money>,
}

impl From<&OrderItem> for Item {
    fn from(item: &OrderItem) -> Self {
        let amount = item.unit_price.times(item.quantity).ok();
        Self { product_id: item.product_id.clone(), quantity: item.quantity, amount }
    }
}

impl Order {
    fn load(tables: &Tables<'_>, order_id: &EntityId) -> rusqlite::Result<Self> {
        let known = tables.first(
            "SELECT version, status, placed, paid_at, paid, payments_kept FROM orders WHERE order_id = ?1",
            [order_id],
            |row| {
                Ok(Self {
                    id: order_id.clone(),
                    version: row.get("version")?,
                    status: row.get::<_, Word<_>>("status")?.0,
                    placed: row.get::<_, Option<Json<_>>>("placed")?.map(|Json(placed)| placed),
                    paid_at: row.get::<_, Option<Word<_>>>("paid_at")?.map(|Word(at)| at),
                    paid: row.get::<_, Json<_>>("paid")?.0,
                    payments_kept: row.get("payments_kept")?,
                })
            },
        )?;
        Ok(known.unwrap_or_else(|| Self {
            id: order_id.clone(),
            version: 0,
            status: OrderStatus::default(),
            placed: None,
            paid_at: None,
            paid: BTreeMap::new(),
            payments_kept: 0,
        }))
    }

    /// The order of an event that is the next one of its history.
    fn next(tables: &Tables<'_>, event: &Recorded<SalesEvent>) -> anyhow::Result<Self> {
        let order = Self::load(tables, event.entity_id())?;
        let is_next = order.version + 1 == event.version;
        OutOfTurn::unless_changed(is_next.into(), event)?;
        Ok(Self { version: event.version, ..order })
    }

    fn save(&self, tables: &Tables<'_>) -> anyhow::Result<()> {
        tables.run(
            "INSERT OR REPLACE INTO orders VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                self.id,
                self.version,
                Word(self.status),
                self.placed.as_ref().map(Json),
                self.paid_at.map(Word),
                Json(&self.paid),
                self.payments_kept,
            ],
        )?;
        Ok(())
    }

    fn place(
        mut self,
        tables: &Tables<'_>,
        order: &OrderPlaced,
        at: DateTime<Utc>,
        stored_at: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        ensure!(self.placed.is_none(), "the order is placed already");
        let (customer_id, total) = (&order.customer_id, order.total);
        STATUSES.add(tables, Word(self.status), "orders", 1)?;
        DAYS.add(tables, day(at), "orders", 1)?;
        DAY_SUMS.add(tables, day(at), total.currency(), "orders", 1)?;
        DAY_SUMS.add_money(tables, day(at), "ordered", total)?;

        tables.run(
            "INSERT INTO customers VALUES (?1, 1, 0, ?2) ON CONFLICT DO UPDATE
             SET orders = orders + 1, last_order_at = excluded.last_order_at",
            params![customer_id, Word(stored_at)],
        )?;
        CUSTOMER_SUMS.add_money(tables, customer_id, "ordered", total)?;
        for (currency, minor) in &self.paid {
            CUSTOMER_SUMS.add(tables, customer_id, *currency, "paid", *minor)?;
        }

        let mut counted = BTreeSet::new();
        for item in &order.items {
            let first_line = counted.insert(&item.product_id);
            tables.run(
                "INSERT INTO products VALUES (?1, ?2, ?3, ?4, 0) ON CONFLICT DO UPDATE
                 SET name = excluded.name,
                     orders = orders + excluded.orders,
                     units_ordered = units_ordered + excluded.units_ordered",
                params![item.product_id, item.product_name, first_line, item.quantity],
            )?;
        }

        let items = order.items.iter().map(Item::from).collect();
        self.placed = Some(Placed { at: stored_at, customer_id: customer_id.clone(), items });
        if self.payments_kept > 0 {
            self.count_sold(tables, 1)?;
        }
        self.count_wait(tables)?;
        self.save(tables)
    }

    fn move_to(mut self, tables: &Tables<'_>, status: OrderStatus, at: DateTime<Utc>) -> anyhow::Result<()> {
        let placed = self.placed.as_ref().context("the order is not placed")?;
        STATUSES.add(tables, Word(self.status), "orders", -1)?;
        STATUSES.add(tables, Word(status), "orders", 1)?;
        if status == OrderStatus::Cancelled && self.status != status {
            DAYS.add(tables, day(at), "cancelled", 1)?;
            let count = "UPDATE customers SET cancelled = cancelled + 1 WHERE customer_id = ?1";
            tables.run(count, [&placed.customer_id])?;
        }
        self.status = status;
        self.save(tables)
    }

    fn pay(mut self, tables: &Tables<'_>, amount: Money, stored_at: DateTime<Utc>) -> anyhow::Result<()> {
        self.add_paid(amount.currency(), amount.minor())?;
        self.payments_kept += 1;
        if let Some(placed) = &self.placed {
            CUSTOMER_SUMS.add_money(tables, &placed.customer_id, "paid", amount)?;
            if self.payments_kept == 1 {
                self.count_sold(tables, 1)?;
            }
        }
        if self.paid_at.is_none() {
            self.paid_at = Some(stored_at);
            self.count_wait(tables)?;
        }
        self.save(tables)
    }

    fn refund(mut self, tables: &Tables<'_>, amount: Money) -> anyhow::Result<()> {
        self.add_paid(amount.currency(), -amount.minor())?;
        self.payments_kept -= 1;
        if let Some(placed) = &self.placed {
            CUSTOMER_SUMS.take_money(tables, &placed.customer_id, "paid", amount)?;
            if self.payments_kept == 0 {
                self.count_sold(tables, -1)?;
            }
        }
        self.save(tables)
    }

    fn add_paid(&mut self, currency: Currency, minor: i64) -> anyhow::Result<()> {
        let paid = self.paid.entry(currency).or_default();
        *paid = paid.checked_add(minor).context("the order's payments are beyond all bounds")?;
        Ok(())
    }

    /// Counts its products as sold (1), or no longer (-1): they are as long as it has a payment.
    fn count_sold(&self, tables: &Tables<'_>, times: i64) -> anyhow::Result<()> {
        for item in self.placed.iter().flat_map(|placed| &placed.items) {
            tables.run(
                "UPDATE products SET units_sold = units_sold + ?2 WHERE product_id = ?1",
                params![item.product_id, i64::from(item.quantity) * times],
            )?;
            if let Some(amount) = item.amount {
                let minor = amount.minor() * times;
                PRODUCT_SUMS.add(tables, &item.product_id, amount.currency(), "revenue", minor)?;
            }
        }
        Ok(())
    }

    /// Counts how long it waited for its first payment. To be called when both are known for the first time.
    fn count_wait(&self, tables: &Tables<'_>) -> anyhow::Result<()> {
        let (Some(placed), Some(paid_at)) = (&self.placed, self.paid_at) else { return Ok(()) };
        let ms = whole_ms(paid_at - placed.at);
        tables.run(
            "INSERT INTO waits VALUES (?1, 1, ?2) ON CONFLICT DO UPDATE
             SET orders = orders + 1, sum_ms = sum_ms + excluded.sum_ms",
            params![three_digits(ms), ms],
        )?;
        Ok(())
    }
}

fn next_of_payment(tables: &Tables<'_>, event: &Recorded<SalesEvent>) -> anyhow::Result<()> {
    let (payment_id, version) = (event.entity_id(), event.version);
    let rows = tables.run(
        "INSERT INTO payments SELECT ?1, ?2 WHERE ?2 = 1 + coalesce(
             (SELECT version FROM payments WHERE payment_id = ?1), 0)
         ON CONFLICT DO UPDATE SET version = excluded.version",
        params![payment_id, version],
    )?;
    Ok(OutOfTurn::unless_changed(rows, event)?)
}

fn count_payment(tables: &Tables<'_>, payment: &PaymentProcessed, at: DateTime<Utc>) -> anyhow::Result<()> {
    let method = labelled(tables, METHODS, payment.payment_method.label())?;
    let outcome = match payment.status {
        PaymentOutcome::Success => {
            DAY_SUMS.add_money(tables, day(at), "paid", payment.amount)?;
            METHOD_SUMS.add_money(tables, &method, "paid", payment.amount)?;
            "succeeded"
        }
        PaymentOutcome::Failed => {
            let reason = labelled(tables, FAILURES, payment.failure.as_deref().unwrap_or("unknown"))?;
            FAILURES.add(tables, reason, "payments", 1)?;
            "failed"
        }
    };
    DAYS.add(tables, day(at), outcome, 1)?;
    METHODS.add(tables, method, outcome, 1)?;
    Ok(())
}

/// The name under which something is counted: its own, as long as there is room for names.
fn labelled(tables: &Tables<'_>, counters: Counters, label: &str) -> rusqlite::Result<String> {
    let Counters { table, key } = counters;
    let label: String = label.chars().take(64).collect();
    let known = tables.first(
        &format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {key} = ?1) OR count(*) < ?2 FROM {table}"),
        params![label, MAX_LABELS],
        |row| row.get(0),
    )?;
    Ok(if known.unwrap_or(false) { label } else { OTHER.to_owned() })
}

/// The day of a time, in UTC, as days are kept.
fn day(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d").to_string()
}
