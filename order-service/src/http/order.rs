//! `/orders`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use common::money::{Amount, Currency};
use common::order::{CancelReason, CardToken, OrderEvent, OrderItem, OrderPlaced, PaymentMethod};
use jetkit::http::{
    Body, History, HistoryEntry, HistoryRequest, IfMatch, MinSequence, Object, OrProblem, Page, PageQuery,
    Path, Problem, Query, RequestCause, Versioned,
};
use jetkit::{Aggregate as _, Cause, EntityId, ExpectedVersion, Seen};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use crate::checkout::{self, CheckoutError, Placed};
use crate::order::{self, Order, OrderCommand, OrderRejection, OrderStatus};
use crate::order_list::OrderSummary;
use crate::user::CustomerRejection;

/// An order to place
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "customer_id": "guest-1",
    "customer_email": "guest@example.com",
    "items": [{"product_id": "lamp", "product_name": "Lamp", "quantity": 2, "price": 19.99}],
    "payment_method": {"type": "card", "token": "tok_visa"},
}))]
pub(super) struct NewOrder {
    /// Its id, if the client wants to choose; placing the same order under it again answers the same
    #[serde(default)]
    order_id: Option<EntityId>,
    /// A user of the shop, or anybody with a `customer_email`
    customer_id: EntityId,
    /// Where mails go; the user's address by default
    #[serde(default)]
    #[schema(format = "email", max_length = 254)]
    customer_email: Option<String>,
    #[schema(value_type = Vec<Item>, min_items = 1, max_items = 100)]
    items: Vec<Object<Item>>,
    /// Of all prices; US dollars by default
    #[serde(default)]
    currency: Currency,
    #[schema(value_type = NewPaymentMethod)]
    payment_method: Object<NewPaymentMethod>,
}

/// One line of an order
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Item {
    product_id: EntityId,
    #[schema(min_length = 1, max_length = 200)]
    product_name: String,
    #[schema(minimum = 1, maximum = 10_000)]
    quantity: u32,
    /// Of one, more than zero
    price: Amount,
}

/// How to pay
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum NewPaymentMethod {
    Account {
        account_id: EntityId,
    },
    Card {
        /// What the card gateway gave for the card
        #[schema(value_type = String, pattern = "^[!-~]{1,200}$")]
        token: CardToken,
    },
}

/// How an order is sent
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"carrier": "DHL", "tracking_number": "JD014600003"}))]
pub(super) struct Shipping {
    #[schema(min_length = 1, max_length = 100)]
    carrier: String,
    #[schema(min_length = 1, max_length = 100)]
    tracking_number: String,
}

/// Why an order is cancelled
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "found it cheaper"}))]
pub(super) struct Cancelling {
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only this customer's orders
    customer_id: Option<EntityId>,
    /// Only the orders that stand so
    #[param(inline)]
    status: Option<OrderStatus>,
}

/// What was ordered, as a client sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PlacedBody {
    customer_id: EntityId,
    #[serde(skip_serializing_if = "Option::is_none")]
    customer_email: Option<String>,
    items: Vec<Item>,
    total: Amount,
    currency: Currency,
    payment_method: ShownPaymentMethod,
}

/// A payment method without the card's token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ShownPaymentMethod {
    Account { account_id: EntityId },
    Card,
    External,
}

impl From<&OrderItem> for Item {
    fn from(item: &OrderItem) -> Self {
        Self {
            product_id: item.product_id.clone(),
            product_name: item.product_name.clone(),
            quantity: item.quantity,
            price: item.unit_price.amount(),
        }
    }
}

impl From<&OrderPlaced> for PlacedBody {
    fn from(placed: &OrderPlaced) -> Self {
        Self {
            customer_id: placed.customer_id.clone(),
            customer_email: placed.customer_email.clone(),
            items: placed.items.iter().map(Item::from).collect(),
            total: placed.total.amount(),
            currency: placed.total.currency(),
            payment_method: match &placed.payment_method {
                PaymentMethod::Account { account_id } => {
                    ShownPaymentMethod::Account { account_id: account_id.clone() }
                }
                PaymentMethod::Card { .. } => ShownPaymentMethod::Card,
                PaymentMethod::External {} => ShownPaymentMethod::External,
            },
        }
    }
}

/// An order
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderBody {
    /// Under the name that every entity's has, and under the one that requests and events use.
    id: EntityId,
    order_id: EntityId,
    status: OrderStatus,
    #[serde(flatten)]
    placed: PlacedBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_id: Option<EntityId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    carrier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel_reason: Option<CancelReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel_detail: Option<String>,
    version: u64,
}

impl OrderBody {
    fn new(order: &Order, version: u64) -> Option<Self> {
        let placed = order.placed()?;
        Some(Self {
            id: placed.order_id.clone(),
            order_id: placed.order_id.clone(),
            status: order.status()?,
            placed: placed.into(),
            payment_id: order.confirmed().map(|confirmed| confirmed.payment_id.clone()),
            carrier: order.shipped().map(|shipped| shipped.carrier.clone()),
            tracking_number: order.shipped().map(|shipped| shipped.tracking_number.clone()),
            cancel_reason: order.cancelled().map(|cancelled| cancelled.reason),
            cancel_detail: order.cancelled().and_then(|cancelled| cancelled.detail.clone()),
            version,
        })
    }
}

impl From<OrderSummary> for OrderBody {
    fn from(order: OrderSummary) -> Self {
        Self {
            id: order.order_id.clone(),
            order_id: order.order_id,
            status: order.status,
            placed: PlacedBody {
                customer_id: order.customer_id,
                customer_email: order.customer_email,
                items: order.items.iter().map(Item::from).collect(),
                total: order.total.amount(),
                currency: order.total.currency(),
                payment_method: match (order.account_id, &*order.pays_by) {
                    (Some(account_id), _) => ShownPaymentMethod::Account { account_id },
                    (None, "card") => ShownPaymentMethod::Card,
                    (None, _) => ShownPaymentMethod::External,
                },
            },
            payment_id: order.payment_id,
            carrier: order.carrier,
            tracking_number: order.tracking_number,
            cancel_reason: order.cancel_reason,
            cancel_detail: order.cancel_detail,
            version: order.version,
        }
    }
}

/// One event of an order's history
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type")]
pub(super) enum OrderEntry {
    #[serde(rename = "OrderPlaced")]
    Placed(PlacedBody),
    #[serde(rename = "OrderConfirmed")]
    Confirmed { payment_id: EntityId },
    #[serde(rename = "OrderShipped")]
    Shipped { carrier: String, tracking_number: String },
    #[serde(rename = "OrderCancelled")]
    Cancelled {
        reason: CancelReason,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
}

impl From<OrderEvent> for OrderEntry {
    fn from(event: OrderEvent) -> Self {
        match event {
            OrderEvent::Placed(placed) => Self::Placed((&placed).into()),
            OrderEvent::Confirmed(confirmed) => Self::Confirmed { payment_id: confirmed.payment_id },
            OrderEvent::Shipped(shipped) => {
                Self::Shipped { carrier: shipped.carrier, tracking_number: shipped.tracking_number }
            }
            OrderEvent::Cancelled(cancelled) => {
                Self::Cancelled { reason: cancelled.reason, detail: cancelled.detail }
            }
        }
    }
}

/// Places an order
#[utoipa::path(
    post,
    path = "/orders",
    params(RequestCause),
    request_body = NewOrder,
    responses(
        (status = 201, description = "The order is placed, or was before", body = Versioned<OrderBody>,
         headers(("Location" = String, description = "Where it is"))),
        (status = 409, description = "`order-exists`: another order has this id"),
    )
)]
pub(super) async fn place(
    State(api): State<Api>,
    cause: RequestCause,
    Body(request): Body<NewOrder>,
) -> Result<impl IntoResponse, Problem> {
    let order_id = request.order_id.clone().unwrap_or_else(|| cause.derive_entity_id());
    let order = translate(request, order_id.clone())?;
    let placed = checkout::place(&api.users, &api.orders, order, cause.0).await;
    let Placed { order, sequence } = placed.map_err(|error| match error {
        CheckoutError::Customer(reason) => no_customer(&reason),
        CheckoutError::Order(error) => error.or_problem(|reason| refusal(&order_id, &reason)),
    })?;
    // The order as it was placed, and not as it is: a repeat is answered as the first time, even if the order moved on.
    let mut placed = Order::default();
    placed.apply(&order.into());
    let body = OrderBody::new(&placed, 1).ok_or_else(|| unknown(&order_id))?;
    let location = [(header::LOCATION, format!("/orders/{order_id}"))];
    Ok((location, Versioned::ok(1, sequence, body).created()))
}

/// The order that a request asks for. Prices are read in its currency, and the total is their sum.
fn translate(request: NewOrder, order_id: EntityId) -> Result<OrderPlaced, Problem> {
    let item = |Object(item): Object<Item>| {
        let unit_price =
            item.price.in_currency(request.currency).map_err(|e| Problem::invalid(e.to_string()))?;
        let Item { product_id, product_name, quantity, .. } = item;
        Ok(OrderItem { product_id, product_name, quantity, unit_price })
    };
    let items = request.items.into_iter().map(item).collect::<Result<Vec<_>, Problem>>()?;
    let total = order::total(&items).map_err(|flaw| Problem::invalid(flaw.to_string()))?;
    Ok(OrderPlaced {
        order_id,
        customer_id: request.customer_id,
        customer_email: request.customer_email,
        items,
        total,
        payment_method: match request.payment_method.0 {
            NewPaymentMethod::Account { account_id } => PaymentMethod::Account { account_id },
            NewPaymentMethod::Card { token } => PaymentMethod::Card { token },
        },
    })
}

/// An order
#[utoipa::path(
    get,
    path = "/orders/{id}",
    params(("id" = EntityId, Path, description = "The order"), MinSequence),
    responses(
        (status = 200, description = "The order as it is", body = Versioned<OrderBody>),
        (status = 404, description = "There is no such order"),
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
) -> Result<Versioned<OrderBody>, Problem> {
    let wanted = id.clone();
    let orders = api.order_list.at(min_sequence).await?;
    let order = orders.read(move |tables| OrderSummary::find(tables, &wanted)).await?;
    let Seen { value: order, sequence } = order.found().ok_or_else(|| unknown(&id))?;
    Ok(Versioned::ok(order.version, sequence, order.into()))
}

/// Orders, oldest first
#[utoipa::path(
    get,
    path = "/orders",
    params(Filter, PageQuery, MinSequence),
    responses((status = 200, description = "A page of them", body = Page<OrderBody>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    Query(filter): Query<Filter>,
    page: PageQuery,
    min_sequence: MinSequence,
) -> Result<Seen<Page<OrderBody>>, Problem> {
    let Filter { customer_id, status } = filter;
    let orders = api.order_list.at(min_sequence).await?;
    let found = orders.read(move |tables| OrderSummary::list(tables, customer_id, status, &page)).await?;
    Ok(found.map(|page| page.map(OrderBody::from)))
}

/// What happened to an order
#[utoipa::path(
    get,
    path = "/orders/{id}/events",
    params(("id" = EntityId, Path, description = "The order"), HistoryRequest, MinSequence),
    responses(
        (status = 200, description = "Its events, oldest first: all of them, or as many as one answer has", body = HistoryEntry<OrderEntry>),
        (status = 404, description = "There is no such order"),
    )
)]
pub(super) async fn history(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
    asked: HistoryRequest,
) -> Result<History<OrderEntry>, Problem> {
    api.order_list.at(min_sequence).await?;
    asked.answer(&api.orders, &id).await?.ok_or_else(|| unknown(&id))
}

/// Sends a confirmed order
#[utoipa::path(
    post,
    path = "/orders/{id}/ship",
    params(("id" = EntityId, Path, description = "The order"), IfMatch, RequestCause),
    request_body = Shipping,
    responses(
        (status = 200, description = "It is on its way", body = Versioned<OrderBody>),
        (status = 404, description = "There is no such order"),
        (status = 409, description = "`order-not-confirmed`, `order-already-shipped` or `order-cancelled`"),
    )
)]
pub(super) async fn ship(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    IfMatch(version): IfMatch,
    RequestCause(cause): RequestCause,
    Body(Shipping { carrier, tracking_number }): Body<Shipping>,
) -> Result<Versioned<OrderBody>, Problem> {
    execute(&api, &id, version, &OrderCommand::Ship { carrier, tracking_number }, &cause).await
}

/// Cancels an order that is not sent yet
#[utoipa::path(
    post,
    path = "/orders/{id}/cancel",
    params(("id" = EntityId, Path, description = "The order"), IfMatch, RequestCause),
    request_body = Cancelling,
    responses(
        (status = 200, description = "It is cancelled", body = Versioned<OrderBody>),
        (status = 404, description = "There is no such order"),
        (status = 409, description = "`order-already-shipped`"),
    )
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    IfMatch(version): IfMatch,
    RequestCause(cause): RequestCause,
    Body(Cancelling { reason }): Body<Cancelling>,
) -> Result<Versioned<OrderBody>, Problem> {
    let command = OrderCommand::Cancel { reason: CancelReason::Requested, detail: Some(reason) };
    execute(&api, &id, version, &command, &cause).await
}

async fn execute(
    api: &Api,
    id: &EntityId,
    version: ExpectedVersion,
    command: &OrderCommand,
    cause: &Cause,
) -> Result<Versioned<OrderBody>, Problem> {
    let executed = api.orders.execute_at(id, version, command, cause).await;
    let executed = executed.or_problem(|reason| refusal(id, &reason))?;
    let body = OrderBody::new(&executed.state, executed.version).ok_or_else(|| unknown(id))?;
    Ok(Versioned::ok(executed.version, executed.sequence, body))
}

fn unknown(id: &EntityId) -> Problem {
    Problem::not_found(format!("There is no order {id}"))
}

fn no_customer(reason: &CustomerRejection) -> Problem {
    let (slug, title) = match reason {
        CustomerRejection::UnknownWithoutEmail => ("unknown-customer", "Unknown customer"),
        CustomerRejection::NotActive(_) => ("customer-not-active", "The customer may not order"),
    };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, slug, title).detail(reason.to_string())
}

fn refusal(id: &EntityId, reason: &OrderRejection) -> Problem {
    let (slug, title) = match reason {
        OrderRejection::Unknown => return unknown(id),
        OrderRejection::Invalid(flaw) => return Problem::invalid(flaw.to_string()),
        OrderRejection::DifferentOrder => ("order-exists", "Another order has this id"),
        OrderRejection::NotConfirmed => ("order-not-confirmed", "Order not confirmed"),
        OrderRejection::AlreadyShipped => ("order-already-shipped", "Order already shipped"),
        OrderRejection::Cancelled => ("order-cancelled", "Order cancelled"),
        OrderRejection::AlreadyPaid { .. } | OrderRejection::Underpaid { .. } => {
            ("order-payment", "Wrong payment")
        }
    };
    Problem::new(StatusCode::CONFLICT, slug, title).detail(reason.to_string())
}
