//! The rules of an account: a ledger in one currency that never goes below zero.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::account::{AccountEvent, AccountOpened, MoneyDeposited, MoneyWithdrawn};
use common::money::{Currency, Money};
use common::text::is_line;
use jetkit::{Aggregate, EntityId};

/// An account, as the sum of its events.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Account {
    ledger: Option<Ledger>,
    /// What was taken for payments, so that none is taken or given back twice. It grows by one entry a payment, so it is
    /// shared instead of copied.
    taken: Arc<BTreeMap<EntityId, Taken>>,
}

/// What an open account has.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Ledger {
    /// The account.
    pub account_id: EntityId,
    /// Whose it is.
    pub owner: String,
    /// What is in it.
    pub balance: Money,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Taken {
    amount: Money,
    given_back: bool,
}

/// What can be asked of an account.
#[derive(Debug, Clone)]
pub enum AccountCommand {
    /// Open it. The balance fixes its currency.
    Open {
        /// The account.
        account_id: EntityId,
        /// Whose it is: 1 to 200 characters on one line, with something to see.
        owner: String,
        /// What it starts with; may be zero.
        initial_balance: Money,
    },
    /// Put money in.
    Deposit {
        /// How much, more than zero.
        amount: Money,
    },
    /// Take money out.
    Withdraw {
        /// How much, more than zero and at most the balance.
        amount: Money,
    },
    /// Take the money for a payment. Once for each payment.
    Pay {
        /// The payment.
        payment_id: EntityId,
        /// How much.
        amount: Money,
    },
    /// Give back what was taken for a payment. Once for each payment, and nothing if nothing was taken.
    GiveBack {
        /// The payment.
        payment_id: EntityId,
    },
}

/// Why an account says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountRejection {
    /// It was never opened.
    #[error("the account is not open")]
    NotOpen,
    /// It is open already.
    #[error("the account is already open")]
    AlreadyOpen,
    /// An owner is needed.
    #[error("the owner must be 1 to {MAX_OWNER_CHARS} characters on one line, with something to see")]
    Owner,
    /// Zero or less.
    #[error("the amount must be more than zero")]
    NotPositive,
    /// An account does not start with debts.
    #[error("the initial balance must not be negative")]
    NegativeBalance,
    /// More than there is.
    #[error("insufficient funds: the balance is {balance}, {amount} were asked for")]
    InsufficientFunds {
        /// What there is.
        balance: Money,
        /// What was asked for.
        amount: Money,
    },
    /// Another currency than the account's.
    #[error("the account is in {account}, the amount in {amount}")]
    CurrencyMismatch {
        /// The account's.
        account: Currency,
        /// The amount's.
        amount: Currency,
    },
    /// The balance would be too large.
    #[error("the balance would be too large")]
    TooLarge,
}

const MAX_OWNER_CHARS: usize = 200;

impl Account {
    /// What is in it; `None` if it was never opened.
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    fn open(&self) -> Result<&Ledger, AccountRejection> {
        self.ledger.as_ref().ok_or(AccountRejection::NotOpen)
    }
}

impl Ledger {
    fn deposit(
        &self,
        amount: Money,
        refund_of: Option<EntityId>,
    ) -> Result<Vec<AccountEvent>, AccountRejection> {
        self.check(amount)?;
        self.balance.plus(amount).map_err(|_| AccountRejection::TooLarge)?;
        Ok(vec![MoneyDeposited { account_id: self.account_id.clone(), amount, refund_of }.into()])
    }

    fn withdraw(
        &self,
        amount: Money,
        payment_id: Option<EntityId>,
    ) -> Result<Vec<AccountEvent>, AccountRejection> {
        self.check(amount)?;
        if amount.minor() > self.balance.minor() {
            return Err(AccountRejection::InsufficientFunds { balance: self.balance, amount });
        }
        Ok(vec![MoneyWithdrawn { account_id: self.account_id.clone(), amount, payment_id }.into()])
    }

    fn check(&self, amount: Money) -> Result<(), AccountRejection> {
        if !amount.is_positive() {
            return Err(AccountRejection::NotPositive);
        }
        let account = self.balance.currency();
        if account != amount.currency() {
            return Err(AccountRejection::CurrencyMismatch { account, amount: amount.currency() });
        }
        Ok(())
    }
}

impl Aggregate for Account {
    const ENTITY: &'static str = "account";
    type Event = AccountEvent;
    type Command = AccountCommand;
    type Rejection = AccountRejection;

    fn decide(&self, command: &AccountCommand) -> Result<Vec<AccountEvent>, AccountRejection> {
        match command {
            AccountCommand::Open { .. } if self.ledger.is_some() => Err(AccountRejection::AlreadyOpen),
            AccountCommand::Open { owner, .. } if !is_line(owner, MAX_OWNER_CHARS) => {
                Err(AccountRejection::Owner)
            }
            AccountCommand::Open { initial_balance, .. } if initial_balance.minor() < 0 => {
                Err(AccountRejection::NegativeBalance)
            }
            AccountCommand::Open { account_id, owner, initial_balance } => Ok(vec![
                AccountOpened {
                    account_id: account_id.clone(),
                    owner: owner.clone(),
                    initial_balance: *initial_balance,
                }
                .into(),
            ]),
            AccountCommand::Deposit { amount } => self.open()?.deposit(*amount, None),
            AccountCommand::Withdraw { amount } => self.open()?.withdraw(*amount, None),
            AccountCommand::Pay { payment_id, .. } if self.taken.contains_key(payment_id) => Ok(vec![]),
            AccountCommand::Pay { payment_id, amount } => {
                self.open()?.withdraw(*amount, Some(payment_id.clone()))
            }
            AccountCommand::GiveBack { payment_id } => match self.taken.get(payment_id) {
                Some(Taken { amount, given_back: false }) => {
                    self.open()?.deposit(*amount, Some(payment_id.clone()))
                }
                _ => Ok(vec![]),
            },
        }
    }

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened(opened) => {
                self.ledger = Some(Ledger {
                    account_id: opened.account_id.clone(),
                    owner: opened.owner.clone(),
                    balance: opened.initial_balance,
                });
            }
            AccountEvent::Deposited(deposited) => {
                if let Some(ledger) = &mut self.ledger {
                    // The rules have made sure that the sum is possible.
                    ledger.balance = ledger.balance.plus(deposited.amount).unwrap_or(ledger.balance);
                }
                if let Some(payment_id) = &deposited.refund_of
                    && let Some(taken) = Arc::make_mut(&mut self.taken).get_mut(payment_id)
                {
                    taken.given_back = true;
                }
            }
            AccountEvent::Withdrawn(withdrawn) => {
                if let Some(ledger) = &mut self.ledger {
                    ledger.balance = ledger.balance.minus(withdrawn.amount).unwrap_or(ledger.balance);
                }
                if let Some(payment_id) = &withdrawn.payment_id {
                    let taken = Taken { amount: withdrawn.amount, given_back: false };
                    Arc::make_mut(&mut self.taken).insert(payment_id.clone(), taken);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jetkit::testing::{aggregate_laws, given};
    use proptest::prelude::*;

    fn id(text: &str) -> EntityId {
        EntityId::new(text).unwrap()
    }

    fn usd(minor: i64) -> Money {
        Money::new(minor, Currency::USD).unwrap()
    }

    fn opened(minor: i64) -> AccountEvent {
        AccountOpened { account_id: id("acc"), owner: "Alice".to_owned(), initial_balance: usd(minor) }.into()
    }

    fn deposited(minor: i64, refund_of: Option<&str>) -> AccountEvent {
        MoneyDeposited { account_id: id("acc"), amount: usd(minor), refund_of: refund_of.map(id) }.into()
    }

    fn withdrawn(minor: i64, payment_id: Option<&str>) -> AccountEvent {
        MoneyWithdrawn { account_id: id("acc"), amount: usd(minor), payment_id: payment_id.map(id) }.into()
    }

    fn open(owner: &str, initial_balance: Money) -> AccountCommand {
        AccountCommand::Open { account_id: id("acc"), owner: owner.to_owned(), initial_balance }
    }

    fn pay(payment: &str, minor: i64) -> AccountCommand {
        AccountCommand::Pay { payment_id: id(payment), amount: usd(minor) }
    }

    fn give_back(payment: &str) -> AccountCommand {
        AccountCommand::GiveBack { payment_id: id(payment) }
    }

    #[test]
    fn an_account_is_opened_once() {
        given::<Account>([]).when(&open("Alice", usd(100))).then([opened(100)]);
        given::<Account>([opened(100)])
            .when(&open("Alice", usd(100)))
            .then_rejected(AccountRejection::AlreadyOpen);
    }

    #[test]
    fn an_account_needs_an_owner_and_starts_without_debts() {
        for owner in ["", " ", &"x".repeat(201), "Alice\n", "\u{1b}[2J", "Al\u{85}ice"] {
            given::<Account>([]).when(&open(owner, usd(0))).then_rejected(AccountRejection::Owner);
        }
        given::<Account>([]).when(&open("Alice", usd(-1))).then_rejected(AccountRejection::NegativeBalance);
        given::<Account>([]).when(&open("Alice", usd(0))).then([opened(0)]);
    }

    #[test]
    fn nothing_goes_in_or_out_before_it_is_open() {
        for command in [
            AccountCommand::Deposit { amount: usd(1) },
            AccountCommand::Withdraw { amount: usd(1) },
            pay("p", 1),
        ] {
            given::<Account>([]).when(&command).then_rejected(AccountRejection::NotOpen);
        }
        given::<Account>([]).when(&give_back("p")).then_nothing();
    }

    #[test]
    fn money_goes_in_and_out() {
        given::<Account>([opened(100)])
            .when(&AccountCommand::Deposit { amount: usd(50) })
            .then([deposited(50, None)]);
        given::<Account>([opened(100), deposited(50, None)])
            .when(&AccountCommand::Withdraw { amount: usd(150) })
            .then([withdrawn(150, None)]);
    }

    #[test]
    fn no_more_goes_out_than_is_in() {
        given::<Account>([opened(100), withdrawn(60, None)])
            .when(&AccountCommand::Withdraw { amount: usd(41) })
            .then_rejected(AccountRejection::InsufficientFunds { balance: usd(40), amount: usd(41) });
        given::<Account>([opened(100)])
            .when(&pay("p", 101))
            .then_rejected(AccountRejection::InsufficientFunds { balance: usd(100), amount: usd(101) });
    }

    #[test]
    fn an_amount_is_more_than_zero_and_in_the_accounts_currency() {
        let commands = |amount| {
            [
                AccountCommand::Deposit { amount },
                AccountCommand::Withdraw { amount },
                AccountCommand::Pay { payment_id: id("p"), amount },
            ]
        };
        for command in [usd(0), usd(-5)].into_iter().flat_map(commands) {
            given::<Account>([opened(100)]).when(&command).then_rejected(AccountRejection::NotPositive);
        }
        for command in commands(Money::new(1, Currency::EUR).unwrap()) {
            given::<Account>([opened(100)]).when(&command).then_rejected(
                AccountRejection::CurrencyMismatch { account: Currency::USD, amount: Currency::EUR },
            );
        }
    }

    #[test]
    fn a_balance_has_a_bound() {
        let most = Money::MAX_MAJOR * 100;
        given::<Account>([opened(most)])
            .when(&AccountCommand::Deposit { amount: usd(1) })
            .then_rejected(AccountRejection::TooLarge);
    }

    #[test]
    fn a_payment_is_taken_once_and_given_back_once() {
        let taken = withdrawn(30, Some("p"));
        let returned = deposited(30, Some("p"));
        given::<Account>([opened(100)]).when(&pay("p", 30)).then([taken.clone()]);
        given::<Account>([opened(100), taken.clone()]).when(&pay("p", 30)).then_nothing();
        given::<Account>([opened(100), taken.clone()]).when(&give_back("p")).then([returned.clone()]);
        given::<Account>([opened(100), taken.clone(), returned.clone()]).when(&give_back("p")).then_nothing();
        given::<Account>([opened(100), taken, returned]).when(&pay("p", 30)).then_nothing();
        given::<Account>([opened(100)]).when(&give_back("p")).then_nothing();
    }

    fn any_command() -> impl Strategy<Value = AccountCommand> {
        let amount = (-10_i64..200).prop_map(usd);
        let payment = proptest::sample::select(vec!["p1", "p2", "p3"]).prop_map(id);
        prop_oneof![
            (-5_i64..200).prop_map(|minor| open("Alice", usd(minor))),
            amount.clone().prop_map(|amount| AccountCommand::Deposit { amount }),
            amount.clone().prop_map(|amount| AccountCommand::Withdraw { amount }),
            (payment.clone(), amount)
                .prop_map(|(payment_id, amount)| AccountCommand::Pay { payment_id, amount }),
            payment.prop_map(|payment_id| AccountCommand::GiveBack { payment_id }),
        ]
    }

    proptest! {
        #[test]
        fn the_balance_is_what_came_in_less_what_went_out_and_never_negative(
            commands in proptest::collection::vec(any_command(), 0..60)
        ) {
            let (account, log) = aggregate_laws(commands, |account: &Account| {
                assert!(account.ledger().is_none_or(|ledger| ledger.balance.minor() >= 0));
            });
            let balance = account.ledger().map_or(0, |ledger| ledger.balance.minor());
            let sum: i64 = log.iter().map(|event| match event {
                AccountEvent::Opened(opened) => opened.initial_balance.minor(),
                AccountEvent::Deposited(deposited) => deposited.amount.minor(),
                AccountEvent::Withdrawn(withdrawn) => -withdrawn.amount.minor(),
            }).sum();
            prop_assert_eq!(balance, sum);
        }
    }
}
