//! Checkout: an order, placed by a customer who may order.

use common::order::OrderPlaced;
use jetkit::{Cause, EventStore, ExecuteError};

use crate::order::{Order, OrderCommand, OrderRejection};
use crate::user::{CustomerRejection, User};

/// An order that was placed, now or before.
#[derive(Debug)]
pub struct Placed {
    /// As it was placed, with the address that mails about it go to.
    pub order: OrderPlaced,
    /// The position on the log of the order's last event.
    pub sequence: u64,
}

/// Why no order was placed.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// The customer may not order.
    #[error(transparent)]
    Customer(#[from] CustomerRejection),
    /// The order was refused, or the log failed.
    #[error(transparent)]
    Order(#[from] ExecuteError<OrderRejection>),
}

/// Places an order. Asked for again, it answers as the first time, even if the customer could not order now.
pub async fn place(
    users: &EventStore<User>,
    orders: &EventStore<Order>,
    mut order: OrderPlaced,
    cause: Cause,
) -> Result<Placed, CheckoutError> {
    let email = order.customer_email.take();
    let existing = orders.load(&order.order_id).await.map_err(ExecuteError::from)?;
    order.customer_email = if let Some(placed) = existing.state.placed() {
        email.or_else(|| placed.customer_email.clone())
    } else {
        let customer = users.load(&order.customer_id).await.map_err(ExecuteError::from)?;
        Some(customer.state.may_order(email)?)
    };
    let cause = cause.by_user(order.customer_id.as_str());
    let executed = orders.execute(&order.order_id, &OrderCommand::Place(order.clone()), &cause).await?;
    Ok(Placed { order, sequence: executed.sequence })
}
