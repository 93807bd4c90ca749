//! A small shop in which everything adds up, and what the audit says when somebody tampers with it.

use chrono::{DateTime, TimeDelta};
use common::account::{AccountOpened, MoneyDeposited, MoneyWithdrawn};
use common::mail::{MailAttempted, MailKind, MailSent, MailSkipped};
use common::money::{Currency, Money};
use common::order::{CancelReason, CardToken, OrderItem, PaymentMethod};
use common::order::{OrderCancelled, OrderConfirmed, OrderPlaced, OrderShipped};
use common::payment::{PaymentMethodKind, PaymentOutcome, PaymentProcessed, PaymentRefunded};
use common::stock::{StockReceived, StockReserved};
use common::{ShopEvent, user::UserCreated};
use jetkit::{EntityId, EventId, EventSet, FailureClass, Metadata, Recorded};
use serde_json::json;

use super::*;
use crate::demo::{
    AccountOfOurs, Content, DeliveredMail, Ending, ListedLetter, ListedMail, ListedOrder, Logged, Placed,
    Stock, StoredLetter,
};

fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD).unwrap()
}

/// Puts events on the log as the services do: the next version of their entity, a second after the one before.
impl Ledger {
    fn happens(&mut self, event: impl Into<ShopEvent>, cause: Option<&EventId>) -> EventId {
        let event = event.into();
        let (sequence, (event_type, data_version)) = (self.log.len() as u64 + 1, event.kind());
        let entity_id = event.entity_id().clone();
        let entity = event_type.split('.').next().unwrap();
        let of_entity = |logged: &&Logged| {
            let mut tokens = logged.subject.split('.');
            tokens.next() == Some(entity) && tokens.nth(1) == Some(entity_id.as_str())
        };
        let version = self.log.iter().filter(of_entity).count() as u64 + 1;
        let own = EventId::new(format!("e-{sequence}")).unwrap();
        let meta = Metadata {
            id: own.clone(),
            source: "/test".to_owned(),
            event_type: event_type.to_owned(),
            time: DateTime::UNIX_EPOCH + TimeDelta::seconds(i64::try_from(sequence).unwrap()),
            data_version,
            correlation_id: own.clone(),
            causation_id: cause.cloned(),
            user_id: None,
            priority: None,
            trace: None,
        };
        let subject = format!("{event_type}.{entity_id}.{version}");
        let stored_at = meta.time;
        let content = Content::Event(Recorded { event, meta, version, sequence, stored_at });
        self.log.push(Logged { subject, sequence, content });
        own
    }

    /// The customer is told, once.
    fn told(&mut self, order: &str, kind: MailKind, cause: &EventId) {
        let (mail_id, order_id, to) = (id(&format!("mail-{cause}")), id(order), "a@example.com".to_owned());
        let message_id = format!("<{mail_id}@example.com>");
        let (facts, status) = ((mail_id, order_id, to, message_id), "sent".to_owned());
        let (mail_id, order_id, to, message_id) = facts.clone();
        self.happens(MailAttempted { mail_id, order_id, kind, to, message_id }, Some(cause));
        let (mail_id, order_id, to, message_id) = facts.clone();
        self.happens(MailSent { mail_id, order_id, kind, to, message_id }, Some(cause));
        let (mail_id, order_id, to, message_id) = facts;
        let subject = format!("News ({order})");
        self.delivered.push(DeliveredMail { message_id: message_id.clone(), to: to.clone(), subject });
        self.mails.push(ListedMail { mail_id, order_id, kind, to, message_id: Some(message_id), status });
    }

    /// The customer is told nothing, for want of an address: each of its mails was skipped.
    fn skip_mails_of(&mut self, order: &str) {
        for logged in &mut self.log {
            let Content::Event(Recorded { event, meta, .. }) = &mut logged.content else { continue };
            if let ShopEvent::MailAttempted(MailAttempted { mail_id, order_id, kind, to, .. }) = event.clone()
                && order_id.as_str() == order
            {
                logged.subject = format!("mail.skipped.{mail_id}.1");
                meta.event_type = "mail.skipped".to_owned();
                *event = MailSkipped { mail_id, order_id, kind, to, reason: "no domain".to_owned() }.into();
            }
        }
        let of_order =
            |event: &ShopEvent| matches!(event, ShopEvent::MailSent(mail) if mail.order_id.as_str() == order);
        self.log.retain(|logged| !matches!(&logged.content, Content::Event(event) if of_order(&event.event)));
        self.mails.retain(|mail| mail.order_id.as_str() != order);
        self.delivered.retain(|mail| !mail.subject.contains(order));
    }

    fn place(&mut self, order: &str, price: i64, payment_method: PaymentMethod, ending: Ending) -> EventId {
        let (product_id, product_name) = (id("lamp"), "Lamp".to_owned());
        let placed = OrderPlaced {
            order_id: id(order),
            customer_id: id("c-1"),
            customer_email: Some("a@example.com".to_owned()),
            items: vec![OrderItem { product_id, product_name, quantity: 2, unit_price: usd(price) }],
            total: usd(2 * price),
            payment_method,
        };
        let cause = self.happens(placed, None);
        self.told(order, MailKind::OrderPlaced, &cause);
        self.traffic.placed.push(Placed { order_id: id(order), path: "a test", ending });
        cause
    }

    fn pay(
        &mut self,
        order: &str,
        minor: i64,
        payment_method: PaymentMethodKind,
        status: PaymentOutcome,
    ) -> EventId {
        let failed = status == PaymentOutcome::Failed;
        let payment = PaymentProcessed {
            payment_id: id(order),
            order_id: id(order),
            amount: usd(minor),
            payment_method,
            status,
            failure: failed.then(|| "card_declined".to_owned()),
            reference: None,
        };
        let cause = self.happens(payment, None);
        if failed {
            self.told(order, MailKind::PaymentFailed, &cause);
        }
        cause
    }

    fn confirm(&mut self, order: &str) {
        let cause = self.happens(OrderConfirmed { order_id: id(order), payment_id: id(order) }, None);
        self.told(order, MailKind::OrderConfirmed, &cause);
    }

    fn cancel(&mut self, order: &str, reason: CancelReason) {
        let cause = self.happens(OrderCancelled { order_id: id(order), reason, detail: None }, None);
        self.told(order, MailKind::OrderCancelled, &cause);
    }

    fn tamper(&mut self, wanted: &str, with: impl FnOnce(&mut Recorded<ShopEvent>)) {
        let logged = self.log.iter_mut().find(|logged| logged.subject == wanted).unwrap();
        let Content::Event(event) = &mut logged.content else { panic!("{wanted} is no event") };
        with(event);
    }
}

/// Three orders: one paid by account and shipped, one whose card was declined, one cancelled when it was paid.
fn shop() -> Ledger {
    use PaymentOutcome::{Failed, Success};
    let account = || PaymentMethod::Account { account_id: id("acc") };
    let by_account = || PaymentMethodKind::Account { account_id: id("acc") };
    let card = PaymentMethod::Card { token: CardToken("tok_declined".to_owned()) };
    let mut shop = Ledger::default();
    shop.happens(
        AccountOpened { account_id: id("acc"), owner: "A".to_owned(), initial_balance: usd(10_000) },
        None,
    );
    let email = "a@example.com".to_owned();
    shop.happens(UserCreated { user_id: id("c-1"), username: "a".to_owned(), email }, None);
    shop.happens(StockReceived { warehouse: id("main"), product_id: id("lamp"), quantity: 10 }, None);

    shop.place("o-1", 1_005, account(), Ending::Shipped);
    shop.happens(StockReserved { warehouse: id("main"), order_id: id("o-1"), lines: vec![] }, None);
    let withdrawn =
        |order| MoneyWithdrawn { account_id: id("acc"), amount: usd(2_010), payment_id: Some(id(order)) };
    shop.happens(withdrawn("o-1"), None);
    shop.pay("o-1", 2_010, by_account(), Success);
    shop.confirm("o-1");
    let (carrier, tracking_number) = ("UPS".to_owned(), "1Z".to_owned());
    let shipped = shop.happens(OrderShipped { order_id: id("o-1"), carrier, tracking_number }, None);
    shop.told("o-1", MailKind::OrderShipped, &shipped);

    shop.place("o-2", 500, card, Ending::Cancelled(CancelReason::PaymentFailed));
    shop.pay("o-2", 1_000, PaymentMethodKind::Card, Failed);
    shop.cancel("o-2", CancelReason::PaymentFailed);

    shop.place("o-3", 1_005, account(), Ending::Cancelled(CancelReason::Requested));
    shop.happens(withdrawn("o-3"), None);
    shop.pay("o-3", 2_010, by_account(), Success);
    shop.confirm("o-3");
    shop.cancel("o-3", CancelReason::Requested);
    let (payment_id, order_id) = (id("o-3"), id("o-3"));
    shop.happens(PaymentRefunded { payment_id, order_id, amount: usd(2_010) }, None);
    let back = MoneyDeposited { account_id: id("acc"), amount: usd(2_010), refund_of: Some(id("o-3")) };
    shop.happens(back, None);

    shop.traffic.accounts = vec![AccountOfOurs { account_id: id("acc"), put_in: usd(10_000) }];
    shop.traffic.received = [(id("lamp"), 10)].into();
    shop.traffic.refused = vec![id("o-4")];
    shop.balances = [(id("acc"), Some(usd(7_990)))].into();
    let status = |order, status: &str, version| ListedOrder {
        order_id: id(order),
        status: status.to_owned(),
        version,
    };
    shop.orders =
        vec![status("o-1", "Shipped", 3), status("o-2", "Cancelled", 2), status("o-3", "Cancelled", 3)];
    shop.stock = vec![Stock { product_id: id("lamp"), on_hand: 8, reserved: 0, shipped: 2, received: 10 }];
    shop.analytics.summary = serde_json::from_str(SUMMARY).unwrap();
    shop.analytics.days = serde_json::from_str(DAYS).unwrap();
    shop.analytics.methods = serde_json::from_str(METHODS).unwrap();
    shop.analytics.failures =
        serde_json::from_value(json!([{"reason": "card_declined", "count": 1}])).unwrap();
    shop.analytics.products = serde_json::from_str(PRODUCTS).unwrap();
    shop.analytics.customers = serde_json::from_str(CUSTOMERS).unwrap();
    shop
}

/// What consumer-analytics says of it, reckoned by hand. (50.20 / 3 = 16.73)
const SUMMARY: &str = r#"{
    "orders": {"total": 3, "placed": 0, "confirmed": 0, "shipped": 1, "cancelled": 2},
    "money": [{"currency": "USD", "orders": 3, "ordered": 50.20, "average_order_value": 16.73,
               "paid": 40.20, "refunded": 20.10, "revenue": 20.10}],
    "customers": 1, "products": 1,
    "payments": {"total": 3, "succeeded": 2, "failed": 1, "refunds": 1, "voided": 0, "success_rate": 0.6667},
    "time_to_payment": {"count": 2, "average_ms": 4500}
}"#;
const DAYS: &str = r#"[
    {"day": "1970-01-01", "orders": 3, "cancelled": 2,
     "money": [{"currency": "USD", "orders": 3, "ordered": 50.20, "average_order_value": 16.73,
                "paid": 40.20, "refunded": 20.10, "revenue": 20.10}],
     "payments": {"total": 3, "succeeded": 2, "failed": 1, "refunds": 1, "voided": 0, "success_rate": 0.6667}}
]"#;
const METHODS: &str = r#"[
    {"method": "account", "total": 2, "succeeded": 2, "failed": 0, "paid": [{"currency": "USD", "amount": 40.20}]},
    {"method": "card", "total": 1, "succeeded": 0, "failed": 1, "paid": []}
]"#;
const PRODUCTS: &str = r#"[
    {"product_id": "lamp", "orders": 3, "units_ordered": 6, "units_sold": 2,
     "revenue": [{"currency": "USD", "amount": 20.10}]}
]"#;
const CUSTOMERS: &str = r#"[
    {"customer_id": "c-1", "orders": 3, "cancelled": 2, "ordered": [{"currency": "USD", "amount": 50.20}],
     "paid": [{"currency": "USD", "amount": 20.10}]}
]"#;

/// What the audit finds wrong, by the names of the checks.
fn found(ledger: &Ledger) -> Vec<(&'static str, String)> {
    let checks = audit(ledger).checks.into_iter();
    checks.flat_map(|check| check.wrong.into_iter().map(move |wrong| (check.name, wrong))).collect()
}

/// That tampering is found by that check, in words that name it.
#[track_caller]
fn finds(check: &str, words: &str, tamper: impl FnOnce(&mut Ledger)) {
    let mut ledger = shop();
    tamper(&mut ledger);
    let found = found(&ledger);
    let named = found.iter().any(|(name, wrong)| *name == check && wrong.contains(words));
    assert!(named, "nothing of {check} says {words:?}: {found:#?}");
}

#[test]
fn a_shop_in_which_everything_adds_up_passes() {
    assert_eq!(found(&shop()), []);
    assert_eq!(audit(&shop()).wrong(), 0);
}

#[test]
fn an_order_that_does_not_end_exactly_once_is_found() {
    finds("orders", "o-1 has an impossible history: placed, confirmed, shipped, cancelled", |shop| {
        shop.cancel("o-1", CancelReason::TimedOut);
    });
    finds("orders", "o-2 has not come to an end", |shop| {
        shop.log.retain(|logged| logged.subject != "order.cancelled.o-2.2");
    });
    finds("orders", "o-9 was accepted and is not on the log", |shop| {
        shop.traffic.placed.push(Placed { order_id: id("o-9"), path: "lost", ending: Ending::Confirmed });
    });
    finds("orders", "o-2 (a test) should end as", |shop| {
        shop.tamper("order.cancelled.o-2.2", |event| {
            let (order_id, reason) = (id("o-2"), CancelReason::TimedOut);
            event.event = OrderCancelled { order_id, reason, detail: None }.into();
        });
    });
    finds("orders", "o-1 was refused and is on the log", |shop| shop.traffic.refused.push(id("o-1")));
    finds("orders", "does not list order o-3", |shop| shop.orders[2].status = "Confirmed".to_owned());
}

#[test]
fn a_log_with_gaps_or_doubles_is_found() {
    finds("log", "order.shipped.o-1.3 (13) comes after version 1", |shop| {
        shop.log.retain(|logged| logged.subject != "order.confirmed.o-1.2");
    });
    finds("log", "repeats an event id", |shop| {
        let first = EventId::new("e-1").unwrap();
        shop.tamper("order.shipped.o-1.3", |event| event.meta.id = first);
    });
    finds("log", "holds another entity's event", |shop| {
        shop.log[0].subject = "account.opened.other.1".to_owned();
    });
    finds("log", "cannot be read: broken", |shop| {
        shop.log[0].content = Content::Unreadable("broken".to_owned());
    });
}

#[test]
fn lost_stock_is_found() {
    finds("stock", "received 10 is not on hand + reserved + shipped", |shop| shop.stock[0].on_hand = 7);
    finds("stock", "by receipts and orders", |shop| {
        (shop.stock[0].on_hand, shop.stock[0].reserved) = (6, 2);
    });
    finds("stock", "11 were delivered, 10 were received", |shop| {
        shop.traffic.received.insert(id("lamp"), 11);
    });
    finds("stock", "none ever came in", |shop| {
        shop.stock.push(Stock { product_id: id("ghost"), on_hand: 1, reserved: 0, shipped: 0, received: 1 });
    });
}

#[test]
fn money_that_appears_or_vanishes_is_found() {
    finds("money", "account acc: by its events", |shop| {
        shop.balances.insert(id("acc"), Some(usd(7_989)));
    });
    finds("money", "payment o-1: withdrawn 2 times", |shop| {
        let (account_id, payment_id) = (id("acc"), Some(id("o-1")));
        shop.happens(MoneyWithdrawn { account_id, amount: usd(2_010), payment_id }, None);
    });
    finds("money", "payment o-3: accounts gave 2010 and got 0 back, 0 were due", |shop| {
        shop.log.retain(|logged| !logged.subject.starts_with("account.deposited"));
    });
    finds("money", "order o-3 is cancelled, and [20.10 USD] were kept", |shop| {
        shop.log.retain(|logged| !logged.subject.starts_with("payment.refunded"));
    });
    finds("money", "order o-1 costs 20.10 USD and was paid with []", |shop| {
        shop.log.retain(|logged| logged.subject != "payment.processed.o-1.1");
    });
    finds("money", "account acc: 99.99 USD were put in", |shop| shop.traffic.accounts[0].put_in = usd(9_999));
}

#[test]
fn a_mail_that_is_missing_or_sent_twice_is_found() {
    finds("mails", "the mail OrderPlaced about order o-1 to a@example.com was never sent", |shop| {
        shop.log.retain(|logged| logged.subject != "mail.sent.mail-e-4.2");
    });
    finds("mails", "arrived 0 times", |shop| drop(shop.delivered.pop()));
    finds("mails", "arrived 2 times", |shop| {
        let again = shop.delivered[0].clone();
        shop.delivered.push(again);
    });
    finds("mails", "was sent as", |shop| {
        let cause = EventId::new("e-4").unwrap();
        shop.told("o-1", MailKind::OrderShipped, &cause);
    });
    finds("mails", "went out for no reason", |shop| {
        let cause = EventId::new("e-1").unwrap();
        shop.told("o-1", MailKind::OrderPlaced, &cause);
    });
    finds("mails", "a mail arrived that nobody sent", |shop| shop.delivered[0].message_id = "<x>".to_owned());
    finds("mails", "listed as sent 0 times", |shop| shop.mails[0].status = "attempted".to_owned());
    finds("mails", "about order o-1 to a@example.com was never sent", |shop| shop.skip_mails_of("o-1"));
    finds("mails", "arrived as", |shop| shop.delivered[0].to = "b@example.com".to_owned());
}

#[test]
fn numbers_that_differ_from_the_log_are_found() {
    finds("analytics", "the summary", |shop| shop.analytics.summary.orders.total = 4);
    finds("analytics", "the summary", |shop| {
        shop.analytics.summary.money[0].revenue = "20.11".parse().unwrap();
    });
    finds("analytics", "days: consumer-analytics says", |shop| shop.analytics.days[0].orders = 4);
    finds("analytics", "products: consumer-analytics says", |shop| shop.analytics.products[0].units_sold = 3);
    finds("analytics", "payment methods: consumer-analytics does not say", |shop| {
        shop.analytics.methods[0].succeeded = 1;
    });
    finds("analytics", "customers: 1 by the log, 0 said", |shop| shop.analytics.customers.clear());
    finds("analytics", "payment failures", |shop| shop.analytics.failures.clear());
}

#[test]
fn a_dead_letter_that_is_missing_or_too_many_is_found() {
    finds("dead letters", "the poison is not in the stream DLQ", |shop| {
        shop.traffic.poison.push(b"{".to_vec());
    });
    finds("dead letters", "the stream DLQ also holds dlq.events.x.order.placed (1): broken", |shop| {
        let (sequence, subject) = (1, "dlq.events.x.order.placed".to_owned());
        shop.stored_letters.push(StoredLetter { sequence, subject, letter: Err("broken".to_owned()) });
    });
    finds("dead letters", "consumer-dlq also lists x-EVENTS-1", |shop| {
        let (id, consumer, error) = ("x-EVENTS-1".to_owned(), "x".to_owned(), "no".to_owned());
        let class = FailureClass::Exhausted;
        shop.listed_letters.push(ListedLetter { id, consumer, class, error, sequence: 1, dlq_sequence: 1 });
    });
}

#[test]
fn what_was_there_before_is_no_business_of_this_run() {
    let mut ledger = shop();
    let (id, consumer, error) = ("x-EVENTS-1".to_owned(), "x".to_owned(), "no".to_owned());
    let class = FailureClass::Exhausted;
    ledger.listed_letters.push(ListedLetter { id, consumer, class, error, sequence: 1, dlq_sequence: 1 });
    ledger.before.dead_letters = 1;
    ledger.skip_mails_of("o-1");
    ledger.before.log = u64::MAX;
    ledger.traffic.received.clear();
    assert_eq!(found(&ledger), []);
}
