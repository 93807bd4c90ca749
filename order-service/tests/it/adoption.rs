//! Orders and shipments of other producers, in both wire forms.

use common::payment::PaymentOutcome;
use jetkit::testing::{SOON, eventually, id};
use order_service::order::OrderStatus;
use serde_json::{Value, json};

use crate::test_service::TestService;

fn flat(order_id: &str) -> Value {
    json!({
        "event_id": format!("e-{order_id}"), "event_type": "OrderPlaced", "timestamp": "2024-01-15T10:30:00Z",
        "version": 1, "order_id": order_id, "customer_id": "c-1", "customer_email": "c@example.com",
        "items": [{"product_id": "lamp", "product_name": "Lamp", "quantity": 2, "price": 19.99}],
        "total_amount": 39.98,
    })
}

fn flat_shipment(order_id: &str, tracking_number: &str) -> Value {
    json!({
        "event_id": format!("s-{tracking_number}"), "event_type": "OrderShipped",
        "timestamp": "2024-01-16T10:30:00Z", "version": 1, "order_id": order_id,
        "tracking_number": tracking_number, "carrier": "UPS",
    })
}

#[tokio::test]
async fn a_first_generation_order_is_taken_over_once_under_its_own_id_and_time() {
    let service = TestService::start().await;
    service.harness.publish("order.placed", flat("o-1").to_string()).await;
    service.harness.publish("order.placed.o-1", flat("o-1").to_string()).await;
    service.becomes("o-1", OrderStatus::Placed).await;
    assert_eq!(service.dead_letters().await, 0);
    let history = service.orders.history(&id("o-1")).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].meta.id.as_str(), "e-o-1");
    assert_eq!(history[0].meta.time.to_rfc3339(), "2024-01-15T10:30:00+00:00");
    let shown = service.http.get("/orders/o-1").await.body;
    assert_eq!((&shown["total"], &shown["payment_method"]), (&json!(39.98), &json!({"type": "external"})));
}

#[tokio::test]
async fn a_cloudevents_order_from_outside_is_never_charged_here() {
    let service = TestService::start().await;
    let price = json!({"minor": 3998, "currency": "USD"});
    let event = json!({
        "specversion": "1.0", "id": "ce-1", "source": "/elsewhere", "type": "order.placed", "subject": "o-1",
        "time": "2024-01-15T10:30:00Z",
        "data": {
            "order_id": "o-1", "customer_id": "c-1", "total": price,
            "items": [{"product_id": "lamp", "product_name": "Lamp", "quantity": 1, "unit_price": price}],
            "payment_method": {"type": "account", "account_id": "somebody-elses"},
        },
    });
    service.harness.publish("order.placed", event.to_string()).await;
    service.becomes("o-1", OrderStatus::Placed).await;
    assert_eq!(service.http.get("/orders/o-1").await.body["payment_method"], json!({"type": "external"}));
}

#[tokio::test]
async fn an_order_from_outside_does_not_replace_another() {
    let service = TestService::start().await;
    service.place("o-1").await;
    service.harness.publish("order.placed", flat("o-1").to_string()).await;
    assert_eq!(service.dead_letters().await, 1);
    assert_eq!(service.http.get("/orders/o-1").await.body["customer_id"], "guest-1");
}

#[tokio::test]
async fn two_orders_under_one_event_id_are_both_taken_over_and_moved_on() {
    let service = TestService::start().await;
    for order_id in ["o-1", "o-2"] {
        let mut order = flat(order_id);
        order["event_id"] = json!("the-same");
        service.harness.publish("order.placed", order.to_string()).await;
        service.becomes(order_id, OrderStatus::Placed).await;
    }
    let timers = service.harness.jetstream().get_stream("TIMERS").await.unwrap();
    eventually(SOON, async || {
        // The saga has set one for each: to a consumer, too, they are two.
        (timers.get_info().await.unwrap().state.subjects_count == 2).then_some(())
    })
    .await;
    assert_eq!(service.dead_letters().await, 0);
}

#[tokio::test]
async fn orders_of_one_event_id_are_each_taken_over_or_a_dead_letter() {
    let service = TestService::start().await;
    let order = |source: &str, order_id: &str, customer: &str| {
        let price = json!({"minor": 3998, "currency": "USD"});
        json!({
            "specversion": "1.0", "id": "the-same", "source": source, "type": "order.placed", "subject": order_id,
            "time": "2024-01-15T10:30:00Z", "causationid": "0190a5c0-7d1c-7c2e-94f1-7c0b9a570f35",
            "data": {
                "order_id": order_id, "customer_id": customer, "total": price,
                "items": [{"product_id": "lamp", "product_name": "Lamp", "quantity": 1, "unit_price": price}],
                "payment_method": {"type": "external"},
            },
        })
    };
    // Two producers, two orders each; then the same once more, by the other subject.
    for (source, order_id) in [("/one", "o-1"), ("/one", "o-2"), ("/two", "o-3"), ("/two", "o-4")] {
        service.harness.publish("order.placed", order(source, order_id, "c-1").to_string()).await;
        service.becomes(order_id, OrderStatus::Placed).await;
        service
            .harness
            .publish(format!("order.placed.{order_id}"), order(source, order_id, "c-1").to_string())
            .await;
        // Who tells of the same order by another name has told nothing new.
        service.harness.publish("order.placed", order("/three", order_id, "c-1").to_string()).await;
        let history = service.orders.history(&id(order_id)).await.unwrap();
        assert_eq!((history[0].meta.id.as_str(), &*history[0].meta.source), ("the-same", source));
    }
    assert_eq!(service.dead_letters().await, 0);
    // Another order under the id of one that there is: by its own producer, and by another one.
    for (letters, source) in [(1, "/one"), (2, "/two")] {
        service.harness.publish("order.placed", order(source, "o-1", "c-2").to_string()).await;
        assert_eq!(service.dead_letters().await, letters);
    }
    for order_id in ["o-1", "o-2", "o-3", "o-4"] {
        assert_eq!(service.orders.history(&id(order_id)).await.unwrap().len(), 1);
        assert_eq!(service.http.get(&format!("/orders/{order_id}")).await.body["customer_id"], "c-1");
    }
}

#[tokio::test]
async fn an_order_and_its_shipment_under_one_event_id_are_both_recorded() {
    let service = TestService::start().await;
    let (mut order, mut shipment) = (flat("o-1"), flat_shipment("o-1", "T-1"));
    (order["event_id"], shipment["event_id"]) = (json!("the-same"), json!("the-same"));
    service.harness.publish("order.placed", order.to_string()).await;
    service.becomes("o-1", OrderStatus::Placed).await;
    service.pay("p-1", "o-1", PaymentOutcome::Success).await;
    service.becomes("o-1", OrderStatus::Confirmed).await;
    service.harness.publish("order.shipped", shipment.to_string()).await;
    service.becomes("o-1", OrderStatus::Shipped).await;
    assert_eq!(service.dead_letters().await, 0);
}

#[tokio::test]
async fn an_order_that_makes_no_sense_is_a_dead_letter() {
    let service = TestService::start().await;
    let mut empty = flat("o-1");
    empty["items"] = json!([]);
    let mut misnamed = flat("o-2");
    misnamed["customer_id"] = json!("jane@example.com");
    service.harness.publish("order.placed", empty.to_string()).await;
    service.harness.publish("order.placed", misnamed.to_string()).await;
    service.harness.publish("order.placed", json!("hello").to_string()).await;
    assert_eq!(service.dead_letters().await, 3);
    service.http.get("/orders/o-1").await.assert_problem(404, "not-found");
}

#[tokio::test]
async fn a_shipment_from_outside_waits_until_its_order_is_confirmed() {
    let service = TestService::start().await;
    service.harness.publish("order.shipped", flat_shipment("o-1", "T-1").to_string()).await;
    service.harness.publish("order.placed", flat("o-1").to_string()).await;
    service.becomes("o-1", OrderStatus::Placed).await;
    service.pay("p-1", "o-1", PaymentOutcome::Success).await;
    service.becomes("o-1", OrderStatus::Shipped).await;
    assert_eq!(service.dead_letters().await, 0);
    assert_eq!(service.http.get("/orders/o-1").await.body["tracking_number"], "T-1");
}

#[tokio::test]
async fn a_cancelled_order_is_not_shipped_from_outside() {
    let service = TestService::start().await;
    service.confirm("o-1").await;
    service.http.post("/orders/o-1/cancel", &json!({"reason": "no"})).await;
    service.harness.publish("order.shipped.o-1", flat_shipment("o-1", "T-1").to_string()).await;
    assert_eq!(service.dead_letters().await, 1);
    assert_eq!(service.http.get("/orders/o-1").await.body["status"], "Cancelled");
}
