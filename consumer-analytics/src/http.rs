//! The shop's numbers, and the page that shows them.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use jetkit::http::{HttpApi, MinSequence, Page, PageQuery, Problem, Query, Routes, html_page};
use jetkit::{ReadModel, Seen};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::routes;

use crate::report::{
    CustomerRanking, CustomerReport, DayReport, PaymentReport, ProductRanking, ProductReport, Summary, Totals,
};
use crate::shop_metrics::ShopMetrics;

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    /// The numbers to read.
    pub metrics: ReadModel<ShopMetrics>,
}

impl HttpApi for Api {
    fn described() -> Routes<Self> {
        Routes::new()
            .route("/", get(dashboard))
            .routes(routes!(show_summary))
            .routes(routes!(list_days))
            .routes(routes!(list_products))
            .routes(routes!(list_customers))
            .routes(routes!(show_payments))
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ProductQuery {
    /// A ranking, the highest first: by page. Without it products come by id, and a cursor sees each once
    #[param(inline)]
    sort: Option<ProductRanking>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct CustomerQuery {
    /// A ranking, the highest first: by page. Without it customers come by id, and a cursor sees each once
    #[param(inline)]
    sort: Option<CustomerRanking>,
}

async fn dashboard() -> impl IntoResponse {
    html_page(include_str!("dashboard.html"))
}

/// The shop in numbers
#[utoipa::path(
    get,
    path = "/metrics/summary",
    params(MinSequence),
    responses((status = 200, description = "The numbers", body = Summary))
)]
async fn show_summary(
    State(api): State<Api>,
    min_sequence: MinSequence,
) -> Result<Seen<Json<Summary>>, Problem> {
    let Seen { value: totals, sequence } = api.metrics.at(min_sequence).await?.read(Totals::read).await?;
    Ok(Seen { value: Json(Summary { sequence, totals }), sequence })
}

/// The shop in numbers, by day
#[utoipa::path(
    get,
    path = "/metrics/days",
    params(PageQuery, MinSequence),
    responses((status = 200, description = "A page of them", body = Page<DayReport>))
)]
async fn list_days(
    State(api): State<Api>,
    min_sequence: MinSequence,
    page: PageQuery,
) -> Result<Seen<Page<DayReport>>, Problem> {
    Ok(api.metrics.at(min_sequence).await?.read(move |tables| DayReport::list(tables, &page)).await?)
}

/// Products, by id or by how well they sell
#[utoipa::path(
    get,
    path = "/metrics/products",
    params(ProductQuery, PageQuery, MinSequence),
    responses((status = 200, description = "A page of them", body = Page<ProductReport>))
)]
async fn list_products(
    State(api): State<Api>,
    Query(query): Query<ProductQuery>,
    min_sequence: MinSequence,
    page: PageQuery,
) -> Result<Seen<Page<ProductReport>>, Problem> {
    let metrics = api.metrics.at(min_sequence).await?;
    Ok(metrics.read(move |tables| ProductReport::list(tables, query.sort, &page)).await?)
}

/// Customers and what they ordered, by id or by how much
#[utoipa::path(
    get,
    path = "/metrics/customers",
    params(CustomerQuery, PageQuery, MinSequence),
    responses((status = 200, description = "A page of them", body = Page<CustomerReport>))
)]
async fn list_customers(
    State(api): State<Api>,
    Query(query): Query<CustomerQuery>,
    min_sequence: MinSequence,
    page: PageQuery,
) -> Result<Seen<Page<CustomerReport>>, Problem> {
    let metrics = api.metrics.at(min_sequence).await?;
    Ok(metrics.read(move |tables| CustomerReport::list(tables, query.sort, &page)).await?)
}

/// How payments go
#[utoipa::path(
    get,
    path = "/metrics/payments",
    params(MinSequence),
    responses((status = 200, description = "The numbers", body = PaymentReport))
)]
async fn show_payments(
    State(api): State<Api>,
    min_sequence: MinSequence,
) -> Result<Seen<Json<PaymentReport>>, Problem> {
    let metrics = api.metrics.at(min_sequence).await?;
    Ok(metrics.read(PaymentReport::read).await?.map(Json))
}
