//! Money: what was put in is in the balances or was paid, and what was paid is what orders cost.

use std::collections::BTreeMap;

use common::ShopEvent;
use common::money::{Currency, Money};
use common::payment::{PaymentMethodKind, PaymentOutcome};
use jetkit::EntityId;

use super::{Check, Ledger, orders};
use crate::demo::Ending;

/// One account, by its events; in minor units.
#[derive(Debug, Default)]
struct Account {
    currency: Currency,
    /// Opened with or deposited, less withdrawn by hand.
    put_in: i64,
    paid: i64,
    refunded: i64,
}

/// One payment, by the events of payments and of accounts.
#[derive(Debug, Default)]
struct Payment {
    order_id: Option<EntityId>,
    account: Option<EntityId>,
    amount: Option<Money>,
    taken: bool,
    refunded: bool,
    /// What accounts gave for it and got back, with the number of times.
    withdrawn: (i64, usize),
    given_back: (i64, usize),
}

#[derive(Debug, Default)]
struct Books {
    accounts: BTreeMap<EntityId, Account>,
    payments: BTreeMap<EntityId, Payment>,
}

pub(super) fn check(ledger: &Ledger) -> Check {
    let mut check = Check::new("money");
    let books = Books::of(ledger);
    for (id, account) in &books.accounts {
        let expected = Money::new(account.put_in - account.paid + account.refunded, account.currency).ok();
        let balance = ledger.balances.get(id).copied().flatten();
        check.holds(expected.is_some() && balance == expected, || {
            format!("account {id}: by its events {expected:?}, payment-service says {balance:?}")
        });
    }
    for ours in &ledger.traffic.accounts {
        let put_in = books.accounts.get(&ours.account_id).and_then(|a| Money::new(a.put_in, a.currency).ok());
        check.holds(put_in == Some(ours.put_in), || {
            format!("account {}: {} were put in, the log says {put_in:?}", ours.account_id, ours.put_in)
        });
    }
    books.payments.iter().for_each(|(id, payment)| check_payment(&mut check, id, payment));
    check_orders(&mut check, ledger, &books);
    check.seen = books.totals();
    check
}

/// What accounts gave for a payment is what the payment says.
fn check_payment(check: &mut Check, id: &EntityId, payment: &Payment) {
    let due = match (&payment.account, payment.amount) {
        (Some(_), Some(amount)) if payment.taken && !payment.refunded => amount.minor(),
        _ => 0,
    };
    let ((withdrawn, times), (given_back, times_back)) = (payment.withdrawn, payment.given_back);
    check.holds(withdrawn - given_back == due, || {
        format!(
            "payment {id}: accounts gave {withdrawn} and got {given_back} back, {due} were due (minor units)"
        )
    });
    check.holds(times <= 1 && times_back <= 1, || {
        format!("payment {id}: withdrawn {times} times, given back {times_back} times")
    });
}

/// Orders that go on are paid for, with at least what they cost; the money of cancelled ones was given back.
fn check_orders(check: &mut Check, ledger: &Ledger, books: &Books) {
    let mut kept: BTreeMap<&EntityId, Vec<Money>> = BTreeMap::new();
    for payment in books.payments.values().filter(|payment| payment.taken && !payment.refunded) {
        if let (Some(order_id), Some(amount)) = (&payment.order_id, payment.amount) {
            kept.entry(order_id).or_default().push(amount);
        }
    }
    let placed = orders::placed_events(ledger);
    for (order_id, story) in orders::stories(ledger, &placed) {
        let kept = kept.get(&order_id).map_or(&[][..], Vec::as_slice);
        match (story.ending, story.placed) {
            (Some(Ending::Cancelled(_)), _) => {
                check.holds(kept.is_empty(), || {
                    format!("order {order_id} is cancelled, and {kept:?} were kept")
                });
            }
            (Some(Ending::Confirmed | Ending::Shipped), Some(order)) => {
                let enough = |paid: &Money| paid.compare(order.total).is_ok_and(std::cmp::Ordering::is_ge);
                check.holds(kept.len() == 1 && kept.iter().all(enough), || {
                    format!("order {order_id} costs {} and was paid with {kept:?}", order.total)
                });
            }
            _ => {}
        }
    }
}

impl Books {
    fn of(ledger: &Ledger) -> Self {
        let mut books = Self::default();
        for event in ledger.events() {
            books.enter(&event.event);
        }
        books
    }

    fn enter(&mut self, event: &ShopEvent) {
        match event {
            ShopEvent::AccountOpened(e) => {
                let account = self.accounts.entry(e.account_id.clone()).or_default();
                account.currency = e.initial_balance.currency();
                account.put_in += e.initial_balance.minor();
            }
            ShopEvent::MoneyDeposited(e) => {
                let account = self.accounts.entry(e.account_id.clone()).or_default();
                let Some(payment_id) = &e.refund_of else {
                    account.put_in += e.amount.minor();
                    return;
                };
                account.refunded += e.amount.minor();
                let back = &mut self.payments.entry(payment_id.clone()).or_default().given_back;
                *back = (back.0 + e.amount.minor(), back.1 + 1);
            }
            ShopEvent::MoneyWithdrawn(e) => {
                let account = self.accounts.entry(e.account_id.clone()).or_default();
                let Some(payment_id) = &e.payment_id else {
                    account.put_in -= e.amount.minor();
                    return;
                };
                account.paid += e.amount.minor();
                let withdrawn = &mut self.payments.entry(payment_id.clone()).or_default().withdrawn;
                *withdrawn = (withdrawn.0 + e.amount.minor(), withdrawn.1 + 1);
            }
            ShopEvent::PaymentProcessed(e) => {
                let payment = self.payments.entry(e.payment_id.clone()).or_default();
                payment.order_id = Some(e.order_id.clone());
                payment.amount = Some(e.amount);
                payment.taken = e.status == PaymentOutcome::Success;
                if let PaymentMethodKind::Account { account_id } = &e.payment_method {
                    payment.account = Some(account_id.clone());
                }
            }
            ShopEvent::PaymentRefunded(e) => {
                self.payments.entry(e.payment_id.clone()).or_default().refunded = true;
            }
            _ => {}
        }
    }

    /// Per currency: put in = balances + payments - refunds.
    fn totals(&self) -> String {
        let mut totals: BTreeMap<Currency, [i64; 3]> = BTreeMap::new();
        for account in self.accounts.values() {
            let total = totals.entry(account.currency).or_default();
            for (sum, of) in total.iter_mut().zip([account.put_in, account.paid, account.refunded]) {
                *sum += of;
            }
        }
        let shown = |(currency, [put_in, paid, refunded]): (Currency, [i64; 3])| {
            let text = |minor| {
                Money::new(minor, currency).map_or_else(|e| e.to_string(), |m| m.amount().to_string())
            };
            let (paid_text, refunded_text) = (text(paid), text(refunded));
            let balances = text(put_in - paid + refunded);
            format!(
                "{currency} {} put in = {balances} in accounts + {paid_text} paid - {refunded_text} refunded",
                text(put_in)
            )
        };
        totals.into_iter().map(shown).collect::<Vec<_>>().join("; ")
    }
}
