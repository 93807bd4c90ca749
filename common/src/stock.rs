//! What happens to a warehouse's stock. A warehouse is one entity, so an order's lines are reserved together or
//! not at all.

use jetkit::{EntityId, Event};
use serde::{Deserialize, Serialize};

/// Goods came in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockReceived {
    /// Where.
    pub warehouse: EntityId,
    /// What.
    pub product_id: EntityId,
    /// How many.
    pub quantity: u32,
}

impl Event for StockReceived {
    const TYPE: &'static str = "stock.received";

    fn entity_id(&self) -> &EntityId {
        &self.warehouse
    }
}

/// Everything that an order needs is set aside for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockReserved {
    /// Where.
    pub warehouse: EntityId,
    /// For which order.
    pub order_id: EntityId,
    /// What.
    pub lines: Vec<StockLine>,
}

/// A quantity of one product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct StockLine {
    /// The product.
    pub product_id: EntityId,
    /// How many.
    pub quantity: u32,
}

impl Event for StockReserved {
    const TYPE: &'static str = "stock.reserved";

    fn entity_id(&self) -> &EntityId {
        &self.warehouse
    }
}

/// Something that an order needs is missing: nothing is set aside for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockRejected {
    /// Where.
    pub warehouse: EntityId,
    /// For which order.
    pub order_id: EntityId,
    /// What is missing.
    pub shortages: Vec<StockShortage>,
}

/// Too little of one product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct StockShortage {
    /// The product.
    pub product_id: EntityId,
    /// How many are needed.
    pub requested: u32,
    /// How many were free.
    pub available: u32,
}

impl Event for StockRejected {
    const TYPE: &'static str = "stock.rejected";

    fn entity_id(&self) -> &EntityId {
        &self.warehouse
    }
}

/// What was set aside for an order is free again: it was cancelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockReleased {
    /// Where.
    pub warehouse: EntityId,
    /// For which order.
    pub order_id: EntityId,
    /// What.
    pub lines: Vec<StockLine>,
}

impl Event for StockReleased {
    const TYPE: &'static str = "stock.released";

    fn entity_id(&self) -> &EntityId {
        &self.warehouse
    }
}

/// What was set aside for an order has left the warehouse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockShipped {
    /// Where.
    pub warehouse: EntityId,
    /// For which order.
    pub order_id: EntityId,
    /// What.
    pub lines: Vec<StockLine>,
}

impl Event for StockShipped {
    const TYPE: &'static str = "stock.shipped";

    fn entity_id(&self) -> &EntityId {
        &self.warehouse
    }
}

jetkit::events! {
    /// What can happen to a warehouse's stock.
    pub enum StockEvent {
        Received(StockReceived),
        Reserved(StockReserved),
        Rejected(StockRejected),
        Released(StockReleased),
        Shipped(StockShipped),
    }
}
