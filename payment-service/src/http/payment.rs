//! `/payments`: read only; payments follow from orders.

use axum::extract::State;
use common::money::{Amount, Currency};
use common::payment::PaymentMethodKind;
use jetkit::http::{MinSequence, Page, PageQuery, Path, Problem, Query, Versioned};
use jetkit::{EntityId, Seen};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use crate::payment::PaymentStatus;
use crate::payment_list::{self, PaymentSummary};

/// A payment
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PaymentBody {
    /// Under the name that every entity's has, and under the one that events use.
    id: EntityId,
    payment_id: EntityId,
    order_id: EntityId,
    status: PaymentStatus,
    #[serde(flatten)]
    tried: Tried,
    version: u64,
}

/// Absent where nothing was tried
#[derive(Debug, Default, Serialize, ToSchema)]
struct Tried {
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<Currency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_method: Option<PaymentMethodKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

impl From<PaymentSummary> for PaymentBody {
    fn from(payment: PaymentSummary) -> Self {
        Self {
            id: payment.payment_id.clone(),
            payment_id: payment.payment_id,
            order_id: payment.order_id,
            status: payment.status,
            tried: payment.tried.map(Tried::from).unwrap_or_default(),
            version: payment.version,
        }
    }
}

impl From<payment_list::Tried> for Tried {
    fn from(tried: payment_list::Tried) -> Self {
        Self {
            amount: Some(tried.amount.amount()),
            currency: Some(tried.amount.currency()),
            payment_method: Some(tried.payment_method),
            failure: tried.failure,
            reference: tried.reference,
        }
    }
}

/// A payment
#[utoipa::path(
    get,
    path = "/payments/{id}",
    params(("id" = EntityId, Path, description = "The payment; of an order of this shop, the order's id"), MinSequence),
    responses(
        (status = 200, description = "The payment as it is", body = Versioned<PaymentBody>),
        (status = 404, description = "There is no such payment"),
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
) -> Result<Versioned<PaymentBody>, Problem> {
    let wanted = id.clone();
    let payments = api.payment_list.at(min_sequence).await?;
    let payment = payments.read(move |tables| PaymentSummary::find(tables, &wanted)).await?;
    let unknown = || Problem::not_found(format!("There is no payment {id}"));
    let Seen { value: payment, sequence } = payment.found().ok_or_else(unknown)?;
    Ok(Versioned::ok(payment.version, sequence, payment.into()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only the payments of this order
    order_id: Option<EntityId>,
}

/// Payments, by id
#[utoipa::path(
    get,
    path = "/payments",
    params(Filter, PageQuery, MinSequence),
    responses((status = 200, description = "A page of them", body = Page<PaymentBody>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    Query(filter): Query<Filter>,
    page: PageQuery,
    min_sequence: MinSequence,
) -> Result<Seen<Page<PaymentBody>>, Problem> {
    let payments = api.payment_list.at(min_sequence).await?;
    let found = payments.read(move |tables| PaymentSummary::list(tables, filter.order_id, &page)).await?;
    Ok(found.map(|page| page.map(PaymentBody::from)))
}
