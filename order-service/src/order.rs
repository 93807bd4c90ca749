//! The rules of an order: placed, confirmed when it is paid, then shipped; or cancelled, until it is shipped.

use common::email::{AddressFlaw, wire_form};
use common::money::{Money, MoneyError};
use common::order::{
    CancelReason, CardToken, OrderCancelled, OrderConfirmed, OrderEvent, OrderItem, OrderPlaced,
    OrderShipped, PaymentMethod,
};
use common::text::is_line;
use jetkit::{Aggregate, EntityId};

/// An order, as the sum of its events.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Order {
    placed: Option<OrderPlaced>,
    confirmed: Option<OrderConfirmed>,
    shipped: Option<OrderShipped>,
    cancelled: Option<OrderCancelled>,
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub enum OrderStatus {
    /// Waiting for stock and payment.
    Placed,
    /// Paid, and reserved; where another producer takes the money, paid.
    Confirmed,
    /// On its way. An end.
    Shipped,
    /// Not to be fulfilled. An end.
    Cancelled,
}

/// What can be asked of an order.
#[derive(Debug, Clone)]
pub enum OrderCommand {
    /// Take it on.
    Place(OrderPlaced),
    /// It is paid.
    Confirm {
        /// By this payment.
        payment_id: EntityId,
        /// So much.
        amount: Money,
    },
    /// Send it off.
    Ship {
        /// Who carries it: 1 to 100 characters.
        carrier: String,
        /// What the carrier knows it by: 1 to 100 characters.
        tracking_number: String,
    },
    /// Give it up.
    Cancel {
        /// Why.
        reason: CancelReason,
        /// More about it, at most 500 characters.
        detail: Option<String>,
    },
}

/// Why an order says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderRejection {
    /// It was never placed.
    #[error("there is no such order")]
    Unknown,
    /// The id is taken.
    #[error("another order has this id")]
    DifferentOrder,
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(#[from] OrderFlaw),
    /// It is not paid yet.
    #[error("the order is not confirmed yet")]
    NotConfirmed,
    /// It is gone.
    #[error("the order is already shipped")]
    AlreadyShipped,
    /// It was given up.
    #[error("the order is cancelled")]
    Cancelled,
    /// Another payment paid for it before.
    #[error("the order is already paid, by payment {by}")]
    AlreadyPaid {
        /// The first payment.
        by: EntityId,
    },
    /// Less than it costs, or in another currency.
    #[error("the order is {total}, the payment {paid}")]
    Underpaid {
        /// What it costs.
        total: Money,
        /// What was paid.
        paid: Money,
    },
}

/// What is wrong with what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderFlaw {
    /// None, or too many.
    #[error("an order has 1 to {MAX_ITEMS} items")]
    Items,
    /// None, or too many.
    #[error("a quantity is 1 to {MAX_QUANTITY}")]
    Quantity,
    /// Zero or less.
    #[error("a price is more than zero")]
    Price,
    /// Two currencies.
    #[error("all prices of an order are in one currency")]
    Currency,
    /// The sum is beyond all bounds.
    #[error("the total is too large")]
    TooLarge,
    /// The total is not what the items cost.
    #[error("the items cost {items}, the total says {total}")]
    Total {
        /// The sum of the items.
        items: Money,
        /// The total.
        total: Money,
    },
    /// A product without a name.
    #[error("a product's name is 1 to {MAX_NAME_CHARS} characters on one line, with something to see")]
    ProductName,
    /// Not an address that mails can go to.
    #[error("the customer_email is refused: {0}")]
    Email(AddressFlaw),
    /// Not a token.
    #[error("a card token is 1 to {MAX_NAME_CHARS} visible ASCII characters")]
    CardToken,
    /// Who carries it and under which number.
    #[error(
        "carrier and tracking_number are 1 to {MAX_SHIPPING_CHARS} characters on one line, with something to see"
    )]
    Shipping,
    /// Too many words.
    #[error("a reason is 1 to {MAX_DETAIL_CHARS} characters on one line, with something to see")]
    Detail,
}

/// The most lines of one order.
pub const MAX_ITEMS: usize = 100;
/// The most of one product in one line.
pub const MAX_QUANTITY: u32 = 10_000;
const MAX_NAME_CHARS: usize = 200;
const MAX_SHIPPING_CHARS: usize = 100;
const MAX_DETAIL_CHARS: usize = 500;

/// What the items cost together.
pub fn total(items: &[OrderItem]) -> Result<Money, OrderFlaw> {
    let currency = items.first().ok_or(OrderFlaw::Items)?.unit_price.currency();
    let sum = items
        .iter()
        .try_fold(Money::zero(currency), |sum, item| sum.plus(item.unit_price.times(item.quantity)?));
    sum.map_err(|error| match error {
        MoneyError::CurrencyMismatch { .. } => OrderFlaw::Currency,
        _ => OrderFlaw::TooLarge,
    })
}

impl Order {
    /// What was ordered; `None` if it was never placed.
    pub fn placed(&self) -> Option<&OrderPlaced> {
        self.placed.as_ref()
    }

    /// How it was paid.
    pub fn confirmed(&self) -> Option<&OrderConfirmed> {
        self.confirmed.as_ref()
    }

    /// How it was shipped.
    pub fn shipped(&self) -> Option<&OrderShipped> {
        self.shipped.as_ref()
    }

    /// Why it was cancelled.
    pub fn cancelled(&self) -> Option<&OrderCancelled> {
        self.cancelled.as_ref()
    }

    /// Where it stands; `None` if it was never placed.
    pub fn status(&self) -> Option<OrderStatus> {
        self.placed.as_ref()?;
        Some(match self {
            Self { cancelled: Some(_), .. } => OrderStatus::Cancelled,
            Self { shipped: Some(_), .. } => OrderStatus::Shipped,
            Self { confirmed: Some(_), .. } => OrderStatus::Confirmed,
            _ => OrderStatus::Placed,
        })
    }

    fn place(&self, order: &OrderPlaced) -> Result<Vec<OrderEvent>, OrderRejection> {
        match &self.placed {
            Some(placed) if placed == order => Ok(vec![]),
            Some(_) => Err(OrderRejection::DifferentOrder),
            None => {
                check(order)?;
                Ok(vec![order.clone().into()])
            }
        }
    }

    fn confirm(
        &self,
        placed: &OrderPlaced,
        payment_id: &EntityId,
        paid: Money,
    ) -> Result<Vec<OrderEvent>, OrderRejection> {
        match &self.confirmed {
            // The payment side gives the money back.
            _ if self.cancelled.is_some() => Ok(vec![]),
            Some(confirmed) if confirmed.payment_id == *payment_id => Ok(vec![]),
            Some(confirmed) => Err(OrderRejection::AlreadyPaid { by: confirmed.payment_id.clone() }),
            None if !paid.compare(placed.total).is_ok_and(std::cmp::Ordering::is_ge) => {
                Err(OrderRejection::Underpaid { total: placed.total, paid })
            }
            None => {
                let (order_id, payment_id) = (placed.order_id.clone(), payment_id.clone());
                Ok(vec![OrderConfirmed { order_id, payment_id }.into()])
            }
        }
    }

    fn ship(&self, shipped: OrderShipped) -> Result<Vec<OrderEvent>, OrderRejection> {
        match self.status() {
            Some(OrderStatus::Confirmed) => {
                let legal = |text: &str| is_line(text, MAX_SHIPPING_CHARS);
                if !legal(&shipped.carrier) || !legal(&shipped.tracking_number) {
                    return Err(OrderFlaw::Shipping.into());
                }
                Ok(vec![shipped.into()])
            }
            Some(OrderStatus::Shipped) if self.shipped.as_ref() == Some(&shipped) => Ok(vec![]),
            Some(OrderStatus::Shipped) => Err(OrderRejection::AlreadyShipped),
            Some(OrderStatus::Cancelled) => Err(OrderRejection::Cancelled),
            Some(OrderStatus::Placed) => Err(OrderRejection::NotConfirmed),
            None => Err(OrderRejection::Unknown),
        }
    }

    fn cancel(&self, cancelled: OrderCancelled) -> Result<Vec<OrderEvent>, OrderRejection> {
        if cancelled.detail.as_ref().is_some_and(|detail| !is_line(detail, MAX_DETAIL_CHARS)) {
            return Err(OrderFlaw::Detail.into());
        }
        // A payment that failed or did not come in time is no news for an order that another one has paid.
        let about_payment = matches!(cancelled.reason, CancelReason::PaymentFailed | CancelReason::TimedOut);
        match self.status() {
            Some(OrderStatus::Confirmed | OrderStatus::Shipped) if about_payment => Ok(vec![]),
            Some(OrderStatus::Placed | OrderStatus::Confirmed) => Ok(vec![cancelled.into()]),
            Some(OrderStatus::Cancelled) => Ok(vec![]),
            Some(OrderStatus::Shipped) => Err(OrderRejection::AlreadyShipped),
            None => Err(OrderRejection::Unknown),
        }
    }
}

impl Aggregate for Order {
    const ENTITY: &'static str = "order";
    type Event = OrderEvent;
    type Command = OrderCommand;
    type Rejection = OrderRejection;

    fn decide(&self, command: &OrderCommand) -> Result<Vec<OrderEvent>, OrderRejection> {
        let placed = || self.placed.as_ref().ok_or(OrderRejection::Unknown);
        match command {
            OrderCommand::Place(order) => self.place(order),
            OrderCommand::Confirm { payment_id, amount } => self.confirm(placed()?, payment_id, *amount),
            OrderCommand::Ship { carrier, tracking_number } => self.ship(OrderShipped {
                order_id: placed()?.order_id.clone(),
                carrier: carrier.clone(),
                tracking_number: tracking_number.clone(),
            }),
            OrderCommand::Cancel { reason, detail } => self.cancel(OrderCancelled {
                order_id: placed()?.order_id.clone(),
                reason: *reason,
                detail: detail.clone(),
            }),
        }
    }

    fn apply(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed(placed) => self.placed = Some(placed.clone()),
            OrderEvent::Confirmed(confirmed) => self.confirmed = Some(confirmed.clone()),
            OrderEvent::Shipped(shipped) => self.shipped = Some(shipped.clone()),
            OrderEvent::Cancelled(cancelled) => self.cancelled = Some(cancelled.clone()),
        }
    }
}

/// What every order must be like. One that was placed and is paid outside may have cost less or more than its items
/// (a discount, shipping), or nothing; its address is taken as it is, for the mailer to judge.
fn check(order: &OrderPlaced) -> Result<(), OrderFlaw> {
    let outside = order.payment_method == PaymentMethod::External {};
    if !(1..=MAX_ITEMS).contains(&order.items.len()) {
        return Err(OrderFlaw::Items);
    }
    for item in &order.items {
        if !(1..=MAX_QUANTITY).contains(&item.quantity) {
            return Err(OrderFlaw::Quantity);
        }
        if item.unit_price.minor() < i64::from(!outside) {
            return Err(OrderFlaw::Price);
        }
        if !is_line(&item.product_name, MAX_NAME_CHARS) {
            return Err(OrderFlaw::ProductName);
        }
    }
    let items = total(&order.items)?;
    if items.currency() != order.total.currency() {
        return Err(OrderFlaw::Currency);
    }
    if order.total.minor() < 0 || (!outside && items != order.total) {
        return Err(OrderFlaw::Total { items, total: order.total });
    }
    if !outside && let Some(email) = &order.customer_email {
        wire_form(email).map_err(OrderFlaw::Email)?;
    }
    if let PaymentMethod::Card { token: CardToken(token) } = &order.payment_method
        && (!is_line(token, MAX_NAME_CHARS) || !token.bytes().all(|b| b.is_ascii_graphic()))
    {
        return Err(OrderFlaw::CardToken);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
