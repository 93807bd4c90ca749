//! What happens to an account of the shop's ledger.

use jetkit::{EntityId, Event};
use serde::{Deserialize, Serialize};

use crate::money::Money;

/// An account was opened. Its currency is that of its first balance, for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountOpened {
    /// The account.
    pub account_id: EntityId,
    /// Whose it is.
    pub owner: String,
    /// What it started with.
    pub initial_balance: Money,
}

impl Event for AccountOpened {
    const TYPE: &'static str = "account.opened";

    fn entity_id(&self) -> &EntityId {
        &self.account_id
    }
}

/// Money came in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MoneyDeposited {
    /// The account.
    pub account_id: EntityId,
    /// How much.
    pub amount: Money,
    /// The payment that is given back, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund_of: Option<EntityId>,
}

impl Event for MoneyDeposited {
    const TYPE: &'static str = "account.deposited";

    fn entity_id(&self) -> &EntityId {
        &self.account_id
    }
}

/// Money went out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MoneyWithdrawn {
    /// The account.
    pub account_id: EntityId,
    /// How much.
    pub amount: Money,
    /// The payment that it was for, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<EntityId>,
}

impl Event for MoneyWithdrawn {
    const TYPE: &'static str = "account.withdrawn";

    fn entity_id(&self) -> &EntityId {
        &self.account_id
    }
}

jetkit::events! {
    /// What can happen to an account.
    pub enum AccountEvent {
        Opened(AccountOpened),
        Deposited(MoneyDeposited),
        Withdrawn(MoneyWithdrawn),
    }
}
