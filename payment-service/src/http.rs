//! The HTTP API: accounts and payments. It translates and decides nothing.

mod account;
mod payment;

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use eventkit::http::{MinSequence, Problem};
use eventkit::{EventStore, View};

use crate::account::Account;
use crate::payment::Payment;
use crate::payment_list::PaymentList;

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    accounts: EventStore<Account>,
    payments: EventStore<Payment>,
    list: View<PaymentList>,
}

/// How long a read waits for `min_sequence`.
const READ_WITHIN: Duration = Duration::from_secs(5);

impl Api {
    /// An API over these.
    pub fn new(
        accounts: EventStore<Account>,
        payments: EventStore<Payment>,
        list: View<PaymentList>,
    ) -> Self {
        Self { accounts, payments, list }
    }

    /// The routes. A test calls them through [`eventkit::http::complete`].
    pub fn routes(self) -> Router {
        Router::new()
            .route("/accounts/{id}", get(account::show).post(account::change))
            .route("/accounts/{id}/events", get(account::history))
            .route("/payments", get(payment::list))
            .route("/payments/{id}", get(payment::show))
            .with_state(self)
    }

    async fn wait_for(&self, min_sequence: MinSequence) -> Result<(), Problem> {
        if let Some(sequence) = min_sequence.0 {
            self.list.at_least(sequence, READ_WITHIN).await?;
        }
        Ok(())
    }
}
