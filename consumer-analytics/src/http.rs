//! The shop's numbers, and the page that shows them.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use eventkit::http::{MinSequence, Page, PageQuery, Problem, Query};
use eventkit::{ReadModel, Seen};
use serde::Deserialize;

use crate::report::{CustomerReport, DayReport, PaymentReport, ProductOrder, ProductReport, Summary, Totals};
use crate::shop_metrics::ShopMetrics;

/// The page runs its own script and style, asks this server, and nothing else.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                           connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes of consumer-analytics.
pub fn router(metrics: ReadModel<ShopMetrics>) -> Router {
    Router::new()
        .route("/", get(dashboard))
        .route("/metrics/summary", get(show_summary))
        .route("/metrics/days", get(list_days))
        .route("/metrics/products", get(list_products))
        .route("/metrics/customers", get(list_customers))
        .route("/metrics/payments", get(show_payments))
        .with_state(metrics)
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
    State(metrics): State<ReadModel<ShopMetrics>>,
    min_sequence: MinSequence,
) -> Result<Seen<Summary>, Problem> {
    let Seen { value: totals, sequence } = metrics.at(min_sequence).await?.read(Totals::read).await?;
    Ok(Seen { value: Summary { sequence, totals }, sequence })
}

async fn list_days(
    State(metrics): State<ReadModel<ShopMetrics>>,
    min_sequence: MinSequence,
    page: PageQuery,
) -> Result<Seen<Page<DayReport>>, Problem> {
    Ok(metrics.at(min_sequence).await?.read(move |tables| DayReport::list(tables, page)).await?)
}

async fn list_products(
    State(metrics): State<ReadModel<ShopMetrics>>,
    Query(query): Query<ProductQuery>,
    min_sequence: MinSequence,
    page: PageQuery,
) -> Result<Seen<Page<ProductReport>>, Problem> {
    let metrics = metrics.at(min_sequence).await?;
    Ok(metrics.read(move |tables| ProductReport::list(tables, query.sort, page)).await?)
}

async fn list_customers(
    State(metrics): State<ReadModel<ShopMetrics>>,
    min_sequence: MinSequence,
    page: PageQuery,
) -> Result<Seen<Page<CustomerReport>>, Problem> {
    Ok(metrics.at(min_sequence).await?.read(move |tables| CustomerReport::list(tables, page)).await?)
}

async fn show_payments(
    State(metrics): State<ReadModel<ShopMetrics>>,
    min_sequence: MinSequence,
) -> Result<Seen<PaymentReport>, Problem> {
    Ok(metrics.at(min_sequence).await?.read(PaymentReport::read).await?)
}
