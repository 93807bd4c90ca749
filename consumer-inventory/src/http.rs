//! Goods in, and a look at what is there.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use eventkit::http::{
    Body, IfMatch, MinSequence, OrProblem, Page, PageQuery, Path, Problem, RequestCause, Written,
};
use eventkit::{EntityId, View};
use serde::Deserialize;

use crate::stock::{Level, StockRejection};
use crate::stock_view::{OrderReservation, ProductStock, StockView};
use crate::storekeeper::Storekeeper;

/// The most that one receipt may bring.
pub const MAX_RECEIPT: u32 = 1_000_000_000;

/// How long a read waits for the position that it must include.
const WAIT: Duration = Duration::from_secs(5);

/// The routes of consumer-inventory.
pub fn router(storekeeper: Storekeeper, view: View<StockView>) -> Router {
    Router::new()
        .route("/stock", get(list_stock))
        .route("/stock/{product_id}", get(show_stock).put(receive_stock))
        .route("/reservations/{order_id}", get(show_reservation))
        .with_state(Inventory { storekeeper, view })
}

#[derive(Clone)]
struct Inventory {
    storekeeper: Storekeeper,
    view: View<StockView>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Receipt {
    received: u32,
}

/// Adds a receipt: the product's stock grows by `received`. With an `Idempotency-Key` a repeat adds nothing.
async fn receive_stock(
    State(inventory): State<Inventory>,
    Path(product_id): Path<EntityId>,
    RequestCause(cause): RequestCause,
    IfMatch(at): IfMatch,
    Body(receipt): Body<Receipt>,
) -> Result<Written<ProductStock>, Problem> {
    if receipt.received == 0 || receipt.received > MAX_RECEIPT {
        return Err(Problem::invalid(format!("`received` must be 1 to {MAX_RECEIPT}")));
    }
    let stored = inventory
        .storekeeper
        .receive(product_id.clone(), receipt.received, at, &cause)
        .await
        .or_problem(|refusal| refused(&refusal))?;
    let level = stored.state.product(&product_id).copied().unwrap_or(Level::default());
    Ok(Written {
        status: StatusCode::OK,
        version: stored.version,
        sequence: stored.sequence,
        body: ProductStock::new(product_id, &level),
    })
}

async fn list_stock(
    State(inventory): State<Inventory>,
    MinSequence(wanted): MinSequence,
    page: PageQuery,
) -> Result<Json<Page<ProductStock>>, Problem> {
    inventory.view.at_least(wanted.unwrap_or(0), WAIT).await?;
    Ok(Json(inventory.view.read(|stock| page.of(stock.products()))))
}

async fn show_stock(
    State(inventory): State<Inventory>,
    Path(product_id): Path<EntityId>,
    MinSequence(wanted): MinSequence,
) -> Result<Json<ProductStock>, Problem> {
    inventory.view.at_least(wanted.unwrap_or(0), WAIT).await?;
    inventory
        .view
        .read(|stock| stock.product(&product_id))
        .map(Json)
        .ok_or_else(|| Problem::not_found(format!("no stock of product {product_id} ever came in")))
}

async fn show_reservation(
    State(inventory): State<Inventory>,
    Path(order_id): Path<EntityId>,
    MinSequence(wanted): MinSequence,
) -> Result<Json<OrderReservation>, Problem> {
    inventory.view.at_least(wanted.unwrap_or(0), WAIT).await?;
    inventory
        .view
        .read(|stock| stock.reservation(&order_id))
        .map(Json)
        .ok_or_else(|| Problem::not_found(format!("nothing was reserved or refused for order {order_id}")))
}

fn refused(refusal: &StockRejection) -> Problem {
    let (slug, title) = match refusal {
        StockRejection::NothingReceived => ("nothing-received", "Nothing received"),
        StockRejection::TooMuch => ("too-much-stock", "Too much stock"),
        StockRejection::NothingHeld { .. } => ("nothing-held", "Nothing held"),
    };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, slug, title).detail(refusal.to_string())
}
