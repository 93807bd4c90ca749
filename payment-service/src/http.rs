//! The HTTP API: accounts and payments. It translates and decides nothing.

mod account;
mod payment;

use eventkit::http::Routes;
use eventkit::{EventStore, ReadModel};
use utoipa::openapi::OpenApi;
use utoipa_axum::routes;

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
    pub fn routes(self) -> Routes {
        Self::described().with_state(self)
    }

    /// What [`eventkit::http::document`] makes the service's OpenAPI document from.
    pub fn openapi() -> OpenApi {
        Self::described().into_openapi()
    }

    fn described() -> Routes<Self> {
        Routes::new()
            .routes(routes!(account::show, account::change))
            .routes(routes!(account::history))
            .routes(routes!(payment::list))
            .routes(routes!(payment::show))
    }
}
