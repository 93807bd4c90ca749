//! The service's consumer as `main` wires it: what arrives on the log is reacted to.

use common::order::PaymentMethod;
use jetkit::testing::{Running, id};
use payment_service::payment::PaymentStatus;

use crate::test_service::{TestService, account};

const CONSUMER: &str = "payment-service";

fn start(service: &TestService) -> Running {
    service.harness.run(payment_service::consumer(service.cashier.clone(), service.adopter.clone()))
}

#[tokio::test]
async fn a_reservation_is_paid_and_a_cancellation_refunded() {
    let service = TestService::start().await;
    let _running = start(&service);
    service.open("acc", 10_000).await;
    service.place("o-1", account("acc")).await;
    service.reserve("o-1").await;
    service.harness.handled(CONSUMER).await;
    assert_eq!(
        (service.status("o-1").await, service.balance("acc").await),
        (Some(PaymentStatus::Success), 7000)
    );
    service.cancel("o-1").await;
    service.harness.handled(CONSUMER).await;
    assert_eq!(
        (service.status("o-1").await, service.balance("acc").await),
        (Some(PaymentStatus::Refunded), 10_000)
    );
}

#[tokio::test]
async fn a_first_generation_payment_is_taken_over() {
    let service = TestService::start().await;
    let _running = start(&service);
    service.place("order-123", PaymentMethod::External {}).await;
    let flat = include_bytes!("../../../common/tests/golden/payment.processed.v1.json");
    for subject in ["payment.processed", "payment.processed.pay-123"] {
        service.harness.publish(subject, flat.to_vec()).await;
    }
    assert_eq!(service.harness.dead_letters(CONSUMER).await, 0);
    assert_eq!(service.status("pay-123").await, Some(PaymentStatus::Success));
    let history = service.payments.history(&id("pay-123")).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].meta.id.as_str(), "6f1a2b3c-0000-4000-8000-000000000002");
}

#[tokio::test]
async fn nonsense_from_outside_becomes_a_dead_letter_and_stops_nothing() {
    let service = TestService::start().await;
    let _running = start(&service);
    service.harness.publish("payment.processed", "not an event").await;
    service.open("acc", 10_000).await;
    service.place("o-1", account("acc")).await;
    service.reserve("o-1").await;
    assert_eq!(service.harness.dead_letters(CONSUMER).await, 1);
    assert_eq!(service.status("o-1").await, Some(PaymentStatus::Success));
}
