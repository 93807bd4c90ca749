//! What readers see of the stock: every product, and every order's reservation.

use anyhow::ensure;
use common::stock::{StockEvent, StockLine, StockShortage};
use jetkit::http::{Page, PageQuery};
use jetkit::projection::{Conditions, Json, List, Order, OutOfTurn, Row, Tables, Word, params, rusqlite};
use jetkit::{EntityId, EventSet, Projection, Recorded};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::stock::Level;

/// Every product and every reservation.
#[derive(Debug)]
pub struct StockList;

/// One product, as a reader sees it: `received` = `on_hand` + `reserved` + `shipped`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProductStock {
    /// Which product.
    pub product_id: EntityId,
    /// Free to be reserved.
    pub on_hand: u64,
    /// Held for orders that are not shipped yet.
    pub reserved: u64,
    /// Gone out.
    pub shipped: u64,
    /// Everything that ever came in.
    pub received: u64,
}

const PRODUCT: &str = "product_id, on_hand, reserved, shipped";

impl ProductStock {
    /// A product at that level.
    pub fn new(product_id: EntityId, level: &Level) -> Self {
        let Level { on_hand, reserved, shipped } = *level;
        Self { product_id, on_hand, reserved, shipped, received: level.received() }
    }

    /// One product; [`None`] if it never came in.
    pub fn find(tables: &Tables<'_>, product_id: &EntityId) -> rusqlite::Result<Option<Self>> {
        tables.first(
            &format!("SELECT {PRODUCT} FROM products WHERE product_id = ?1"),
            [product_id],
            Self::read,
        )
    }

    /// Every product, by id.
    pub fn list(tables: &Tables<'_>, page: &PageQuery) -> rusqlite::Result<Page<Self>> {
        let (matching, order) = (Conditions::default(), Order::Ascending("product_id"));
        tables.page(List { columns: PRODUCT, from: "products", matching, order }, page, Self::read)
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let level = Level {
            on_hand: row.get("on_hand")?,
            reserved: row.get("reserved")?,
            shipped: row.get("shipped")?,
        };
        Ok(Self::new(row.get("product_id")?, &level))
    }
}

/// What became of an order's wish for stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReservationStatus {
    /// Held for the order.
    Reserved,
    /// There was not enough.
    Rejected,
    /// Given back, or given up before anything was held.
    Released,
    /// Gone out.
    Shipped,
}

/// One order's reservation, as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct OrderReservation {
    /// For which order.
    pub order_id: EntityId,
    /// Where it stands.
    pub status: ReservationStatus,
    /// What is or was held.
    pub lines: Vec<StockLine>,
    /// What there was too little of; empty unless it was rejected.
    pub shortages: Vec<StockShortage>,
}

impl OrderReservation {
    /// One order's reservation; [`None`] if the order has not been heard of.
    pub fn find(tables: &Tables<'_>, order_id: &EntityId) -> rusqlite::Result<Option<Self>> {
        let one = "SELECT order_id, status, lines, shortages FROM reservations WHERE order_id = ?1";
        tables.first(one, [order_id], |row| {
            Ok(Self {
                order_id: row.get("order_id")?,
                status: row.get::<_, Word<_>>("status")?.0,
                lines: row.get::<_, Json<_>>("lines")?.0,
                shortages: row.get::<_, Json<_>>("shortages")?.0,
            })
        })
    }
}

impl Projection for StockList {
    const NAME: &'static str = "stock";
    const SCHEMA: &'static str = "
        CREATE TABLE warehouses (
            warehouse TEXT PRIMARY KEY,
            version INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE products (
            product_id TEXT PRIMARY KEY,
            on_hand INTEGER NOT NULL CHECK (on_hand >= 0),
            reserved INTEGER NOT NULL CHECK (reserved >= 0),
            shipped INTEGER NOT NULL CHECK (shipped >= 0)
        ) WITHOUT ROWID;
        CREATE TABLE reservations (
            order_id TEXT PRIMARY KEY,
            status TEXT NOT NULL,
            lines TEXT NOT NULL, -- JSON
            shortages TEXT NOT NULL -- JSON
        ) WITHOUT ROWID;
    ";
    type Event = Recorded<StockEvent>;

    fn apply(tables: &Tables<'_>, event: &Recorded<StockEvent>) -> anyhow::Result<()> {
        next_of_warehouse(tables, event)?;
        match &event.event {
            StockEvent::Received(e) => {
                tables.run(
                    "INSERT INTO products VALUES (?1, ?2, 0, 0) ON CONFLICT DO UPDATE SET on_hand = on_hand + ?2",
                    params![e.product_id, e.quantity],
                )?;
                Ok(())
            }
            StockEvent::Reserved(e) => {
                let reserve = "UPDATE products SET on_hand = on_hand - ?2, reserved = reserved + ?2";
                move_all(tables, reserve, &e.lines)?;
                set(tables, &e.order_id, ReservationStatus::Reserved, &e.lines, &[])
            }
            StockEvent::Rejected(e) => {
                set(tables, &e.order_id, ReservationStatus::Rejected, &[], &e.shortages)
            }
            StockEvent::Released(e) => {
                let release = "UPDATE products SET reserved = reserved - ?2, on_hand = on_hand + ?2";
                move_all(tables, release, &e.lines)?;
                set(tables, &e.order_id, ReservationStatus::Released, &e.lines, &[])
            }
            StockEvent::Shipped(e) => {
                let ship = "UPDATE products SET reserved = reserved - ?2, shipped = shipped + ?2";
                move_all(tables, ship, &e.lines)?;
                set(tables, &e.order_id, ReservationStatus::Shipped, &e.lines, &[])
            }
        }
    }
}

fn next_of_warehouse(tables: &Tables<'_>, event: &Recorded<StockEvent>) -> anyhow::Result<()> {
    let (warehouse, version) = (event.entity_id(), event.version);
    let rows = match version {
        1 => tables.run("INSERT INTO warehouses VALUES (?1, ?2)", params![warehouse, version])?,
        _ => tables.run(
            "UPDATE warehouses SET version = ?2 WHERE warehouse = ?1 AND version = ?2 - 1",
            params![warehouse, version],
        )?,
    };
    Ok(OutOfTurn::unless_changed(rows, event)?)
}

/// Moves each line's quantity from one column to another; the tables refuse what would fall below nothing.
fn move_all(tables: &Tables<'_>, update: &str, lines: &[StockLine]) -> anyhow::Result<()> {
    for StockLine { product_id, quantity } in lines {
        let rows = tables.run(&format!("{update} WHERE product_id = ?1"), params![product_id, quantity])?;
        ensure!(rows == 1, "there is no product {product_id}");
    }
    Ok(())
}

fn set(
    tables: &Tables<'_>,
    order_id: &EntityId,
    status: ReservationStatus,
    lines: &[StockLine],
    shortages: &[StockShortage],
) -> anyhow::Result<()> {
    tables.run(
        "INSERT OR REPLACE INTO reservations VALUES (?1, ?2, ?3, ?4)",
        params![order_id, Word(status), Json(lines), Json(shortages)],
    )?;
    Ok(())
}
