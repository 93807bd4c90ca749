//! `/payments`: read only; payments follow from orders.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use common::money::{Amount, Currency};
use common::payment::PaymentMethodKind;
use eventkit::EntityId;
use eventkit::http::{MinSequence, Page, PageQuery, Path, Problem, Query, Written};
use serde::{Deserialize, Serialize};

use super::Api;
use crate::payment::{Payment, PaymentState};

/// A payment as a client sees it.
#[derive(Debug, Serialize)]
pub(super) struct PaymentBody {
    /// Under the name that every entity's has, and under the one that events use.
    id: EntityId,
    payment_id: EntityId,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<EntityId>,
    status: &'static str,
    /// Absent where nothing was tried.
    #[serde(flatten)]
    tried: Option<Tried>,
    version: u64,
}

#[derive(Debug, Serialize)]
struct Tried {
    amount: Amount,
    currency: Currency,
    payment_method: PaymentMethodKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

impl PaymentBody {
    fn new(id: &EntityId, payment: &Payment, version: u64) -> Option<Self> {
        let status = match payment.state()? {
            PaymentState::Success => "SUCCESS",
            PaymentState::Failed => "FAILED",
            PaymentState::Refunded => "REFUNDED",
            PaymentState::Voided => "VOIDED",
        };
        let tried = payment.processed().map(|processed| Tried {
            amount: processed.amount.amount(),
            currency: processed.amount.currency(),
            payment_method: processed.payment_method.clone(),
            failure: processed.failure.clone(),
            reference: processed.reference.clone(),
        });
        Some(Self {
            id: id.clone(),
            payment_id: id.clone(),
            order_id: payment.order_id().cloned(),
            status,
            tried,
            version,
        })
    }
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
) -> Result<Written<PaymentBody>, Problem> {
    api.wait_for(min_sequence).await?;
    let payment = api.payments.load(&id).await?;
    let body = PaymentBody::new(&id, &payment.state, payment.version)
        .ok_or_else(|| Problem::not_found(format!("There is no payment {id}")))?;
    Ok(Written { status: StatusCode::OK, version: payment.version, sequence: payment.sequence, body })
}

#[derive(Debug, Deserialize)]
pub(super) struct Filter {
    order_id: Option<EntityId>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Query(filter): Query<Filter>,
    page: PageQuery,
    min_sequence: MinSequence,
) -> Result<Json<Page<PaymentBody>>, Problem> {
    api.wait_for(min_sequence).await?;
    Ok(Json(api.list.read(|list| {
        let payments = list.of_order(filter.order_id.as_ref());
        page.of(payments.filter_map(|(id, summary)| PaymentBody::new(id, &summary.payment, summary.version)))
    })))
}
