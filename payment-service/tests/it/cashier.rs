//! The cashier, step by step: what happens to the money, whatever comes first and wherever it is interrupted.

use std::time::Duration;

use common::order::PaymentMethod;
use common::payment::{PaymentMethodKind, PaymentOutcome, PaymentProcessed};
use jetkit::testing::eventually;
use jetkit::{Breaker, Handler, HandlerError};
use payment_service::account::AccountCommand;
use payment_service::payment::{PaymentCommand, PaymentStatus};
use tokio_util::sync::CancellationToken;

use crate::till::{Till, account, card, fresh, id, usd};

#[tokio::test]
async fn a_reserved_order_is_charged_to_its_account_once() {
    let till = Till::start().await;
    till.open("acc", 10_000).await;
    till.place("o-1", account("acc")).await;
    let reserved = till.reserve("o-1").await;
    for _ in 0..3 {
        till.cashier.handle(reserved.clone()).await.unwrap();
    }
    assert_eq!(till.balance("acc").await, 7000);
    assert_eq!(till.status("o-1").await, Some(PaymentStatus::Success));
    assert_eq!(till.payments.load(&id("o-1")).await.unwrap().version, 1);
}

#[tokio::test]
async fn an_account_that_cannot_pay_fails_the_payment_with_a_code() {
    let till = Till::start().await;
    till.open("poor", 2999).await;
    for (order, from, code) in [("o-1", "poor", "insufficient_funds"), ("o-2", "nobody", "account_not_open")]
    {
        till.place(order, account(from)).await;
        till.cashier.handle(till.reserve(order).await).await.unwrap();
        let payment = till.payments.load(&id(order)).await.unwrap().state;
        assert_eq!(payment.status(), Some(PaymentStatus::Failed));
        assert_eq!(payment.processed().unwrap().failure.as_deref(), Some(code));
    }
    assert_eq!(till.balance("poor").await, 2999);
}

#[tokio::test]
async fn a_failed_payment_stays_failed_when_money_comes_later() {
    let till = Till::start().await;
    till.open("acc", 0).await;
    till.place("o-1", account("acc")).await;
    let reserved = till.reserve("o-1").await;
    till.cashier.handle(reserved.clone()).await.unwrap();
    till.accounts
        .execute(&id("acc"), &AccountCommand::Deposit { amount: usd(9000) }, &fresh())
        .await
        .unwrap();
    till.cashier.handle(reserved).await.unwrap();
    assert_eq!(till.balance("acc").await, 9000);
    assert_eq!(till.status("o-1").await, Some(PaymentStatus::Failed));
}

#[tokio::test]
async fn a_card_is_charged_or_declined() {
    let till = Till::start().await;
    till.place("o-1", card("tok_success")).await;
    till.place("o-2", card("tok_declined")).await;
    till.cashier.handle(till.reserve("o-1").await).await.unwrap();
    till.cashier.handle(till.reserve("o-2").await).await.unwrap();
    assert_eq!(till.gateway.taken(), [("o-1".to_owned(), 3000)]);
    let payment = |order: &'static str| async { till.payments.load(&id(order)).await.unwrap().state };
    assert_eq!(payment("o-1").await.processed().unwrap().reference.as_deref(), Some("ref"));
    assert_eq!(payment("o-2").await.processed().unwrap().failure.as_deref(), Some("card_declined"));
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_is_asked_again() {
    let till = Till::start().await;
    till.place("o-1", card("tok_success")).await;
    let reserved = till.reserve("o-1").await;
    till.gateway.after_taking(std::future::pending());
    let outcome = till.cashier.handle(reserved.clone()).await;
    assert!(matches!(outcome, Err(HandlerError::Retry(_))), "{outcome:?}");
    assert_eq!(till.status("o-1").await, None);
    till.cashier.handle(reserved).await.unwrap();
    assert_eq!(till.gateway.taken(), [("o-1".to_owned(), 3000)]);
    assert_eq!(till.status("o-1").await, Some(PaymentStatus::Success));
}

/// Runs the consumer while the gateway is away, and says what came of three orders.
async fn outage(away: impl Fn(&Till, bool)) {
    let till = Till::start().await;
    away(&till, true);
    let orders = ["o-1", "o-2", "o-3"];
    for order in orders {
        till.place(order, card("tok_success")).await;
        till.reserve(order).await;
    }
    let breaker = Breaker {
        first_delay: Duration::from_millis(10),
        longest_delay: Duration::from_millis(50),
        doubt_after: 1000,
    };
    let consumer = payment_service::consumer(till.cashier.clone(), till.adopter.clone()).breaker(breaker);
    let (stop, soon) = (CancellationToken::new(), Duration::from_mins(1));
    let running = tokio::spawn(consumer.run(till.client.clone(), stop.clone()));
    let circuit =
        eventually(soon, || async { jetkit::open_circuits(&till.client).await.unwrap().pop() }).await;
    assert_eq!((circuit.consumer.as_str(), circuit.dependency.as_str()), ("payment-service", "card gateway"));
    // More often than an event may be tried.
    let enough = till.gateway.calls().len() + 15;
    eventually(soon, || async { (till.gateway.calls().len() >= enough).then_some(()) }).await;
    away(&till, false);
    for order in orders {
        eventually(soon, || async {
            (till.status(order).await == Some(PaymentStatus::Success)).then_some(())
        })
        .await;
    }
    assert_eq!(till.gateway.taken().len(), 3);
    let js = async_nats::jetstream::new(till.client.clone());
    let dead = js.get_stream("DLQ").await.unwrap().cached_info().state.messages;
    assert_eq!(dead, 0, "dead letters");
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_outage_of_the_gateway_uses_up_no_attempt() {
    outage(|till, down| till.gateway.set_down(down)).await;
}

#[tokio::test]
async fn a_gateway_that_answers_nobody_is_an_outage_too() {
    outage(|till, silent| till.gateway.set_silent(silent)).await;
}

#[tokio::test]
async fn an_order_paid_outside_is_not_charged() {
    let till = Till::start().await;
    till.place("o-1", PaymentMethod::External {}).await;
    till.cashier.handle(till.reserve("o-1").await).await.unwrap();
    assert_eq!(till.status("o-1").await, None);
    assert!(till.gateway.calls().is_empty());
}

#[tokio::test]
async fn a_cancelled_order_gets_its_money_back_once() {
    let till = Till::start().await;
    till.open("acc", 10_000).await;
    for (order, method) in [("o-1", account("acc")), ("o-2", card("tok_success"))] {
        till.place(order, method).await;
        till.cashier.handle(till.reserve(order).await).await.unwrap();
        let cancelled = till.cancel(order).await;
        for _ in 0..2 {
            till.cashier.handle(cancelled.clone()).await.unwrap();
        }
        assert_eq!(till.status(order).await, Some(PaymentStatus::Refunded));
    }
    assert_eq!(till.balance("acc").await, 10_000);
    assert!(till.gateway.taken().is_empty());
}

#[tokio::test]
async fn an_order_cancelled_before_its_reservation_arrives_is_never_charged() {
    let till = Till::start().await;
    till.open("acc", 10_000).await;
    for (order, method) in [("o-1", account("acc")), ("o-2", card("tok_success"))] {
        till.place(order, method).await;
        let (reserved, cancelled) = (till.reserve(order).await, till.cancel(order).await);
        till.cashier.handle(cancelled).await.unwrap();
        till.cashier.handle(reserved).await.unwrap();
        assert_eq!(till.status(order).await, Some(PaymentStatus::Voided));
    }
    assert_eq!(till.balance("acc").await, 10_000);
    assert!(!till.gateway.calls().contains(&"charge o-2".to_owned()));
}

#[tokio::test]
async fn an_order_cancelled_while_its_card_is_charged_gets_the_money_back() {
    let till = Till::start().await;
    till.place("o-1", card("tok_success")).await;
    let (reserved, cancelled) = (till.reserve("o-1").await, till.cancel("o-1").await);
    let cashier = till.cashier.clone();
    till.gateway.after_taking(async move { cashier.handle(cancelled).await.unwrap() });
    till.cashier.handle(reserved).await.unwrap();
    assert_eq!(till.status("o-1").await, Some(PaymentStatus::Voided));
    assert!(till.gateway.taken().is_empty());
    assert_eq!(till.gateway.calls(), ["charge o-1", "refund o-1", "refund o-1"]);
}

#[tokio::test]
async fn money_taken_by_an_attempt_that_died_is_given_back_when_the_order_is_cancelled() {
    let till = Till::start().await;
    till.open("acc", 10_000).await;
    till.place("o-1", account("acc")).await;
    let reserved = till.reserve("o-1").await;
    // The money is taken, then the process dies before the payment is recorded.
    let pay = AccountCommand::Pay { payment_id: id("o-1"), amount: usd(3000) };
    till.accounts.execute(&id("acc"), &pay, &reserved.cause()).await.unwrap();
    assert_eq!(till.balance("acc").await, 7000);
    till.cashier.handle(till.cancel("o-1").await).await.unwrap();
    assert_eq!(till.balance("acc").await, 10_000);
    till.cashier.handle(reserved).await.unwrap();
    assert_eq!(till.balance("acc").await, 10_000);
    assert_eq!(till.status("o-1").await, Some(PaymentStatus::Voided));
}

#[tokio::test]
async fn an_attempt_that_died_after_taking_is_finished_by_the_next() {
    let till = Till::start().await;
    till.open("acc", 3000).await;
    till.place("o-1", account("acc")).await;
    let reserved = till.reserve("o-1").await;
    let pay = AccountCommand::Pay { payment_id: id("o-1"), amount: usd(3000) };
    till.accounts.execute(&id("acc"), &pay, &reserved.cause()).await.unwrap();
    till.cashier.handle(reserved).await.unwrap();
    assert_eq!(till.balance("acc").await, 0);
    assert_eq!(till.status("o-1").await, Some(PaymentStatus::Success));
}

#[tokio::test]
async fn of_two_attempts_that_disagree_the_first_record_counts_and_the_money_follows_it() {
    let till = Till::start().await;
    till.open("acc", 10_000).await;
    till.place("o-1", account("acc")).await;
    let reserved = till.reserve("o-1").await;
    let failed = PaymentProcessed {
        payment_id: id("o-1"),
        order_id: id("o-1"),
        amount: usd(3000),
        payment_method: PaymentMethodKind::Account { account_id: id("acc") },
        status: PaymentOutcome::Failed,
        failure: Some("insufficient_funds".to_owned()),
        reference: None,
    };
    let pay = AccountCommand::Pay { payment_id: id("o-1"), amount: usd(3000) };
    till.accounts.execute(&id("acc"), &pay, &reserved.cause()).await.unwrap();
    till.payments.execute(&id("o-1"), &PaymentCommand::Record(failed), &fresh()).await.unwrap();
    till.cashier.handle(reserved).await.unwrap();
    assert_eq!(till.balance("acc").await, 10_000);
    assert_eq!(till.status("o-1").await, Some(PaymentStatus::Failed));
}
