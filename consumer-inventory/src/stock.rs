//! The rules of the stock: what a warehouse holds, and what it holds for whom. Pure; read [`Stock`] first.
//!
//! For every product, always: received = on hand + reserved + shipped.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use common::stock::StockEvent;
use common::stock::{
    StockLine, StockReceived, StockRejected, StockReleased, StockReserved, StockShipped, StockShortage,
};
use jetkit::{Aggregate, EntityId};
use serde::{Deserialize, Serialize};

/// The most of one product that a warehouse takes in over its lifetime: far below what the counters can hold.
pub const MAX_RECEIVED: u64 = 1_000_000_000_000;

/// How many settled orders are remembered. An order that still holds stock is always remembered; one that is done is
/// only there to answer a late repeat, and leaves the state after as many others as the event store remembers commands.
pub const SETTLED_REMEMBERED: usize = 4096;

/// One warehouse: its products, and the orders that it holds something for.
///
/// Every decision of the shop's orders goes through this one aggregate, so it is shared instead of copied: a clone costs
/// nothing, and an event is applied in place once the clones of before are gone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stock {
    products: Arc<BTreeMap<EntityId, Level>>,
    orders: Arc<Orders>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Orders {
    reservations: HashMap<EntityId, Reservation>,
    /// Those that are settled, oldest first: the next to be forgotten.
    settled: VecDeque<EntityId>,
}

/// How much of one product is where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Free to be reserved.
    pub on_hand: u64,
    /// Held for orders that are not shipped yet.
    pub reserved: u64,
    /// Gone out.
    pub shipped: u64,
}

impl Level {
    /// Everything that ever came in.
    pub fn received(&self) -> u64 {
        self.on_hand + self.reserved + self.shipped
    }

    /// That many came in.
    pub fn receive(&mut self, quantity: u32) {
        self.on_hand = self.on_hand.saturating_add(quantity.into());
    }

    /// That many are held.
    pub fn reserve(&mut self, quantity: u32) {
        self.on_hand = self.on_hand.saturating_sub(quantity.into());
        self.reserved = self.reserved.saturating_add(quantity.into());
    }

    /// That many are free again.
    pub fn release(&mut self, quantity: u32) {
        self.reserved = self.reserved.saturating_sub(quantity.into());
        self.on_hand = self.on_hand.saturating_add(quantity.into());
    }

    /// That many of the held went out.
    pub fn ship(&mut self, quantity: u32) {
        self.reserved = self.reserved.saturating_sub(quantity.into());
        self.shipped = self.shipped.saturating_add(quantity.into());
    }
}

/// What became of an order's wish for stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reservation {
    /// Held: these lines, one per product.
    Reserved(Vec<StockLine>),
    /// There was not enough.
    Rejected,
    /// Given back, or given up before anything was held.
    Released,
    /// Gone out.
    Shipped,
}

/// What can be asked of a warehouse.
#[derive(Debug, Clone)]
pub enum StockCommand {
    /// Goods came in.
    Receive {
        /// Where.
        warehouse: EntityId,
        /// What.
        product_id: EntityId,
        /// How many, at least one.
        quantity: u32,
    },
    /// Hold all of an order's lines, or none.
    Reserve {
        /// Where.
        warehouse: EntityId,
        /// For whom.
        order_id: EntityId,
        /// What. A product may appear more than once.
        lines: Vec<StockLine>,
    },
    /// The order is off: give back what is held for it. An order that holds nothing yet is remembered, so that a
    /// reservation that comes late holds nothing.
    Release {
        /// Where.
        warehouse: EntityId,
        /// For whom.
        order_id: EntityId,
    },
    /// What is held for the order goes out.
    Ship {
        /// Where.
        warehouse: EntityId,
        /// For whom.
        order_id: EntityId,
    },
}

/// Why a warehouse says no. (Too little stock is not among these: that is an answer for the order, and recorded.)
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StockRejection {
    /// A receipt of nothing.
    #[error("a receipt is of at least one")]
    NothingReceived,
    /// More than a warehouse can count.
    #[error("a warehouse takes in at most {MAX_RECEIVED} of one product")]
    TooMuch,
    /// There is nothing to ship for this order.
    #[error("order {order_id} holds no stock to ship: {because}")]
    NothingHeld {
        /// Which order.
        order_id: EntityId,
        /// What became of its reservation.
        because: &'static str,
    },
}

impl Aggregate for Stock {
    const ENTITY: &'static str = "stock";
    type Event = StockEvent;
    type Command = StockCommand;
    type Rejection = StockRejection;

    fn decide(&self, command: &StockCommand) -> Result<Vec<StockEvent>, StockRejection> {
        match command {
            StockCommand::Receive { warehouse, product_id, quantity } => {
                self.receive(warehouse, product_id, *quantity)
            }
            StockCommand::Reserve { warehouse, order_id, lines } => {
                Ok(self.reserve(warehouse, order_id, lines))
            }
            StockCommand::Release { warehouse, order_id } => Ok(self.release(warehouse, order_id)),
            StockCommand::Ship { warehouse, order_id } => self.ship(warehouse, order_id),
        }
    }

    fn apply(&mut self, event: &StockEvent) {
        match event {
            StockEvent::Received(e) => self.level(&e.product_id).receive(e.quantity),
            StockEvent::Reserved(e) => {
                e.lines.iter().for_each(|line| self.level(&line.product_id).reserve(line.quantity));
                let held = Reservation::Reserved(e.lines.clone());
                self.orders_mut().reservations.insert(e.order_id.clone(), held);
            }
            StockEvent::Rejected(e) => self.orders_mut().settle(&e.order_id, Reservation::Rejected),
            StockEvent::Released(e) => {
                e.lines.iter().for_each(|line| self.level(&line.product_id).release(line.quantity));
                self.orders_mut().settle(&e.order_id, Reservation::Released);
            }
            StockEvent::Shipped(e) => {
                e.lines.iter().for_each(|line| self.level(&line.product_id).ship(line.quantity));
                self.orders_mut().settle(&e.order_id, Reservation::Shipped);
            }
        }
    }
}

impl Stock {
    /// Every product that ever came in, by id.
    pub fn products(&self) -> impl ExactSizeIterator<Item = (&EntityId, &Level)> {
        self.products.iter()
    }

    /// One product; [`None`] if it never came in.
    pub fn product(&self, product_id: &EntityId) -> Option<&Level> {
        self.products.get(product_id)
    }

    /// What became of an order's wish; [`None`] if it was never heard of, or is settled and long forgotten.
    pub fn reservation(&self, order_id: &EntityId) -> Option<&Reservation> {
        self.orders.reservations.get(order_id)
    }

    fn receive(
        &self,
        warehouse: &EntityId,
        product_id: &EntityId,
        quantity: u32,
    ) -> Result<Vec<StockEvent>, StockRejection> {
        if quantity == 0 {
            return Err(StockRejection::NothingReceived);
        }
        let before = self.product(product_id).map_or(0, Level::received);
        if before + u64::from(quantity) > MAX_RECEIVED {
            return Err(StockRejection::TooMuch);
        }
        let (warehouse, product_id) = (warehouse.clone(), product_id.clone());
        Ok(vec![StockReceived { warehouse, product_id, quantity }.into()])
    }

    fn reserve(&self, warehouse: &EntityId, order_id: &EntityId, lines: &[StockLine]) -> Vec<StockEvent> {
        if self.orders.reservations.contains_key(order_id) {
            return vec![];
        }
        let mut wanted: BTreeMap<&EntityId, u64> = BTreeMap::new();
        for line in lines.iter().filter(|line| line.quantity > 0) {
            *wanted.entry(&line.product_id).or_default() += u64::from(line.quantity);
        }
        let (mut lines, mut shortages) = (Vec::with_capacity(wanted.len()), vec![]);
        for (product_id, wanted) in wanted {
            let available = self.product(product_id).map_or(0, |level| level.on_hand);
            let (product_id, held) = (product_id.clone(), u32::try_from(wanted));
            match held {
                Ok(quantity) if wanted <= available => lines.push(StockLine { product_id, quantity }),
                _ => shortages.push(StockShortage {
                    product_id,
                    requested: held.unwrap_or(u32::MAX),
                    available: u32::try_from(available).unwrap_or(u32::MAX),
                }),
            }
        }
        let (warehouse, order_id) = (warehouse.clone(), order_id.clone());
        vec![if shortages.is_empty() {
            StockReserved { warehouse, order_id, lines }.into()
        } else {
            StockRejected { warehouse, order_id, shortages }.into()
        }]
    }

    fn release(&self, warehouse: &EntityId, order_id: &EntityId) -> Vec<StockEvent> {
        let lines = match self.orders.reservations.get(order_id) {
            Some(Reservation::Reserved(lines)) => lines.clone(),
            Some(Reservation::Rejected | Reservation::Released | Reservation::Shipped) => return vec![],
            None => vec![],
        };
        vec![StockReleased { warehouse: warehouse.clone(), order_id: order_id.clone(), lines }.into()]
    }

    fn ship(&self, warehouse: &EntityId, order_id: &EntityId) -> Result<Vec<StockEvent>, StockRejection> {
        let because = match self.orders.reservations.get(order_id) {
            Some(Reservation::Reserved(lines)) => {
                let (warehouse, order_id, lines) = (warehouse.clone(), order_id.clone(), lines.clone());
                return Ok(vec![StockShipped { warehouse, order_id, lines }.into()]);
            }
            Some(Reservation::Shipped) => return Ok(vec![]),
            Some(Reservation::Rejected) => "there was not enough",
            Some(Reservation::Released) => "it was given back",
            None => "it was never reserved",
        };
        Err(StockRejection::NothingHeld { order_id: order_id.clone(), because })
    }

    fn level(&mut self, product_id: &EntityId) -> &mut Level {
        Arc::make_mut(&mut self.products).entry(product_id.clone()).or_default()
    }

    fn orders_mut(&mut self) -> &mut Orders {
        Arc::make_mut(&mut self.orders)
    }
}

impl Orders {
    fn settle(&mut self, order_id: &EntityId, outcome: Reservation) {
        self.reservations.insert(order_id.clone(), outcome);
        self.settled.push_back(order_id.clone());
        let too_many = self.settled.len().saturating_sub(SETTLED_REMEMBERED);
        for forgotten in self.settled.drain(..too_many) {
            self.reservations.remove(&forgotten);
        }
    }
}
