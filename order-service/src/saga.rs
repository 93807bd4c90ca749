//! The order saga: what the rest of the shop reports moves an order on, and an order that nobody answers for is cancelled.
//! It only gives commands; the order decides.

use std::time::Duration;

use common::order::{CancelReason, OrderCancelled, OrderConfirmed, OrderPlaced, PaymentMethod};
use common::payment::{PaymentOutcome, PaymentProcessed};
use common::stock::{StockRejected, StockShortage};
use jetkit::{
    Cause, EntityId, Event, EventStore, ExecuteError, Handler, HandlerResult, Recorded, RejectRefusal, Timers,
};
use serde::{Deserialize, Serialize};

use crate::order::{Order, OrderCommand, OrderRejection};

/// Moves orders on.
#[derive(Debug, Clone)]
pub struct OrderSaga {
    orders: EventStore<Order>,
    timers: Timers,
    patience: Patience,
}

/// How long an order waits to be confirmed before it is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// One that the shop reserves and charges itself.
    pub ours: Duration,
    /// One that is paid outside.
    pub outside: Duration,
}

/// The timer of an order: it should have been confirmed by now. A message of the service to itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderOverdue {
    /// The order.
    pub order_id: EntityId,
}

impl Event for OrderOverdue {
    const TYPE: &'static str = "order.overdue";

    fn entity_id(&self) -> &EntityId {
        &self.order_id
    }
}

impl OrderSaga {
    /// A saga over these orders.
    pub fn new(orders: EventStore<Order>, patience: Patience) -> Self {
        let timers = orders.log().timers(crate::CONSUMER);
        Self { orders, timers, patience }
    }

    async fn tell(&self, order_id: &EntityId, command: OrderCommand, cause: &Cause) -> HandlerResult {
        match self.orders.execute(order_id, &command, cause).await {
            // Another producer's payment may come before its order.
            Err(ExecuteError::Rejected(unknown @ OrderRejection::Unknown)) => Err(unknown.into()),
            executed => executed.reject_refusal().map(drop),
        }
    }
}

impl Handler<OrderPlaced> for OrderSaga {
    async fn handle(&self, order: Recorded<OrderPlaced>) -> HandlerResult {
        let patience = match order.payment_method {
            PaymentMethod::External {} => self.patience.outside,
            PaymentMethod::Account { .. } | PaymentMethod::Card { .. } => self.patience.ours,
        };
        let overdue = OrderOverdue { order_id: order.order_id.clone() };
        Ok(self.timers.set(patience, &overdue, &order.cause()).await?)
    }
}

/// Confirmed: nobody needs to be reminded of it any more.
impl Handler<OrderConfirmed> for OrderSaga {
    async fn handle(&self, order: Recorded<OrderConfirmed>) -> HandlerResult {
        Ok(self.timers.cancel::<OrderOverdue>(&order.order_id).await?)
    }
}

/// The same, whoever cancelled it.
impl Handler<OrderCancelled> for OrderSaga {
    async fn handle(&self, order: Recorded<OrderCancelled>) -> HandlerResult {
        Ok(self.timers.cancel::<OrderOverdue>(&order.order_id).await?)
    }
}

impl Handler<OrderOverdue> for OrderSaga {
    async fn handle(&self, overdue: Recorded<OrderOverdue>) -> HandlerResult {
        let command = OrderCommand::Cancel { reason: CancelReason::TimedOut, detail: None };
        self.tell(&overdue.order_id, command, &overdue.cause()).await
    }
}

impl Handler<PaymentProcessed> for OrderSaga {
    async fn handle(&self, payment: Recorded<PaymentProcessed>) -> HandlerResult {
        let command = match payment.status {
            PaymentOutcome::Success => {
                OrderCommand::Confirm { payment_id: payment.payment_id.clone(), amount: payment.amount }
            }
            PaymentOutcome::Failed => {
                OrderCommand::Cancel { reason: CancelReason::PaymentFailed, detail: payment.failure.clone() }
            }
        };
        self.tell(&payment.order_id, command, &payment.cause()).await
    }
}

impl Handler<StockRejected> for OrderSaga {
    async fn handle(&self, rejected: Recorded<StockRejected>) -> HandlerResult {
        let detail = rejected.shortages.first().map(missing);
        let command = OrderCommand::Cancel { reason: CancelReason::OutOfStock, detail };
        self.tell(&rejected.order_id, command, &rejected.cause()).await
    }
}

/// Names the first shortage: `lamp: 3 of 5`.
fn missing(shortage: &StockShortage) -> String {
    format!("{}: {} of {}", shortage.product_id, shortage.available, shortage.requested)
}
