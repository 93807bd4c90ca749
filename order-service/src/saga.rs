//! The order saga: what the rest of the shop reports moves an order on. It only gives commands; the order decides.

use common::order::CancelReason;
use common::payment::{PaymentProcessed, PaymentStatus};
use common::stock::{StockRejected, StockShortage};
use eventkit::{Cause, EntityId, EventStore, ExecuteError, Handler, HandlerError, HandlerResult, Recorded};

use crate::order::{Order, OrderCommand, OrderRejection};

/// Moves orders on.
#[derive(Debug, Clone)]
pub struct OrderSaga {
    orders: EventStore<Order>,
}

impl OrderSaga {
    /// A saga over these orders.
    pub fn new(orders: EventStore<Order>) -> Self {
        Self { orders }
    }

    async fn tell(&self, order_id: &EntityId, command: OrderCommand, cause: &Cause) -> HandlerResult {
        match self.orders.execute(order_id, &command, cause).await {
            Ok(_) => Ok(()),
            // Another producer's payment may come before its order.
            Err(ExecuteError::Rejected(unknown @ OrderRejection::Unknown)) => Err(unknown.into()),
            Err(ExecuteError::Rejected(reason)) => Err(HandlerError::reject(reason)),
            Err(failure) => Err(failure.into()),
        }
    }
}

impl Handler<PaymentProcessed> for OrderSaga {
    async fn handle(&self, payment: Recorded<PaymentProcessed>) -> HandlerResult {
        let command = match payment.status {
            PaymentStatus::Success => {
                OrderCommand::Confirm { payment_id: payment.payment_id.clone(), amount: payment.amount }
            }
            PaymentStatus::Failed => {
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
