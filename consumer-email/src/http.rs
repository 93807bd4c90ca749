//! A look at the mails.

use axum::extract::State;
use jetkit::http::{HttpApi, MinSequence, Page, PageQuery, Problem, Query, Routes};
use jetkit::{EntityId, ReadModel, Seen};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::routes;

use crate::mail_list::{MailList, MailSummary};

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    /// The mails to read.
    pub mails: ReadModel<MailList>,
}

impl HttpApi for Api {
    fn described() -> Routes<Self> {
        Routes::new().routes(routes!(list_mails))
    }
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
    State(api): State<Api>,
    Query(query): Query<MailQuery>,
    min_sequence: MinSequence,
    page: PageQuery,
) -> Result<Seen<Page<MailSummary>>, Problem> {
    let mails = api.mails.at(min_sequence).await?;
    Ok(mails.read(move |tables| MailSummary::list(tables, query.order_id, &page)).await?)
}
