//! What happens to an order's bill: which payments other producers took for it, and until when they may.

use jetkit::{EntityId, Event};
use serde::{Deserialize, Serialize};

/// Another producer took money for an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BillPaidOutside {
    /// The order.
    pub order_id: EntityId,
    /// The payment.
    pub payment_id: EntityId,
}

impl Event for BillPaidOutside {
    const TYPE: &'static str = "bill.paid_outside";

    fn entity_id(&self) -> &EntityId {
        &self.order_id
    }
}

/// An order was cancelled: whatever is taken for it later is given back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BillClosed {
    /// The order.
    pub order_id: EntityId,
}

impl Event for BillClosed {
    const TYPE: &'static str = "bill.closed";

    fn entity_id(&self) -> &EntityId {
        &self.order_id
    }
}

jetkit::events! {
    /// What can happen to an order's bill.
    pub enum BillEvent {
        PaidOutside(BillPaidOutside),
        Closed(BillClosed),
    }
}
