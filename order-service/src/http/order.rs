//! `/orders`.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use common::money::{Amount, Currency};
use common::order::{CancelReason, CardToken, OrderEvent, OrderItem, OrderPlaced, PaymentMethod};
use eventkit::http::{
    Body, HistoryEntry, IfMatch, MinSequence, Object, OrProblem, Page, PageQuery, Path, Problem, Query,
    RequestCause, Written,
};
use eventkit::{Cause, EntityId, Seen};
use serde::{Deserialize, Serialize};

use super::Api;
use crate::order::{self, Order, OrderCommand, OrderRejection, OrderStatus};
use crate::order_list::OrderSummary;
use crate::user::CustomerRejection;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOrder {
    #[serde(default)]
    order_id: Option<EntityId>,
    customer_id: EntityId,
    #[serde(default)]
    customer_email: Option<String>,
    items: Vec<Object<Item>>,
    #[serde(default)]
    currency: Currency,
    payment_method: Object<NewPaymentMethod>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Item {
    product_id: EntityId,
    product_name: String,
    quantity: u32,
    price: Amount,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum NewPaymentMethod {
    Account { account_id: EntityId },
    Card { token: CardToken },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shipping {
    carrier: String,
    tracking_number: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cancelling {
    reason: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Filter {
    customer_id: Option<EntityId>,
    status: Option<OrderStatus>,
}

/// What was ordered, as a client sees it.
#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
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

/// An order as a client sees it.
#[derive(Debug, Serialize)]
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

/// One event of an order's history.
#[derive(Debug, Serialize)]
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

pub(super) async fn place(
    State(api): State<Api>,
    cause: RequestCause,
    Body(request): Body<NewOrder>,
) -> Result<impl IntoResponse, Problem> {
    let order_id = request.order_id.clone().unwrap_or_else(|| cause.derive_entity_id());
    let mut order = translate(request, order_id)?;
    let order_id = order.order_id.clone();
    let email = order.customer_email.clone();

    let existing = api.orders.load(&order_id).await?;
    order.customer_email = if let Some(placed) = existing.state.placed() {
        // Asked for before: the answer is that of then, even if the customer could not order now.
        email.or_else(|| placed.customer_email.clone())
    } else {
        let customer = api.users.load(&order.customer_id).await?;
        Some(customer.state.may_order(email).map_err(|reason| no_customer(&reason))?)
    };
    let cause = cause.0.by_user(order.customer_id.as_str());
    let executed = api.orders.execute(&order_id, &OrderCommand::Place(order.clone()), &cause).await;
    let sequence = executed.or_problem(|reason| refusal(&order_id, &reason))?.sequence;
    let mut placed = Order::default();
    eventkit::Aggregate::apply(&mut placed, &order.into());
    let body = OrderBody::new(&placed, 1).ok_or_else(|| unknown(&order_id))?;
    let location = [(header::LOCATION, format!("/orders/{order_id}"))];
    Ok((location, Written { status: StatusCode::CREATED, version: 1, sequence, body }))
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

pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
) -> Result<Written<OrderBody>, Problem> {
    let wanted = id.clone();
    let orders = api.order_list.at(min_sequence).await?;
    let order = orders.read(move |tables| OrderSummary::find(tables, &wanted)).await?;
    let Seen { value: order, sequence } = order.found().ok_or_else(|| unknown(&id))?;
    Ok(Written { status: StatusCode::OK, version: order.version, sequence, body: order.into() })
}

pub(super) async fn list(
    State(api): State<Api>,
    Query(filter): Query<Filter>,
    page: PageQuery,
    min_sequence: MinSequence,
) -> Result<Seen<Page<OrderBody>>, Problem> {
    let Filter { customer_id, status } = filter;
    let orders = api.order_list.at(min_sequence).await?;
    let found = orders.read(move |tables| OrderSummary::list(tables, customer_id, status, page)).await?;
    Ok(found.map(|page| page.map(OrderBody::from)))
}

pub(super) async fn history(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
) -> Result<Json<Vec<HistoryEntry<OrderEntry>>>, Problem> {
    api.order_list.at(min_sequence).await?;
    let history = api.orders.history(&id).await?;
    if history.is_empty() {
        return Err(unknown(&id));
    }
    Ok(Json(history.into_iter().map(HistoryEntry::from).collect()))
}

pub(super) async fn ship(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    IfMatch(version): IfMatch,
    RequestCause(cause): RequestCause,
    Body(Shipping { carrier, tracking_number }): Body<Shipping>,
) -> Result<Written<OrderBody>, Problem> {
    execute(&api, &id, version, &OrderCommand::Ship { carrier, tracking_number }, &cause).await
}

pub(super) async fn cancel(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    IfMatch(version): IfMatch,
    RequestCause(cause): RequestCause,
    Body(Cancelling { reason }): Body<Cancelling>,
) -> Result<Written<OrderBody>, Problem> {
    let command = OrderCommand::Cancel { reason: CancelReason::Requested, detail: Some(reason) };
    execute(&api, &id, version, &command, &cause).await
}

async fn execute(
    api: &Api,
    id: &EntityId,
    version: Option<u64>,
    command: &OrderCommand,
    cause: &Cause,
) -> Result<Written<OrderBody>, Problem> {
    let executed = match version {
        None => api.orders.execute(id, command, cause).await,
        Some(version) => api.orders.execute_at(id, version, command, cause).await,
    };
    let executed = executed.or_problem(|reason| refusal(id, &reason))?;
    let body = OrderBody::new(&executed.state, executed.version).ok_or_else(|| unknown(id))?;
    Ok(Written { status: StatusCode::OK, version: executed.version, sequence: executed.sequence, body })
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
