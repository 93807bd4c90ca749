//! The card payment gateway: what is needed of one, and a simulated one for development and tests.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use common::money::Money;
use common::order::CardToken;
use futures::future::BoxFuture;
use jetkit::EntityId;
use lru::LruCache;

/// Somebody who takes money from cards. Both calls are idempotent by the payment's id: given again, they answer the
/// same and move nothing.
pub trait PaymentGateway: Send + Sync + 'static {
    /// Takes the money.
    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Charged, GatewayError>>;

    /// Gives back whatever was taken for a payment; nothing if nothing was.
    fn refund<'a>(&'a self, payment_id: &'a EntityId) -> BoxFuture<'a, Result<(), GatewayError>>;
}

/// What is to be taken.
#[derive(Debug, Clone)]
pub struct Charge {
    /// The payment: the key under which a repeat is recognised.
    pub payment_id: EntityId,
    /// How much.
    pub amount: Money,
    /// From which card.
    pub token: CardToken,
}

/// The gateway's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Charged {
    /// The money was taken.
    Approved {
        /// What the gateway knows the charge by.
        reference: String,
    },
    /// Nothing was taken, and trying again will not help.
    Declined {
        /// Why: `card_declined`, `invalid_card_token`, …
        code: &'static str,
    },
}

/// The gateway gave no answer. Whether money was taken is unknown until the same call is answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// It can't be reached: no card can be charged.
    #[error("the payment gateway is not available")]
    Unavailable,
    /// It answers, and this card's bank does not: other cards can be charged.
    #[error("the card's bank is not available")]
    BankUnavailable,
    /// It did not answer in time.
    #[error("the payment gateway did not answer in time")]
    TimedOut,
}

/// A gateway without a bank. The card's token decides how it behaves:
///
/// | token | behaviour |
/// |---|---|
/// | `tok_success`, `tok_visa`, `tok_mastercard` | approved |
/// | `tok_declined` | declined: `card_declined` |
/// | `tok_insufficient_funds` | declined: `card_insufficient_funds` |
/// | `tok_expired` | declined: `card_expired` |
/// | `tok_timeout` | the money is taken, but the first call for a payment gets no answer; the second does |
/// | `tok_outage` | the card's bank is away for the first two calls for a payment, then approves |
/// | `tok_down` | the card's bank is away for ever |
/// | anything else | declined: `invalid_card_token` |
///
/// It remembers the last 10,000 payments in memory. After a restart the answers are the same, because they depend
/// on the payment's id and the token only; a `tok_timeout` times out once more.
#[derive(Debug)]
pub struct SimulatedGateway {
    calls: Mutex<LruCache<EntityId, u32>>,
}

const REMEMBERED_PAYMENTS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

impl Default for SimulatedGateway {
    fn default() -> Self {
        Self { calls: Mutex::new(LruCache::new(REMEMBERED_PAYMENTS)) }
    }
}

impl SimulatedGateway {
    /// How often a payment was tried before.
    fn calls_before(&self, payment_id: &EntityId) -> u32 {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = calls.get_or_insert_mut(payment_id.clone(), || 0);
        *calls = calls.saturating_add(1);
        *calls - 1
    }
}

impl PaymentGateway for SimulatedGateway {
    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Charged, GatewayError>> {
        Box::pin(async move {
            let calls_before = self.calls_before(&charge.payment_id);
            let declined = |code| Ok(Charged::Declined { code });
            match charge.token.0.as_str() {
                "tok_declined" => return declined("card_declined"),
                "tok_insufficient_funds" => return declined("card_insufficient_funds"),
                "tok_expired" => return declined("card_expired"),
                "tok_timeout" if calls_before == 0 => std::future::pending().await,
                "tok_outage" if calls_before < 2 => return Err(GatewayError::BankUnavailable),
                "tok_down" => return Err(GatewayError::BankUnavailable),
                "tok_success" | "tok_visa" | "tok_mastercard" | "tok_timeout" | "tok_outage" => {}
                _ => return declined("invalid_card_token"),
            }
            Ok(Charged::Approved { reference: format!("sim-{}", charge.payment_id) })
        })
    }

    fn refund<'a>(&'a self, _payment_id: &'a EntityId) -> BoxFuture<'a, Result<(), GatewayError>> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::money::Currency;
    use futures::FutureExt;

    /// Charges once; `None` if there is no answer.
    fn charge(
        gateway: &SimulatedGateway,
        payment: &str,
        token: &str,
    ) -> Option<Result<Charged, GatewayError>> {
        let charge = Charge {
            payment_id: EntityId::new(payment).unwrap(),
            amount: Money::new(100, Currency::USD).unwrap(),
            token: CardToken(token.to_owned()),
        };
        gateway.charge(&charge).now_or_never()
    }

    fn approved(payment: &str) -> Charged {
        Charged::Approved { reference: format!("sim-{payment}") }
    }

    #[test]
    fn the_test_tokens_behave_as_documented() {
        let gateway = SimulatedGateway::default();
        let declined = |code| Some(Ok(Charged::Declined { code }));
        for token in ["tok_success", "tok_visa", "tok_mastercard"] {
            assert_eq!(charge(&gateway, token, token), Some(Ok(approved(token))));
        }
        for (token, code) in [
            ("tok_declined", "card_declined"),
            ("tok_insufficient_funds", "card_insufficient_funds"),
            ("tok_expired", "card_expired"),
            ("4111111111111111", "invalid_card_token"),
        ] {
            assert_eq!(charge(&gateway, "p", token), declined(code));
        }
    }

    #[test]
    fn a_repeat_gets_the_same_answer() {
        let gateway = SimulatedGateway::default();
        assert_eq!(charge(&gateway, "p", "tok_success"), charge(&gateway, "p", "tok_success"));
    }

    #[test]
    fn a_time_out_and_an_outage_pass() {
        let gateway = SimulatedGateway::default();
        assert_eq!(charge(&gateway, "slow", "tok_timeout"), None);
        assert_eq!(charge(&gateway, "slow", "tok_timeout"), Some(Ok(approved("slow"))));
        for _ in 0..2 {
            assert_eq!(charge(&gateway, "away", "tok_outage"), Some(Err(GatewayError::BankUnavailable)));
        }
        assert_eq!(charge(&gateway, "away", "tok_outage"), Some(Ok(approved("away"))));
    }
}
