//! Goods in, and a look at what is there.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::routing::MethodRouter;
use jetkit::http::{
    Body, HttpApi, IfMatch, MinSequence, OrProblem, Page, PageQuery, Path, Problem, RequestCause, Routes,
    Versioned,
};
use jetkit::{EntityId, ReadModel, Seen};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::stock::{Level, StockRejection};
use crate::stock_list::{OrderReservation, ProductStock, StockList};
use crate::storekeeper::Storekeeper;

/// The most that one receipt may bring.
pub const MAX_RECEIPT: u32 = 1_000_000_000;

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    /// Who lets goods in.
    pub storekeeper: Storekeeper,
    /// Stock and reservations to read.
    pub stock: ReadModel<StockList>,
}

impl HttpApi for Api {
    fn described() -> Routes<Self> {
        Routes::new()
            .routes(routes!(list_stock))
            .routes(routes!(show_stock))
            .route("/stock/{product_id}", MethodRouter::new().fallback(not_allowed))
            .routes(routes!(receive_stock))
            .routes(routes!(show_reservation))
    }
}

/// Goods that came in
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"received": 10}))]
struct Receipt {
    /// How many
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    received: u32,
}

/// Adds a receipt: the product's stock grows by `received`. With an `Idempotency-Key` a repeat adds nothing.
#[utoipa::path(
    post,
    path = "/stock/{product_id}/receipts",
    params(("product_id" = EntityId, Path, description = "The product"), IfMatch, RequestCause),
    request_body = Receipt,
    responses((status = 200, description = "What is there now; the version is the warehouse's", body = Versioned<ProductStock>))
)]
async fn receive_stock(
    State(api): State<Api>,
    Path(product_id): Path<EntityId>,
    RequestCause(cause): RequestCause,
    IfMatch(at): IfMatch,
    Body(receipt): Body<Receipt>,
) -> Result<Versioned<ProductStock>, Problem> {
    if receipt.received == 0 || receipt.received > MAX_RECEIPT {
        return Err(Problem::invalid(format!("`received` must be 1 to {MAX_RECEIPT}")));
    }
    let stored = api
        .storekeeper
        .receive(product_id.clone(), receipt.received, at, &cause)
        .await
        .or_problem(|refusal| refused(&refusal))?;
    let level = stored.state.product(&product_id).copied().unwrap_or(Level::default());
    let body = ProductStock::new(product_id, &level);
    Ok(Versioned::ok(stored.version, stored.sequence, body))
}

/// Answers a method that a product does not take. A PUT is named its successor: it added, so its repeat added twice.
async fn not_allowed(method: Method, Path(product_id): Path<EntityId>) -> Problem {
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "This path does not take this method",
    );
    if method != Method::PUT {
        return problem;
    }
    let successor = format!("/stock/{product_id}/receipts");
    problem
        .detail(format!(r#"Receive goods by POST {successor} {{"received": 10}}, with an Idempotency-Key"#))
}

/// What is in stock, by product
#[utoipa::path(
    get,
    path = "/stock",
    params(PageQuery, MinSequence),
    responses((status = 200, description = "A page of it", body = Page<ProductStock>))
)]
async fn list_stock(
    State(api): State<Api>,
    min_sequence: MinSequence,
    page: PageQuery,
) -> Result<Seen<Page<ProductStock>>, Problem> {
    let stock = api.stock.at(min_sequence).await?;
    Ok(stock.read(move |tables| ProductStock::list(tables, &page)).await?)
}

/// What is there of a product
#[utoipa::path(
    get,
    path = "/stock/{product_id}",
    params(("product_id" = EntityId, Path, description = "The product"), MinSequence),
    responses(
        (status = 200, description = "What is there", body = ProductStock),
        (status = 404, description = "None ever came in"),
    )
)]
async fn show_stock(
    State(api): State<Api>,
    Path(product_id): Path<EntityId>,
    min_sequence: MinSequence,
) -> Result<Seen<Json<ProductStock>>, Problem> {
    let wanted = product_id.clone();
    let stock = api.stock.at(min_sequence).await?;
    let product = stock.read(move |tables| ProductStock::find(tables, &wanted)).await?;
    let unknown = || Problem::not_found(format!("no stock of product {product_id} ever came in"));
    Ok(product.found().ok_or_else(unknown)?.map(Json))
}

/// What is set aside for an order
#[utoipa::path(
    get,
    path = "/reservations/{order_id}",
    params(("order_id" = EntityId, Path, description = "The order"), MinSequence),
    responses(
        (status = 200, description = "What was reserved, or why not", body = OrderReservation),
        (status = 404, description = "Nothing was reserved or refused for it"),
    )
)]
async fn show_reservation(
    State(api): State<Api>,
    Path(order_id): Path<EntityId>,
    min_sequence: MinSequence,
) -> Result<Seen<Json<OrderReservation>>, Problem> {
    let wanted = order_id.clone();
    let stock = api.stock.at(min_sequence).await?;
    let reservation = stock.read(move |tables| OrderReservation::find(tables, &wanted)).await?;
    let unknown = || Problem::not_found(format!("nothing was reserved or refused for order {order_id}"));
    Ok(reservation.found().ok_or_else(unknown)?.map(Json))
}

fn refused(refusal: &StockRejection) -> Problem {
    let (slug, title) = match refusal {
        StockRejection::NothingReceived => ("nothing-received", "Nothing received"),
        StockRejection::TooMuch => ("too-much-stock", "Too much stock"),
        StockRejection::NothingHeld { .. } => ("nothing-held", "Nothing held"),
    };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, slug, title).detail(refusal.to_string())
}
