//! What readers see of the stock, kept from the log. Losing it loses nothing: it is folded again at start.

use std::collections::{BTreeMap, HashMap};

use common::stock::StockEvent;
use common::stock::{StockLine, StockShortage};
use eventkit::view::Projection;
use eventkit::{EntityId, Recorded};
use serde::Serialize;

use crate::stock::Level;

/// Every product and every reservation.
#[derive(Debug, Default)]
pub struct StockView {
    products: BTreeMap<EntityId, Level>,
    reservations: HashMap<EntityId, OrderReservation>,
}

/// One product, as a reader sees it: `received` = `on_hand` + `reserved` + `shipped`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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

impl ProductStock {
    /// A product at that level.
    pub fn new(product_id: EntityId, level: &Level) -> Self {
        let Level { on_hand, reserved, shipped } = *level;
        Self { product_id, on_hand, reserved, shipped, received: level.received() }
    }
}

/// What became of an order's wish for stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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

impl StockView {
    /// How many products there are.
    pub fn product_count(&self) -> usize {
        self.products.len()
    }

    /// Every product, by id.
    pub fn products(&self) -> impl Iterator<Item = ProductStock> {
        self.products.iter().map(|(product_id, level)| ProductStock::new(product_id.clone(), level))
    }

    /// One product; [`None`] if it never came in.
    pub fn product(&self, product_id: &EntityId) -> Option<ProductStock> {
        self.products.get(product_id).map(|level| ProductStock::new(product_id.clone(), level))
    }

    /// One order's reservation; [`None`] if the order has not been heard of.
    pub fn reservation(&self, order_id: &EntityId) -> Option<OrderReservation> {
        self.reservations.get(order_id).cloned()
    }

    fn level(&mut self, product_id: &EntityId) -> &mut Level {
        self.products.entry(product_id.clone()).or_default()
    }

    fn set(
        &mut self,
        order_id: &EntityId,
        status: ReservationStatus,
        lines: &[StockLine],
        shortages: &[StockShortage],
    ) {
        let reservation = OrderReservation {
            order_id: order_id.clone(),
            status,
            lines: lines.to_vec(),
            shortages: shortages.to_vec(),
        };
        self.reservations.insert(order_id.clone(), reservation);
    }
}

impl Projection for StockView {
    type Event = StockEvent;

    fn apply(&mut self, event: &Recorded<StockEvent>) {
        match &event.event {
            StockEvent::Received(e) => self.level(&e.product_id).receive(e.quantity),
            StockEvent::Reserved(e) => {
                e.lines.iter().for_each(|line| self.level(&line.product_id).reserve(line.quantity));
                self.set(&e.order_id, ReservationStatus::Reserved, &e.lines, &[]);
            }
            StockEvent::Rejected(e) => self.set(&e.order_id, ReservationStatus::Rejected, &[], &e.shortages),
            StockEvent::Released(e) => {
                e.lines.iter().for_each(|line| self.level(&line.product_id).release(line.quantity));
                self.set(&e.order_id, ReservationStatus::Released, &e.lines, &[]);
            }
            StockEvent::Shipped(e) => {
                e.lines.iter().for_each(|line| self.level(&line.product_id).ship(line.quantity));
                self.set(&e.order_id, ReservationStatus::Shipped, &e.lines, &[]);
            }
        }
    }
}
