//! A look at the mails.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use eventkit::http::{MinSequence, Page, PageQuery, Problem, Query};
use eventkit::{EntityId, ReadModel, Seen};
use serde::Deserialize;

use crate::mail_list::{MailList, MailSummary};

/// The routes of consumer-email.
pub fn router(mails: ReadModel<MailList>) -> Router {
    Router::new().route("/mails", get(list_mails)).with_state(mails)
}

#[derive(Debug, Deserialize)]
struct MailQuery {
    order_id: Option<EntityId>,
}

/// The mails about one order, or all; oldest first.
async fn list_mails(
    State(mails): State<ReadModel<MailList>>,
    Query(query): Query<MailQuery>,
    min_sequence: MinSequence,
    page: PageQuery,
) -> Result<Seen<Page<MailSummary>>, Problem> {
    let mails = mails.at(min_sequence).await?;
    Ok(mails.read(move |tables| MailSummary::list(tables, query.order_id, page)).await?)
}
