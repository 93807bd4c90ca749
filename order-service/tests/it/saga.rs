//! The saga: what stock and payments report moves an order on, once.

use std::time::Duration;

use common::payment::PaymentOutcome;
use futures::TryStreamExt;
use order_service::order::OrderStatus;
use order_service::saga::Patience;
use serde_json::json;

use crate::test_service::TestService;

#[tokio::test]
async fn a_paid_order_is_confirmed_once() {
    let service = TestService::start().await;
    service.confirm("o-1").await;
    let history = service.http.get("/orders/o-1/events").await.body;
    assert_eq!(history.as_array().unwrap().len(), 2);
    assert!(history[1]["metadata"]["causationid"].is_string());
    assert_eq!(service.dead_letters().await, 0);
}

#[tokio::test]
async fn a_failed_payment_cancels_the_order_and_says_why() {
    let service = TestService::start().await;
    service.place("o-1").await;
    service.pay("o-1", "o-1", PaymentOutcome::Failed).await;
    service.becomes("o-1", OrderStatus::Cancelled).await;
    let order = service.http.get("/orders/o-1").await.body;
    assert_eq!(order["cancel_reason"], "payment_failed");
    assert_eq!(order["cancel_detail"], "card_declined");
}

#[tokio::test]
async fn missing_stock_cancels_the_order_and_says_what_is_missing() {
    let service = TestService::start().await;
    service.place("o-1").await;
    service.reject("o-1").await;
    service.becomes("o-1", OrderStatus::Cancelled).await;
    let order = service.http.get("/orders/o-1").await.body;
    assert_eq!(order["cancel_reason"], "out_of_stock");
    assert_eq!(order["cancel_detail"], "lamp: 1 of 2");
}

#[tokio::test]
async fn a_payment_for_a_cancelled_order_changes_nothing_and_is_no_dead_letter() {
    let service = TestService::start().await;
    service.place("o-1").await;
    service.http.post("/orders/o-1/cancel", &json!({"reason": "no"})).await;
    service.pay("o-1", "o-1", PaymentOutcome::Success).await;
    assert_eq!(service.dead_letters().await, 0);
    assert_eq!(service.http.get("/orders/o-1").await.body["version"], 2);
}

#[tokio::test]
async fn a_second_payment_by_another_name_is_a_dead_letter() {
    let service = TestService::start().await;
    service.confirm("o-1").await;
    service.pay("p-2", "o-1", PaymentOutcome::Success).await;
    assert_eq!(service.dead_letters().await, 1);
    assert_eq!(service.http.get("/orders/o-1").await.body["payment_id"], "o-1");
}

#[tokio::test]
async fn a_payment_that_comes_before_its_order_waits_for_it() {
    let service = TestService::start().await;
    service.pay("o-1", "o-1", PaymentOutcome::Success).await;
    service.place("o-1").await;
    service.becomes("o-1", OrderStatus::Confirmed).await;
    assert_eq!(service.dead_letters().await, 0);
}

#[tokio::test]
async fn an_order_that_nobody_answers_for_is_cancelled_and_no_other_is() {
    let second = Duration::from_secs(1);
    let service = TestService::with_patience(Patience { ours: second * 2, outside: second * 3600 }).await;
    service.place("paid").await;
    service.pay("paid", "paid", PaymentOutcome::Success).await;
    service.place("forgotten").await;
    service.becomes("forgotten", OrderStatus::Cancelled).await;
    assert_eq!(service.http.get("/orders/forgotten").await.body["cancel_reason"], "timed_out");
    assert_eq!(service.dead_letters().await, 0);
    assert_eq!(service.http.get("/orders/paid").await.body["status"], "Confirmed");
}

#[tokio::test]
async fn an_order_whose_timer_was_lost_is_cancelled_all_the_same() {
    let second = Duration::from_secs(1);
    let service = TestService::with_patience(Patience { ours: second * 4, outside: second * 3600 }).await;
    service.place("o-1").await;
    service.harness.handled(order_service::CONSUMER).await;
    let timers = service.harness.jetstream().get_stream("TIMERS").await.unwrap();
    assert_eq!(timers.purge().await.unwrap().purged, 1, "it was set");
    service.becomes("o-1", OrderStatus::Cancelled).await;
    assert_eq!(service.http.get("/orders/o-1").await.body["cancel_reason"], "timed_out");
}

#[tokio::test]
async fn an_order_that_is_decided_leaves_no_timer_behind() {
    let service = TestService::start().await;
    service.confirm("confirmed").await;
    service.place("cancelled").await;
    service.http.post("/orders/cancelled/cancel", &json!({"reason": "no"})).await;
    service.place("waiting").await;
    assert_eq!(service.dead_letters().await, 0);
    let stream = service.harness.jetstream().get_stream("TIMERS").await.unwrap();
    let info = stream.info_with_subjects("timer.set.>").await.unwrap();
    let timers: Vec<_> = info.map_ok(|(subject, _)| subject).try_collect().await.unwrap();
    assert_eq!(timers, ["timer.set.order-service.order.overdue.waiting"]);
}

#[tokio::test]
async fn an_adopted_order_that_is_never_paid_is_cancelled_too() {
    let second = Duration::from_secs(1);
    let service = TestService::with_patience(Patience { ours: second * 3600, outside: second }).await;
    let flat = json!({
        "event_id": "e-1", "event_type": "OrderPlaced", "timestamp": "2024-01-01T00:00:00Z", "version": 1,
        "order_id": "o-1", "customer_id": "c-1", "customer_email": "c@example.com", "total_amount": 5.0,
        "items": [{"product_id": "p", "product_name": "P", "quantity": 1, "price": 5.0}],
    });
    service.harness.publish("order.placed", flat.to_string()).await;
    service.becomes("o-1", OrderStatus::Cancelled).await;
    assert_eq!(service.http.get("/orders/o-1").await.body["cancel_reason"], "timed_out");
}
