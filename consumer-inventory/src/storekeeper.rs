//! Reserves, gives back and ships stock as orders are placed, cancelled and shipped.

use common::order::{OrderCancelled, OrderEvent, OrderPlaced, OrderShipped};
use common::stock::StockLine;
use jetkit::{
    Cause, EntityId, EventStore, ExecuteError, Executed, ExpectedVersion, Handler, HandlerResult, Recorded,
    RejectRefusal, StoreError,
};

use crate::stock::{SETTLED_REMEMBERED, Stock, StockCommand, StockRejection};

/// The warehouse that orders are served from. It is in the subject of every stock event: another name is another, empty
/// warehouse.
pub const WAREHOUSE: &str = "main";

/// An order is forgotten after so many others were settled, each by an event of its own: not before the warehouse's log is
/// so much longer.
const FORGOTTEN_AFTER: u64 = SETTLED_REMEMBERED as u64;

/// Gives the warehouse its commands: those of orders, as a handler, and receipts of goods.
#[derive(Clone)]
pub struct Storekeeper {
    stock: EventStore<Stock>,
    warehouse: EntityId,
}

impl Storekeeper {
    /// The keeper of [`WAREHOUSE`].
    pub fn new(stock: EventStore<Stock>) -> anyhow::Result<Self> {
        let warehouse = EntityId::new(WAREHOUSE)?;
        Ok(Self { stock, warehouse })
    }

    /// The warehouse that it keeps.
    pub fn warehouse(&self) -> &EntityId {
        &self.warehouse
    }

    /// Takes goods in; only if the warehouse is at a version that is expected.
    pub async fn receive(
        &self,
        product_id: EntityId,
        quantity: u32,
        at: ExpectedVersion,
        cause: &Cause,
    ) -> Result<Executed<Stock>, ExecuteError<StockRejection>> {
        let warehouse = self.warehouse.clone();
        let command = StockCommand::Receive { warehouse, product_id, quantity };
        self.stock.execute_at(&self.warehouse, at, &command, cause).await
    }

    /// Whether stock was moved for an order for the last time, as its history and the warehouse say: it is cancelled, or was
    /// shipped so long ago that it may be forgotten. That an order is placed comes so late when it is redriven, or when the
    /// durable was made again.
    async fn is_done(&self, order_id: &EntityId) -> Result<bool, StoreError> {
        let history = self.stock.log().history::<OrderEvent>(order_id).await?;
        match history.last().map(|last| (&last.event, last.sequence)) {
            Some((OrderEvent::Cancelled(_), _)) => Ok(true),
            Some((OrderEvent::Shipped(_), sequence)) => {
                let is_done = self.may_have_forgotten(sequence).await?;
                if is_done {
                    // Wrong only where the shop never held stock for it: another producer shipped it while this
                    // consumer was thousands of events behind.
                    tracing::warn!(order.id = %order_id, "no stock is moved: it was shipped so long ago that it may be forgotten");
                }
                Ok(is_done)
            }
            _ => Ok(false),
        }
    }

    /// Whether the warehouse may have forgotten an order that was settled because of the event at that place of the log.
    async fn may_have_forgotten(&self, sequence: u64) -> Result<bool, StoreError> {
        Ok(self.stock.latest(&self.warehouse).await?.sequence >= sequence + FORGOTTEN_AFTER)
    }

    async fn react(&self, command: StockCommand, cause: &Cause) -> HandlerResult {
        self.stock.react(&self.warehouse, &command, cause).await.reject_refusal()
    }
}

impl Handler<OrderPlaced> for Storekeeper {
    async fn handle(&self, order: Recorded<OrderPlaced>) -> HandlerResult {
        if self.is_done(&order.order_id).await? {
            return Ok(());
        }
        let lines = order
            .items
            .iter()
            .map(|item| StockLine { product_id: item.product_id.clone(), quantity: item.quantity })
            .collect();
        let (warehouse, order_id) = (self.warehouse.clone(), order.order_id.clone());
        let command = StockCommand::Reserve { warehouse, order_id, lines };
        self.react(command, &order.cause()).await
    }
}

impl Handler<OrderCancelled> for Storekeeper {
    async fn handle(&self, order: Recorded<OrderCancelled>) -> HandlerResult {
        let (warehouse, order_id) = (self.warehouse.clone(), order.order_id.clone());
        let command = StockCommand::Release { warehouse, order_id };
        self.react(command, &order.cause()).await
    }
}

impl Handler<OrderShipped> for Storekeeper {
    async fn handle(&self, order: Recorded<OrderShipped>) -> HandlerResult {
        let (warehouse, order_id) = (self.warehouse.clone(), order.order_id.clone());
        let command = StockCommand::Ship { warehouse, order_id };
        match self.stock.react(&self.warehouse, &command, &order.cause()).await {
            // It was shipped long ago: so much has happened since that its order may be forgotten.
            Err(ExecuteError::Rejected(StockRejection::NothingHeld { .. }))
                if self.may_have_forgotten(order.sequence).await? =>
            {
                Ok(())
            }
            reacted => reacted.reject_refusal(),
        }
    }
}
