//! Orders and shipments that another producer reports: recorded here once, under their own event ids.

use anyhow::Context;
use common::order::{OrderPlaced, OrderShipped, PaymentMethod};
use jetkit::{Cause, EventStore, ExecuteError, Handler, HandlerResult, Recorded, RejectRefusal};

use crate::order::{Order, OrderCommand, OrderRejection};

/// Records other producers' orders and shipments.
#[derive(Debug, Clone)]
pub struct OrderAdopter {
    orders: EventStore<Order>,
}

impl OrderAdopter {
    /// An adopter of these orders.
    pub fn new(orders: EventStore<Order>) -> Self {
        Self { orders }
    }
}

impl Handler<OrderPlaced> for OrderAdopter {
    async fn handle(&self, placed: Recorded<OrderPlaced>) -> HandlerResult {
        // Whatever it says, an order from outside is paid outside: nothing here is charged for it.
        let order = OrderPlaced { payment_method: PaymentMethod::External {}, ..placed.event.clone() };
        let cause = Cause::adopting(&placed);
        self.orders.execute(&placed.order_id, &OrderCommand::Place(order), &cause).await.reject_refusal()?;
        Ok(())
    }
}

impl Handler<OrderShipped> for OrderAdopter {
    async fn handle(&self, shipped: Recorded<OrderShipped>) -> HandlerResult {
        let command = OrderCommand::Ship {
            carrier: shipped.carrier.clone(),
            tracking_number: shipped.tracking_number.clone(),
        };
        match self.orders.execute(&shipped.order_id, &command, &Cause::adopting(&shipped)).await {
            // The order or its payment may still be on its way.
            Err(ExecuteError::Rejected(early @ (OrderRejection::NotConfirmed | OrderRejection::Unknown))) => {
                Err(early).context("a shipment came before its order was confirmed")?
            }
            executed => executed.reject_refusal().map(drop),
        }
    }
}
