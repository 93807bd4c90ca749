//! The service's consumer as `main` wires it: what arrives on the log is reacted to.

use std::time::Duration;

use common::order::PaymentMethod;
use jetkit::testing::eventually;
use payment_service::payment::PaymentStatus;
use tokio_util::sync::CancellationToken;

use crate::till::{Till, account, id};

const SOON: Duration = Duration::from_secs(10);

fn start(till: &Till) -> tokio_util::sync::DropGuard {
    let stop = CancellationToken::new();
    let consumer = payment_service::consumer(till.cashier.clone(), till.adopter.clone());
    tokio::spawn(consumer.run(till.client.clone(), stop.clone()));
    stop.drop_guard()
}

async fn becomes(till: &Till, payment: &str, status: PaymentStatus) {
    eventually(SOON, || async { (till.status(payment).await == Some(status)).then_some(()) }).await;
}

#[tokio::test]
async fn a_reservation_is_paid_and_a_cancellation_refunded() {
    let till = Till::start().await;
    let _running = start(&till);
    till.open("acc", 10_000).await;
    till.place("o-1", account("acc")).await;
    till.reserve("o-1").await;
    becomes(&till, "o-1", PaymentStatus::Success).await;
    till.cancel("o-1").await;
    becomes(&till, "o-1", PaymentStatus::Refunded).await;
    eventually(SOON, || async { (till.balance("acc").await == 10_000).then_some(()) }).await;
}

#[tokio::test]
async fn a_first_generation_payment_is_taken_over() {
    let till = Till::start().await;
    let _running = start(&till);
    till.place("order-123", PaymentMethod::External {}).await;
    let flat = include_bytes!("../../../common/tests/golden/payment.processed.v1.json");
    for subject in ["payment.processed", "payment.processed.pay-123"] {
        till.client.publish(subject, flat.to_vec().into()).await.unwrap();
    }
    becomes(&till, "pay-123", PaymentStatus::Success).await;
    let history = till.payments.history(&id("pay-123")).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].meta.id.as_str(), "6f1a2b3c-0000-4000-8000-000000000002");
}

#[tokio::test]
async fn nonsense_from_outside_becomes_a_dead_letter_and_stops_nothing() {
    let till = Till::start().await;
    let _running = start(&till);
    till.client.publish("payment.processed", "not an event".into()).await.unwrap();
    till.open("acc", 10_000).await;
    till.place("o-1", account("acc")).await;
    till.reserve("o-1").await;
    becomes(&till, "o-1", PaymentStatus::Success).await;
    let js = async_nats::jetstream::new(till.client.clone());
    eventually(SOON, || async {
        (js.get_stream("DLQ").await.unwrap().cached_info().state.messages == 1).then_some(())
    })
    .await;
}
