//! The fold of the log into the shop's numbers. Read [`ShopMetrics`] first.
//!
//! The view gives every stored event once and in order, so the numbers are exact however often something was delivered
//! or published.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use common::ShopEvent;
use common::money::Money;
use common::order::{OrderItem, OrderPlaced};
use common::payment::{PaymentProcessed, PaymentStatus};
use eventkit::view::Projection;
use eventkit::{EntityId, Recorded};
use serde::Serialize;

use crate::durations::Durations;
use crate::sums::Sums;

/// The most payment methods and failure codes that are counted apart. Other producers name them, so there could be any
/// number; the rest is counted as [`OTHER`].
const MAX_LABELS: usize = 50;

/// What is counted under no name of its own.
pub const OTHER: &str = "other";

/// Everything that is known about the shop's orders, and the totals over them.
///
/// An order's events may come in any order (another producer's payment before its order). So the totals are never
/// adjusted piecemeal: what an order counts for is taken out, the order is changed, and it is counted anew.
#[derive(Debug, Default)]
pub struct ShopMetrics {
    orders: HashMap<EntityId, Order>,
    pub(crate) totals: Totals,
    pub(crate) payments: Payments,
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Neither of the others yet.
    #[default]
    Placed,
    /// Reserved and paid.
    Confirmed,
    /// On its way.
    Shipped,
    /// Off.
    Cancelled,
}

/// What is known about one order.
#[derive(Debug, Default)]
struct Order {
    placed: Option<Placed>,
    status: OrderStatus,
    paid_at: Option<DateTime<Utc>>,
    paid: Sums,
    /// How many of its payments succeeded and were not given back.
    payments_kept: i64,
}

#[derive(Debug)]
struct Placed {
    at: DateTime<Utc>,
    customer_id: EntityId,
    total: Money,
    items: Vec<Item>,
}

#[derive(Debug)]
struct Item {
    product_id: EntityId,
    name: Box<str>,
    quantity: u32,
    /// None if the price times the quantity is beyond all bounds, as only another producer could write it.
    amount: Option<Money>,
}

/// Totals over all orders that were placed.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) orders: i64,
    pub(crate) by_status: BTreeMap<OrderStatus, i64>,
    /// The value of the orders placed, and their number, by currency.
    pub(crate) ordered: Sums,
    pub(crate) orders_in: BTreeMap<common::money::Currency, i64>,
    pub(crate) customers: HashMap<EntityId, Customer>,
    pub(crate) products: HashMap<EntityId, Product>,
    pub(crate) time_to_payment: Durations,
}

/// Totals over one customer's orders.
#[derive(Debug, Clone, Default)]
pub(crate) struct Customer {
    pub(crate) orders: i64,
    pub(crate) cancelled: i64,
    pub(crate) ordered: Sums,
    pub(crate) paid: Sums,
    pub(crate) last_order_at: Option<DateTime<Utc>>,
}

/// Totals over one product's order lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Product {
    pub(crate) name: String,
    /// When the order was placed that the name is from.
    named_at: Option<DateTime<Utc>>,
    pub(crate) orders: i64,
    pub(crate) units_ordered: i64,
    pub(crate) units_sold: i64,
    pub(crate) revenue: Sums,
}

/// Totals over all payments, also those of orders that nobody has heard of.
#[derive(Debug, Default)]
pub(crate) struct Payments {
    pub(crate) succeeded: i64,
    pub(crate) failed: i64,
    pub(crate) refunds: i64,
    pub(crate) voided: i64,
    pub(crate) paid: Sums,
    pub(crate) refunded: Sums,
    pub(crate) methods: BTreeMap<String, Method>,
    pub(crate) failures: BTreeMap<String, i64>,
}

/// Totals over the payments by one method.
#[derive(Debug, Clone, Default)]
pub(crate) struct Method {
    pub(crate) succeeded: i64,
    pub(crate) failed: i64,
    pub(crate) paid: Sums,
}

impl Projection for ShopMetrics {
    type Event = ShopEvent;

    fn apply(&mut self, event: &Recorded<ShopEvent>) {
        let at = event.meta.time;
        match &event.event {
            ShopEvent::OrderPlaced(e) => {
                self.change(&e.order_id, |order| order.placed = Some(Placed::new(e, at)));
            }
            ShopEvent::OrderConfirmed(e) => {
                self.change(&e.order_id, |order| order.status = OrderStatus::Confirmed);
            }
            ShopEvent::OrderShipped(e) => {
                self.change(&e.order_id, |order| order.status = OrderStatus::Shipped);
            }
            ShopEvent::OrderCancelled(e) => {
                self.change(&e.order_id, |order| order.status = OrderStatus::Cancelled);
            }
            ShopEvent::PaymentProcessed(e) => {
                self.payments.processed(e);
                if e.status == PaymentStatus::Success {
                    self.change(&e.order_id, |order| order.pay(e.amount, at));
                }
            }
            ShopEvent::PaymentRefunded(e) => {
                self.payments.refunds += 1;
                self.payments.refunded.add(e.amount, 1);
                self.change(&e.order_id, |order| order.refund(e.amount));
            }
            ShopEvent::PaymentVoided(_) => self.payments.voided += 1,
            // Stock, accounts, users and mails are not what is measured here.
            _ => {}
        }
    }
}

impl ShopMetrics {
    fn change(&mut self, order_id: &EntityId, change: impl FnOnce(&mut Order)) {
        let order = self.orders.entry(order_id.clone()).or_default();
        self.totals.count(order, -1);
        change(order);
        self.totals.count(order, 1);
    }
}

impl Order {
    fn pay(&mut self, amount: Money, at: DateTime<Utc>) {
        self.paid_at.get_or_insert(at);
        self.paid.add(amount, 1);
        self.payments_kept += 1;
    }

    fn refund(&mut self, amount: Money) {
        self.paid.add(amount, -1);
        self.payments_kept -= 1;
    }

    fn time_to_payment(&self) -> Option<TimeDelta> {
        Some(self.paid_at? - self.placed.as_ref()?.at)
    }
}

impl Placed {
    fn new(order: &OrderPlaced, at: DateTime<Utc>) -> Self {
        let customer_id = order.customer_id.clone();
        Self { at, customer_id, total: order.total, items: order.items.iter().map(Item::new).collect() }
    }
}

impl Item {
    fn new(item: &OrderItem) -> Self {
        Self {
            product_id: item.product_id.clone(),
            name: item.product_name.as_str().into(),
            quantity: item.quantity,
            amount: item.unit_price.times(item.quantity).ok(),
        }
    }
}

impl Totals {
    /// Adds (1) or takes away (-1) what an order counts for. An order that was not placed yet counts for nothing.
    fn count(&mut self, order: &Order, times: i64) {
        let Some(placed) = &order.placed else { return };
        self.orders += times;
        *self.by_status.entry(order.status).or_default() += times;
        self.ordered.add(placed.total, times);
        *self.orders_in.entry(placed.total.currency()).or_default() += times;
        if let Some(duration) = order.time_to_payment() {
            self.time_to_payment.add(duration, times);
        }

        let customer = self.customers.entry(placed.customer_id.clone()).or_default();
        customer.orders += times;
        customer.cancelled += if order.status == OrderStatus::Cancelled { times } else { 0 };
        customer.ordered.add(placed.total, times);
        customer.paid.add_all(&order.paid, times);
        customer.last_order_at = customer.last_order_at.max(Some(placed.at));

        let sold = order.payments_kept > 0;
        for (index, item) in placed.items.iter().enumerate() {
            let product = self.products.entry(item.product_id.clone()).or_default();
            let units = i64::from(item.quantity) * times;
            if product.named_at < Some(placed.at) {
                (product.named_at, product.name) = (Some(placed.at), item.name.to_string());
            }
            product.units_ordered += units;
            if !placed.items.iter().take(index).any(|before| before.product_id == item.product_id) {
                product.orders += times;
            }
            if sold {
                product.units_sold += units;
                item.amount.into_iter().for_each(|amount| product.revenue.add(amount, times));
            }
        }
    }
}

impl Payments {
    fn processed(&mut self, payment: &PaymentProcessed) {
        let method = labelled(&mut self.methods, payment.payment_method.label());
        match payment.status {
            PaymentStatus::Success => {
                self.succeeded += 1;
                self.paid.add(payment.amount, 1);
                method.succeeded += 1;
                method.paid.add(payment.amount, 1);
            }
            PaymentStatus::Failed => {
                self.failed += 1;
                method.failed += 1;
                *labelled(&mut self.failures, payment.failure.as_deref().unwrap_or("unknown")) += 1;
            }
        }
    }
}

/// The counter of that name, as long as there is room for names.
fn labelled<'a, T: Default>(counters: &'a mut BTreeMap<String, T>, label: &str) -> &'a mut T {
    let label: String = label.chars().take(64).collect();
    let known = counters.len() < MAX_LABELS || counters.contains_key(&label);
    counters.entry(if known { label } else { OTHER.to_owned() }).or_default()
}
