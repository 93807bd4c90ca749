//! The HTTP API: accounts and payments. It translates and decides nothing.

mod account;
mod payment;

use jetkit::http::{HttpApi, Routes};
use jetkit::{EventStore, ReadModel};
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

impl HttpApi for Api {
    fn described() -> Routes<Self> {
        Routes::new()
            .routes(routes!(account::show, account::change))
            .routes(routes!(account::history))
            .routes(routes!(payment::list))
            .routes(routes!(payment::show))
    }
}
