//! Does with the stock what happens to orders.

use common::order::{OrderCancelled, OrderPlaced, OrderShipped};
use common::stock::StockLine;
use eventkit::{
    Cause, EntityId, EventStore, ExecuteError, Executed, Handler, HandlerResult, Recorded, RejectRefusal,
};

use crate::stock::{Stock, StockCommand, StockRejection};

/// The warehouse that orders are served from. It is in the subject of every stock event: another name is another, empty
/// warehouse.
pub const WAREHOUSE: &str = "main";

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

    /// Takes goods in; only if the warehouse is `at` that version, if one is given.
    pub async fn receive(
        &self,
        product_id: EntityId,
        quantity: u32,
        at: Option<u64>,
        cause: &Cause,
    ) -> Result<Executed<Stock>, ExecuteError<StockRejection>> {
        let warehouse = self.warehouse.clone();
        let command = StockCommand::Receive { warehouse, product_id, quantity };
        self.stock.execute_at(&self.warehouse, at, &command, cause).await
    }

    async fn react(&self, command: StockCommand, cause: &Cause) -> HandlerResult {
        self.stock.execute(&self.warehouse, &command, cause).await.reject_refusal()?;
        Ok(())
    }
}

impl Handler<OrderPlaced> for Storekeeper {
    async fn handle(&self, order: Recorded<OrderPlaced>) -> HandlerResult {
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
        self.react(command, &order.cause()).await
    }
}
