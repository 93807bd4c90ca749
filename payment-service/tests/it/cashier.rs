//! The cashier, step by step: what happens to the money, whatever comes first and wherever it is interrupted.

use std::time::Duration;

use common::order::PaymentMethod;
use common::payment::{PaymentMethodKind, PaymentOutcome, PaymentProcessed};
use jetkit::testing::{SOON, cause, eventually, id};
use jetkit::{Breaker, Handler, HandlerError};
use payment_service::account::AccountCommand;
use payment_service::payment::{PaymentCommand, PaymentStatus};

use crate::test_service::{TestService, account, card, usd};

#[tokio::test]
async fn a_reserved_order_is_charged_to_its_account_once() {
    let service = TestService::start().await;
    service.open("acc", 10_000).await;
    service.place("o-1", account("acc")).await;
    let reserved = service.reserve("o-1").await;
    for _ in 0..3 {
        service.cashier.handle(reserved.clone()).await.unwrap();
    }
    assert_eq!(service.balance("acc").await, 7000);
    assert_eq!(service.status("o-1").await, Some(PaymentStatus::Success));
    assert_eq!(service.payments.load(&id("o-1")).await.unwrap().version, 1);
}

#[tokio::test]
async fn an_account_that_cannot_pay_fails_the_payment_with_a_code() {
    let service = TestService::start().await;
    service.open("poor", 2999).await;
    for (order, from, code) in [("o-1", "poor", "insufficient_funds"), ("o-2", "nobody", "account_not_open")]
    {
        service.place(order, account(from)).await;
        service.cashier.handle(service.reserve(order).await).await.unwrap();
        let payment = service.payments.load(&id(order)).await.unwrap().state;
        assert_eq!(payment.status(), Some(PaymentStatus::Failed));
        assert_eq!(payment.processed().unwrap().failure.as_deref(), Some(code));
    }
    assert_eq!(service.balance("poor").await, 2999);
}

#[tokio::test]
async fn a_failed_payment_stays_failed_when_money_comes_later() {
    let service = TestService::start().await;
    service.open("acc", 0).await;
    service.place("o-1", account("acc")).await;
    let reserved = service.reserve("o-1").await;
    service.cashier.handle(reserved.clone()).await.unwrap();
    service
        .accounts
        .execute(&id("acc"), &AccountCommand::Deposit { amount: usd(9000) }, &cause())
        .await
        .unwrap();
    service.cashier.handle(reserved).await.unwrap();
    assert_eq!(service.balance("acc").await, 9000);
    assert_eq!(service.status("o-1").await, Some(PaymentStatus::Failed));
}

#[tokio::test]
async fn a_card_is_charged_or_declined() {
    let service = TestService::start().await;
    service.place("o-1", card("tok_success")).await;
    service.place("o-2", card("tok_declined")).await;
    service.cashier.handle(service.reserve("o-1").await).await.unwrap();
    service.cashier.handle(service.reserve("o-2").await).await.unwrap();
    assert_eq!(service.gateway.taken(), [("o-1".to_owned(), 3000)]);
    let payment = |order: &'static str| async { service.payments.load(&id(order)).await.unwrap().state };
    assert_eq!(payment("o-1").await.processed().unwrap().reference.as_deref(), Some("ref"));
    assert_eq!(payment("o-2").await.processed().unwrap().failure.as_deref(), Some("card_declined"));
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_is_asked_again() {
    let service = TestService::start().await;
    service.place("o-1", card("tok_success")).await;
    let reserved = service.reserve("o-1").await;
    service.gateway.after_taking(std::future::pending());
    let outcome = service.cashier.handle(reserved.clone()).await;
    assert!(matches!(outcome, Err(HandlerError::Retry(_))), "{outcome:?}");
    assert_eq!(service.status("o-1").await, None);
    service.cashier.handle(reserved).await.unwrap();
    assert_eq!(service.gateway.taken(), [("o-1".to_owned(), 3000)]);
    assert_eq!(service.status("o-1").await, Some(PaymentStatus::Success));
}

/// Runs the consumer while the gateway is away, and says what came of three orders.
async fn outage(away: impl Fn(&TestService, bool)) {
    let service = TestService::start().await;
    away(&service, true);
    let orders = ["o-1", "o-2", "o-3"];
    for order in orders {
        service.place(order, card("tok_success")).await;
        service.reserve(order).await;
    }
    let breaker = Breaker {
        first_delay: Duration::from_millis(10),
        longest_delay: Duration::from_millis(50),
        doubt_after: 1000,
    };
    let consumer =
        payment_service::consumer(service.cashier.clone(), service.adopter.clone()).breaker(breaker);
    let running = service.harness.run(consumer);
    let open = || async { jetkit::open_circuits(&service.harness.client).await.unwrap().pop() };
    let circuit = eventually(SOON * 2, open).await;
    assert_eq!((circuit.consumer.as_str(), circuit.dependency.as_str()), ("payment-service", "card gateway"));
    // More often than an event may be tried.
    let enough = service.gateway.calls().len() + 15;
    eventually(SOON * 2, || async { (service.gateway.calls().len() >= enough).then_some(()) }).await;
    away(&service, false);
    assert_eq!(service.harness.dead_letters("payment-service").await, 0);
    for order in orders {
        assert_eq!(service.status(order).await, Some(PaymentStatus::Success));
    }
    assert_eq!(service.gateway.taken().len(), 3);
    running.stop().await;
}

#[tokio::test]
async fn an_outage_of_the_gateway_uses_up_no_attempt() {
    outage(|service, down| service.gateway.set_down(down)).await;
}

#[tokio::test]
async fn a_gateway_that_answers_nobody_is_an_outage_too() {
    outage(|service, silent| service.gateway.set_silent(silent)).await;
}

#[tokio::test]
async fn an_order_paid_outside_is_not_charged() {
    let service = TestService::start().await;
    service.place("o-1", PaymentMethod::External {}).await;
    service.cashier.handle(service.reserve("o-1").await).await.unwrap();
    assert_eq!(service.status("o-1").await, None);
    assert!(service.gateway.calls().is_empty());
}

#[tokio::test]
async fn a_cancelled_order_gets_its_money_back_once() {
    let service = TestService::start().await;
    service.open("acc", 10_000).await;
    for (order, method) in [("o-1", account("acc")), ("o-2", card("tok_success"))] {
        service.place(order, method).await;
        service.cashier.handle(service.reserve(order).await).await.unwrap();
        let cancelled = service.cancel(order).await;
        for _ in 0..2 {
            service.cashier.handle(cancelled.clone()).await.unwrap();
        }
        assert_eq!(service.status(order).await, Some(PaymentStatus::Refunded));
    }
    assert_eq!(service.balance("acc").await, 10_000);
    assert!(service.gateway.taken().is_empty());
}

#[tokio::test]
async fn an_order_cancelled_before_its_reservation_arrives_is_never_charged() {
    let service = TestService::start().await;
    service.open("acc", 10_000).await;
    for (order, method) in [("o-1", account("acc")), ("o-2", card("tok_success"))] {
        service.place(order, method).await;
        let (reserved, cancelled) = (service.reserve(order).await, service.cancel(order).await);
        service.cashier.handle(cancelled).await.unwrap();
        service.cashier.handle(reserved).await.unwrap();
        assert_eq!(service.status(order).await, Some(PaymentStatus::Voided));
    }
    assert_eq!(service.balance("acc").await, 10_000);
    assert!(!service.gateway.calls().contains(&"charge o-2".to_owned()));
}

#[tokio::test]
async fn an_order_cancelled_while_its_card_is_charged_gets_the_money_back() {
    let service = TestService::start().await;
    service.place("o-1", card("tok_success")).await;
    let (reserved, cancelled) = (service.reserve("o-1").await, service.cancel("o-1").await);
    let cashier = service.cashier.clone();
    service.gateway.after_taking(async move { cashier.handle(cancelled).await.unwrap() });
    service.cashier.handle(reserved).await.unwrap();
    assert_eq!(service.status("o-1").await, Some(PaymentStatus::Voided));
    assert!(service.gateway.taken().is_empty());
    assert_eq!(service.gateway.calls(), ["charge o-1", "refund o-1", "refund o-1"]);
}

#[tokio::test]
async fn money_taken_by_an_attempt_that_died_is_given_back_when_the_order_is_cancelled() {
    let service = TestService::start().await;
    service.open("acc", 10_000).await;
    service.place("o-1", account("acc")).await;
    let reserved = service.reserve("o-1").await;
    // The money is taken, then the process dies before the payment is recorded.
    let pay = AccountCommand::Pay { payment_id: id("o-1"), amount: usd(3000) };
    service.accounts.execute(&id("acc"), &pay, &reserved.cause()).await.unwrap();
    assert_eq!(service.balance("acc").await, 7000);
    service.cashier.handle(service.cancel("o-1").await).await.unwrap();
    assert_eq!(service.balance("acc").await, 10_000);
    service.cashier.handle(reserved).await.unwrap();
    assert_eq!(service.balance("acc").await, 10_000);
    assert_eq!(service.status("o-1").await, Some(PaymentStatus::Voided));
}

#[tokio::test]
async fn an_attempt_that_died_after_taking_is_finished_by_the_next() {
    let service = TestService::start().await;
    service.open("acc", 3000).await;
    service.place("o-1", account("acc")).await;
    let reserved = service.reserve("o-1").await;
    let pay = AccountCommand::Pay { payment_id: id("o-1"), amount: usd(3000) };
    service.accounts.execute(&id("acc"), &pay, &reserved.cause()).await.unwrap();
    service.cashier.handle(reserved).await.unwrap();
    assert_eq!(service.balance("acc").await, 0);
    assert_eq!(service.status("o-1").await, Some(PaymentStatus::Success));
}

#[tokio::test]
async fn of_two_attempts_that_disagree_the_first_record_counts_and_the_money_follows_it() {
    let service = TestService::start().await;
    service.open("acc", 10_000).await;
    service.place("o-1", account("acc")).await;
    let reserved = service.reserve("o-1").await;
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
    service.accounts.execute(&id("acc"), &pay, &reserved.cause()).await.unwrap();
    service.payments.execute(&id("o-1"), &PaymentCommand::Record(failed), &cause()).await.unwrap();
    service.cashier.handle(reserved).await.unwrap();
    assert_eq!(service.balance("acc").await, 10_000);
    assert_eq!(service.status("o-1").await, Some(PaymentStatus::Failed));
}
