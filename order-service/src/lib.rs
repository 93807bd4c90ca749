//! Order service: users and orders, and the saga that moves an order on.
//!
//! Read first: `order` and `user` are the rules, without I/O; `checkout` places orders; `saga` reacts to stock and
//! payments; `overdue` finds orders whose timers were lost; `main.rs` wires it all.

pub mod adopter;
pub mod checkout;
pub mod http;
pub mod order;
pub mod order_list;
pub mod overdue;
pub mod saga;
pub mod user;
pub mod user_list;

use common::order::{OrderCancelled, OrderConfirmed, OrderPlaced, OrderShipped};
use common::payment::PaymentProcessed;
use common::stock::StockRejected;
use jetkit::{Consumer, OrderingKey};

/// The name of the service's one durable, and of its timers. Renaming it handles the whole log again.
pub const CONSUMER: &str = "order-service";

/// The service's one consumer.
pub fn consumer(saga: saga::OrderSaga, adopter: adopter::OrderAdopter) -> Consumer {
    Consumer::new(CONSUMER)
        .on::<OrderPlaced>(saga.clone())
        .on_timer::<saga::OrderOverdue>(saga.clone())
        .on::<OrderConfirmed>(saga.clone())
        .on::<OrderCancelled>(saga.clone())
        .on::<PaymentProcessed>(saga.clone())
        .on::<StockRejected>(saga)
        .adopt::<OrderPlaced>(adopter.clone())
        .adopt::<OrderShipped>(adopter)
        // A warehouse's events are one entity's; what must wait for one another is one order's.
        .ordered_by(OrderingKey::Correlation)
        // Other producers' events may come in any order: a payment or a shipment waits for its order.
        .max_attempts(10)
}
