//! The shop's numbers, and the page that shows them.

use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use eventkit::View;
use eventkit::http::{MinSequence, Page, PageQuery, Problem, Query};
use serde::Deserialize;

use crate::report::{CustomerReport, PaymentReport, ProductOrder, ProductReport, Summary};
use crate::shop_metrics::ShopMetrics;

/// How long a read waits for the position that it must include.
const WAIT: Duration = Duration::from_secs(5);

/// The page runs its own script and style, asks this server, and nothing else.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                           connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes of consumer-analytics.
pub fn router(view: View<ShopMetrics>) -> Router {
    Router::new()
        .route("/", get(dashboard))
        .route("/metrics/summary", get(show_summary))
        .route("/metrics/products", get(list_products))
        .route("/metrics/customers", get(list_customers))
        .route("/metrics/payments", get(show_payments))
        .with_state(view)
}

#[derive(Debug, Deserialize)]
struct ProductQuery {
    #[serde(default)]
    sort: ProductOrder,
}

async fn dashboard() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(include_str!("dashboard.html")))
}

async fn show_summary(
    State(view): State<View<ShopMetrics>>,
    MinSequence(wanted): MinSequence,
) -> Result<Json<Summary>, Problem> {
    view.at_least(wanted.unwrap_or(0), WAIT).await?;
    // Read first: the numbers include everything up to it, and perhaps what comes in between.
    let sequence = view.watermark();
    Ok(Json(view.read(|metrics| metrics.summary(sequence))))
}

async fn list_products(
    State(view): State<View<ShopMetrics>>,
    Query(query): Query<ProductQuery>,
    MinSequence(wanted): MinSequence,
    page: PageQuery,
) -> Result<Json<Page<ProductReport>>, Problem> {
    view.at_least(wanted.unwrap_or(0), WAIT).await?;
    Ok(Json(page.of(view.read(|metrics| metrics.products(query.sort)))))
}

async fn list_customers(
    State(view): State<View<ShopMetrics>>,
    MinSequence(wanted): MinSequence,
    page: PageQuery,
) -> Result<Json<Page<CustomerReport>>, Problem> {
    view.at_least(wanted.unwrap_or(0), WAIT).await?;
    Ok(Json(page.of(view.read(ShopMetrics::customers))))
}

async fn show_payments(
    State(view): State<View<ShopMetrics>>,
    MinSequence(wanted): MinSequence,
) -> Result<Json<PaymentReport>, Problem> {
    view.at_least(wanted.unwrap_or(0), WAIT).await?;
    Ok(Json(view.read(ShopMetrics::payment_report)))
}
