//! Payments that another producer made.

use common::order::{OrderEvent, OrderShipped, PaymentMethod};
use common::payment::{PaymentMethodKind, PaymentOutcome, PaymentProcessed};
use jetkit::testing::{Anything, happened, id};
use jetkit::{Cause, Event, Handler, HandlerError, Recorded};
use payment_service::payment::PaymentStatus;

use crate::test_service::{TestService, account, usd};

fn paid(payment: &str, order: &str, status: PaymentOutcome) -> Recorded<PaymentProcessed> {
    let mut paid = happened(PaymentProcessed {
        payment_id: id(payment),
        order_id: id(order),
        amount: usd(3000),
        payment_method: PaymentMethodKind::External { method: "credit_card".to_owned() },
        status,
        failure: None,
        reference: None,
    });
    (paid.meta.source, paid.version) = (String::new(), 0);
    paid
}

#[tokio::test]
async fn a_payment_from_outside_is_recorded_once_under_its_own_event_id() {
    let service = TestService::start().await;
    service.place("o-1", PaymentMethod::External {}).await;
    let payment = paid("p-1", "o-1", PaymentOutcome::Success);
    for _ in 0..2 {
        service.adopter.handle(payment.clone()).await.unwrap();
    }
    let history = service.payments.history(&id("p-1")).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].meta.id, payment.meta.id);
    assert_eq!(service.status("p-1").await, Some(PaymentStatus::Success));
}

#[tokio::test]
async fn a_payment_may_come_before_its_order() {
    let service = TestService::start().await;
    let payment = paid("p-1", "o-later", PaymentOutcome::Success);
    let early = service.adopter.handle(payment.clone()).await;
    assert!(matches!(early, Err(HandlerError::Retry(_))), "{early:?}");
    service.place("o-later", PaymentMethod::External {}).await;
    service.adopter.handle(payment).await.unwrap();
    assert_eq!(service.status("p-1").await, Some(PaymentStatus::Success));
}

#[tokio::test]
async fn nobody_outside_pays_for_an_order_that_the_shop_charges() {
    let service = TestService::start().await;
    service.place("o-1", account("acc")).await;
    let outcome = service.adopter.handle(paid("p-1", "o-1", PaymentOutcome::Success)).await;
    assert!(matches!(outcome, Err(HandlerError::Reject(_))), "{outcome:?}");
    assert_eq!(service.status("p-1").await, None);
}

#[tokio::test]
async fn nobody_outside_makes_the_shop_refund_an_account() {
    let service = TestService::start().await;
    service.open("acc", 100).await;
    service.place("o-1", PaymentMethod::External {}).await;
    let mut payment = paid("p-1", "o-1", PaymentOutcome::Success);
    payment.event.payment_method = PaymentMethodKind::Account { account_id: id("acc") };
    service.adopter.handle(payment).await.unwrap();
    service.cashier.handle(service.cancel("o-1").await).await.unwrap();
    assert_eq!(service.balance("acc").await, 100);
    assert_eq!(service.status("p-1").await, Some(PaymentStatus::Refunded));
}

#[tokio::test]
async fn another_result_under_the_same_payment_is_refused() {
    let service = TestService::start().await;
    service.place("o-1", PaymentMethod::External {}).await;
    service.adopter.handle(paid("p-1", "o-1", PaymentOutcome::Failed)).await.unwrap();
    let outcome = service.adopter.handle(paid("p-1", "o-1", PaymentOutcome::Success)).await;
    assert!(matches!(outcome, Err(HandlerError::Reject(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_payment_from_outside_is_refunded_whether_before_or_after_the_cancellation() {
    let service = TestService::start().await;
    service.place("o-1", PaymentMethod::External {}).await;
    service.adopter.handle(paid("p-before", "o-1", PaymentOutcome::Success)).await.unwrap();
    service.adopter.handle(paid("p-failed", "o-1", PaymentOutcome::Failed)).await.unwrap();
    service.cashier.handle(service.cancel("o-1").await).await.unwrap();
    service.adopter.handle(paid("p-after", "o-1", PaymentOutcome::Success)).await.unwrap();
    // Also one that carries the order's own id.
    service.adopter.handle(paid("o-1", "o-1", PaymentOutcome::Success)).await.unwrap();
    for payment in ["p-before", "p-after", "o-1"] {
        assert_eq!(service.status(payment).await, Some(PaymentStatus::Refunded), "{payment}");
    }
    assert_eq!(service.status("p-failed").await, Some(PaymentStatus::Failed));
}

#[tokio::test]
async fn payments_of_one_order_under_one_event_id_are_all_refunded_when_it_is_cancelled() {
    let service = TestService::start().await;
    service.place("o-1", PaymentMethod::External {}).await;
    let mut first = paid("p-1", "o-1", PaymentOutcome::Success);
    for (payment, source) in [("p-1", "/one"), ("p-2", "/one"), ("p-3", "/two")] {
        first.event.payment_id = id(payment);
        first.meta.source = source.to_owned();
        service.adopter.handle(first.clone()).await.unwrap();
    }
    service.cashier.handle(service.cancel("o-1").await).await.unwrap();
    // Those that come after the cancellation, too.
    for payment in ["p-4", "p-5"] {
        first.event.payment_id = id(payment);
        service.adopter.handle(first.clone()).await.unwrap();
    }
    for payment in ["p-1", "p-2", "p-3", "p-4", "p-5"] {
        assert_eq!(service.status(payment).await, Some(PaymentStatus::Refunded), "{payment}");
        assert_eq!(service.payments.load(&id(payment)).await.unwrap().version, 2, "{payment}: once");
    }
}

#[tokio::test]
async fn a_payment_under_the_event_id_of_an_order_of_the_same_id_is_recorded() {
    let service = TestService::start().await;
    service.place("o-1", PaymentMethod::External {}).await;
    let payment = paid("o-1", "o-1", PaymentOutcome::Success);
    // As order-service has adopted an order under that event id, on the same stream and within its duplicate window.
    let order = OrderShipped { order_id: id("o-1"), carrier: "Post".into(), tracking_number: "T-1".into() };
    let mut meta = payment.meta.clone();
    meta.event_type = OrderShipped::TYPE.to_owned();
    let adopting = Cause::adopting(&Recorded {
        event: order.clone(),
        stored_at: meta.time,
        meta,
        version: 0,
        sequence: 1,
    });
    service
        .harness
        .log
        .store::<Anything<OrderEvent>>()
        .execute(&id("o-1"), &order.into(), &adopting)
        .await
        .unwrap();
    service.adopter.handle(payment).await.unwrap();
    assert_eq!(service.status("o-1").await, Some(PaymentStatus::Success));
}

#[tokio::test]
async fn a_payment_under_another_orders_id_moves_no_money_of_that_order() {
    let service = TestService::start().await;
    service.open("acc", 10_000).await;
    service.place("o-1", PaymentMethod::External {}).await;
    service.adopter.handle(paid("o-2", "o-1", PaymentOutcome::Success)).await.unwrap();
    service.place("o-2", account("acc")).await;
    let outcome = service.cashier.handle(service.reserve("o-2").await).await;
    assert!(matches!(outcome, Err(HandlerError::Reject(_))), "{outcome:?}");
    service.cashier.handle(service.cancel("o-2").await).await.unwrap();
    assert_eq!(service.status("o-2").await, Some(PaymentStatus::Success), "it is the first order's");
    assert_eq!(service.balance("acc").await, 10_000);

    // The first order's cancellation is another one's.
    service.place("o-3", PaymentMethod::External {}).await;
    service.cashier.handle(service.cancel("o-1").await).await.unwrap();
    assert_eq!(service.status("o-2").await, Some(PaymentStatus::Refunded));
    service.adopter.handle(paid("p-3", "o-3", PaymentOutcome::Success)).await.unwrap();
    assert_eq!(service.status("p-3").await, Some(PaymentStatus::Success));
}

#[tokio::test]
async fn a_failed_payment_under_the_orders_id_does_not_hide_the_cancellation() {
    let service = TestService::start().await;
    service.place("o-1", PaymentMethod::External {}).await;
    service.adopter.handle(paid("o-1", "o-1", PaymentOutcome::Failed)).await.unwrap();
    service.cashier.handle(service.cancel("o-1").await).await.unwrap();
    service.adopter.handle(paid("p-2", "o-1", PaymentOutcome::Success)).await.unwrap();
    assert_eq!(service.status("p-2").await, Some(PaymentStatus::Refunded));
}
