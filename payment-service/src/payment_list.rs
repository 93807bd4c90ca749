//! What readers see of payments: a list by order, folded from the log.

use std::collections::{BTreeMap, BTreeSet};

use common::payment::PaymentEvent;
use eventkit::view::Projection;
use eventkit::{Aggregate, EntityId, EventSet, Recorded};

use crate::payment::{Payment, PaymentState};

/// Every payment, by id and by order.
#[derive(Debug, Default)]
pub struct PaymentList {
    payments: BTreeMap<EntityId, PaymentSummary>,
    by_order: BTreeMap<EntityId, BTreeSet<EntityId>>,
}

/// One payment.
#[derive(Debug, Default)]
pub struct PaymentSummary {
    /// Its state.
    pub payment: Payment,
    /// How many events that is.
    pub version: u64,
}

type Payments<'a> = Box<dyn Iterator<Item = (&'a EntityId, &'a PaymentSummary)> + 'a>;

impl PaymentList {
    /// The payments for one order, or all.
    pub fn of_order<'a>(&'a self, order_id: Option<&EntityId>) -> Payments<'a> {
        match order_id {
            None => Box::new(self.payments.iter()),
            Some(order_id) => {
                let ids = self.by_order.get(order_id).into_iter().flatten();
                Box::new(ids.filter_map(|id| self.payments.get_key_value(id)))
            }
        }
    }

    /// The payments for an order whose money was taken and not given back.
    pub fn taken_for(&self, order_id: &EntityId) -> Vec<EntityId> {
        let of_order = self.of_order(Some(order_id));
        let taken = of_order.filter(|(_, summary)| summary.payment.state() == Some(PaymentState::Success));
        taken.map(|(payment_id, _)| payment_id.clone()).collect()
    }
}

impl Projection for PaymentList {
    type Event = PaymentEvent;

    fn apply(&mut self, event: &Recorded<PaymentEvent>) {
        let payment_id = event.entity_id();
        let summary = self.payments.entry(payment_id.clone()).or_default();
        summary.payment.apply(&event.event);
        summary.version = event.version;
        if let Some(order_id) = summary.payment.order_id() {
            self.by_order.entry(order_id.clone()).or_default().insert(payment_id.clone());
        }
    }
}
