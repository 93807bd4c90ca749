//! A look at the mails.

use axum::extract::State;
use eventkit::http::{MinSequence, Page, PageQuery, Problem, Query, Routes};
use eventkit::{EntityId, ReadModel, Seen};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::OpenApi;
use utoipa_axum::routes;

use crate::mail_list::{MailList, MailSummary};

/// The routes of consumer-email.
pub fn router(mails: ReadModel<MailList>) -> Routes {
    described().with_state(mails)
}

/// What [`eventkit::http::document`] makes the service's OpenAPI document from.
pub fn openapi() -> OpenApi {
    described().into_openapi()
}

fn described() -> Routes<ReadModel<MailList>> {
    Routes::new().routes(routes!(list_mails))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct MailQuery {
    /// Only the mails about this order
    order_id: Option<EntityId>,
}

/// The mails about one order, or all; oldest first
#[utoipa::path(
    get,
    path = "/mails",
    params(MailQuery, PageQuery, MinSequence),
    responses((status = 200, description = "A page of them", body = Page<MailSummary>))
)]
async fn list_mails(
    State(mails): State<ReadModel<MailList>>,
    Query(query): Query<MailQuery>,
    min_sequence: MinSequence,
    page: PageQuery,
) -> Result<Seen<Page<MailSummary>>, Problem> {
    let mails = mails.at(min_sequence).await?;
    Ok(mails.read(move |tables| MailSummary::list(tables, query.order_id, page)).await?)
}
