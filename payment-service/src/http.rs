//! The HTTP API: accounts and payments. It translates and decides nothing.

mod account;
mod payment;

use axum::Router;
use axum::routing::get;
use eventkit::{EventStore, ReadModel};

use crate::account::Account;
use crate::account_list::AccountList;
use crate::payment_list::PaymentList;

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    /// The accounts.
    pub accounts: EventStore<Account>,
    /// Accounts to read.
    pub account_list: ReadModel<AccountList>,
    /// Payments to read.
    pub payment_list: ReadModel<PaymentList>,
}

impl Api {
    /// The routes. A test calls them through [`eventkit::http::complete`].
    pub fn routes(self) -> Router {
        Router::new()
            .route("/accounts/{id}", get(account::show).post(account::change))
            .route("/accounts/{id}/events", get(account::history))
            .route("/payments", get(payment::list))
            .route("/payments/{id}", get(payment::show))
            .with_state(self)
    }
}
