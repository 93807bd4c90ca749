//! The saga: what stock and payments report moves an order on, once.

use std::time::Duration;

use common::payment::PaymentOutcome;
use futures::TryStreamExt;
use jetkit::testing::eventually;
use order_service::order::OrderStatus;
use order_service::saga::Patience;
use serde_json::json;

use crate::desk::Desk;

#[tokio::test]
async fn a_paid_order_is_confirmed_once() {
    let desk = Desk::start().await;
    desk.confirm("o-1").await;
    let history = desk.http.get("/orders/o-1/events").await.body;
    assert_eq!(history.as_array().unwrap().len(), 2);
    assert!(history[1]["metadata"]["causationid"].is_string());
    assert_eq!(desk.dead_letters().await, 0);
}

#[tokio::test]
async fn a_failed_payment_cancels_the_order_and_says_why() {
    let desk = Desk::start().await;
    desk.place("o-1").await;
    desk.pay("o-1", "o-1", PaymentOutcome::Failed).await;
    desk.becomes("o-1", OrderStatus::Cancelled).await;
    let order = desk.http.get("/orders/o-1").await.body;
    assert_eq!(order["cancel_reason"], "payment_failed");
    assert_eq!(order["cancel_detail"], "card_declined");
}

#[tokio::test]
async fn missing_stock_cancels_the_order_and_says_what_is_missing() {
    let desk = Desk::start().await;
    desk.place("o-1").await;
    desk.reject("o-1").await;
    desk.becomes("o-1", OrderStatus::Cancelled).await;
    let order = desk.http.get("/orders/o-1").await.body;
    assert_eq!(order["cancel_reason"], "out_of_stock");
    assert_eq!(order["cancel_detail"], "lamp: 1 of 2");
}

#[tokio::test]
async fn a_payment_for_a_cancelled_order_changes_nothing_and_is_no_dead_letter() {
    let desk = Desk::start().await;
    desk.place("o-1").await;
    desk.http.post("/orders/o-1/cancel", &json!({"reason": "no"})).await;
    desk.pay("o-1", "o-1", PaymentOutcome::Success).await;
    assert_eq!(desk.dead_letters().await, 0);
    assert_eq!(desk.http.get("/orders/o-1").await.body["version"], 2);
}

#[tokio::test]
async fn a_second_payment_by_another_name_is_a_dead_letter() {
    let desk = Desk::start().await;
    desk.confirm("o-1").await;
    desk.pay("p-2", "o-1", PaymentOutcome::Success).await;
    assert_eq!(desk.dead_letters().await, 1);
    assert_eq!(desk.http.get("/orders/o-1").await.body["payment_id"], "o-1");
}

#[tokio::test]
async fn a_payment_that_comes_before_its_order_waits_for_it() {
    let desk = Desk::start().await;
    desk.pay("o-1", "o-1", PaymentOutcome::Success).await;
    desk.place("o-1").await;
    desk.becomes("o-1", OrderStatus::Confirmed).await;
    assert_eq!(desk.dead_letters().await, 0);
}

#[tokio::test]
async fn an_order_that_nobody_answers_for_is_cancelled_and_no_other_is() {
    let second = Duration::from_secs(1);
    let desk = Desk::with_patience(Patience { ours: second * 2, outside: second * 3600 }).await;
    desk.place("paid").await;
    desk.pay("paid", "paid", PaymentOutcome::Success).await;
    desk.place("forgotten").await;
    desk.becomes("forgotten", OrderStatus::Cancelled).await;
    assert_eq!(desk.http.get("/orders/forgotten").await.body["cancel_reason"], "timed_out");
    assert_eq!(desk.http.get("/orders/paid").await.body["status"], "Confirmed");
    assert_eq!(desk.dead_letters().await, 0);
}

#[tokio::test]
async fn an_order_whose_timer_was_lost_is_cancelled_all_the_same() {
    let second = Duration::from_secs(1);
    let desk = Desk::with_patience(Patience { ours: second * 4, outside: second * 3600 }).await;
    desk.place("o-1").await;
    let js = async_nats::jetstream::new(desk.client.clone());
    let timers = js.get_stream("TIMERS").await.unwrap();
    let is_set = async || {
        let set =
            timers.info_with_subjects("timer.set.>").await.unwrap().try_collect::<Vec<_>>().await.unwrap();
        (!set.is_empty()).then_some(())
    };
    eventually(Duration::from_secs(20), is_set).await;
    timers.purge().await.unwrap();
    let cancelled = async || {
        let order = desk.http.get("/orders/o-1").await.body;
        (order["cancel_reason"] == "timed_out").then_some(())
    };
    eventually(Duration::from_mins(1), cancelled).await;
}

#[tokio::test]
async fn an_order_that_is_decided_leaves_no_timer_behind() {
    let desk = Desk::start().await;
    desk.confirm("confirmed").await;
    desk.place("cancelled").await;
    desk.http.post("/orders/cancelled/cancel", &json!({"reason": "no"})).await;
    desk.place("waiting").await;
    let timers = async || {
        let stream = async_nats::jetstream::new(desk.client.clone()).get_stream("TIMERS").await.unwrap();
        let info = stream.info_with_subjects("timer.set.>").await.unwrap();
        info.map_ok(|(subject, _)| subject).try_collect::<Vec<_>>().await.unwrap()
    };
    let only_that = ["timer.set.order-service.order.overdue.waiting"];
    eventually(Duration::from_secs(20), async || (timers().await == only_that).then_some(())).await;
}

#[tokio::test]
async fn an_adopted_order_that_is_never_paid_is_cancelled_too() {
    let second = Duration::from_secs(1);
    let desk = Desk::with_patience(Patience { ours: second * 3600, outside: second }).await;
    let flat = json!({
        "event_id": "e-1", "event_type": "OrderPlaced", "timestamp": "2024-01-01T00:00:00Z", "version": 1,
        "order_id": "o-1", "customer_id": "c-1", "customer_email": "c@example.com", "total_amount": 5.0,
        "items": [{"product_id": "p", "product_name": "P", "quantity": 1, "price": 5.0}],
    });
    desk.client.publish("order.placed", flat.to_string().into()).await.unwrap();
    desk.becomes("o-1", OrderStatus::Cancelled).await;
    assert_eq!(desk.http.get("/orders/o-1").await.body["cancel_reason"], "timed_out");
}
