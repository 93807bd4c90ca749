//! A look at the mails.

use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use eventkit::http::{MinSequence, Page, PageQuery, Problem, Query};
use eventkit::{EntityId, View};
use serde::Deserialize;

use crate::mail_view::{MailSummary, MailView};

/// How long a read waits for the position that it must include.
const WAIT: Duration = Duration::from_secs(5);

/// The routes of consumer-email.
pub fn router(view: View<MailView>) -> Router {
    Router::new().route("/mails", get(list_mails)).with_state(view)
}

#[derive(Debug, Deserialize)]
struct MailQuery {
    order_id: Option<EntityId>,
}

/// The mails about one order, or all; oldest first.
async fn list_mails(
    State(view): State<View<MailView>>,
    Query(query): Query<MailQuery>,
    MinSequence(wanted): MinSequence,
    page: PageQuery,
) -> Result<Json<Page<MailSummary>>, Problem> {
    view.at_least(wanted.unwrap_or(0), WAIT).await?;
    Ok(Json(view.read(|mails| page.of(mails.mails(query.order_id.as_ref()).into_iter().cloned()))))
}
