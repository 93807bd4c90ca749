//! What readers see of orders: lists by customer and status, folded from the log.

use std::collections::{BTreeMap, HashMap};

use common::order::OrderEvent;
use eventkit::{Aggregate, EntityId, EventSet, Projection, Recorded};

use crate::order::{Order, OrderStatus};

/// Every order, in the order of placing.
#[derive(Debug, Default)]
pub struct OrderList {
    orders: BTreeMap<u64, OrderSummary>,
    place_of: HashMap<EntityId, u64>,
    of_customer: HashMap<EntityId, Vec<u64>>,
}

/// One order.
#[derive(Debug, Default)]
pub struct OrderSummary {
    /// Its state.
    pub order: Order,
    /// How many events that is.
    pub version: u64,
}

impl OrderList {
    /// The orders of one customer, or of all, that stand at `status`, or anywhere.
    pub fn find(
        &self,
        customer_id: Option<&EntityId>,
        status: Option<OrderStatus>,
    ) -> impl Iterator<Item = &OrderSummary> {
        let places: Box<dyn Iterator<Item = &u64>> = match customer_id {
            Some(customer_id) => Box::new(self.of_customer.get(customer_id).into_iter().flatten()),
            None => Box::new(self.orders.keys()),
        };
        let orders = places.filter_map(|place| self.orders.get(place));
        orders.filter(move |summary| status.is_none() || summary.order.status() == status)
    }
}

impl Projection for OrderList {
    type Event = OrderEvent;

    fn apply(&mut self, event: &Recorded<OrderEvent>) {
        let place = *self.place_of.entry(event.entity_id().clone()).or_insert(event.sequence);
        let summary = self.orders.entry(place).or_default();
        summary.order.apply(&event.event);
        summary.version = event.version;
        if let OrderEvent::Placed(placed) = &event.event {
            self.of_customer.entry(placed.customer_id.clone()).or_default().push(place);
        }
    }
}
