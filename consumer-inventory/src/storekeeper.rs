//! Does with the stock what happens to orders.

use common::order::{OrderCancelled, OrderEvent, OrderPlaced, OrderShipped};
use common::stock::StockLine;
use eventkit::{
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

    /// Whether so much has happened since an event that the warehouse may have forgotten its order. (It was redriven, or the
    /// durable was created again.) What a producer's clock says does not matter.
    async fn may_be_forgotten<E>(&self, event: &Recorded<E>) -> Result<bool, StoreError> {
        let stock = self.stock.load(&self.warehouse).await?;
        Ok(stock.sequence >= event.sequence + FORGOTTEN_AFTER)
    }

    /// Whether an order is done with, as its history says.
    async fn is_settled(&self, order_id: &EntityId) -> Result<bool, StoreError> {
        let history = self.stock.log().history::<OrderEvent>(order_id).await?;
        let settles = |event: &OrderEvent| matches!(event, OrderEvent::Cancelled(_) | OrderEvent::Shipped(_));
        Ok(history.iter().any(|recorded| settles(&recorded.event)))
    }

    async fn react(&self, command: StockCommand, cause: &Cause) -> HandlerResult {
        self.stock.execute(&self.warehouse, &command, cause).await.reject_refusal()?;
        Ok(())
    }
}

impl Handler<OrderPlaced> for Storekeeper {
    async fn handle(&self, order: Recorded<OrderPlaced>) -> HandlerResult {
        if self.may_be_forgotten(&order).await? && self.is_settled(&order.order_id).await? {
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
        match self.stock.execute(&self.warehouse, &command, &order.cause()).await {
            // It was shipped long ago: so much has happened since that its order may be forgotten.
            Err(ExecuteError::Rejected(StockRejection::NothingHeld { .. }))
                if self.may_be_forgotten(&order).await? =>
            {
                Ok(())
            }
            executed => executed.reject_refusal().map(drop),
        }
    }
}
