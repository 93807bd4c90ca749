//! Producers whose event ids are not unique: every order and payment is followed to its end all the same.

use e2e::RunningShop;
use harness::demo::Shop;
use serde_json::{Value, json};

/// The id of every event of this test.
const THE_SAME: &str = "the-same";

async fn order(shop: &Shop, order_id: &str, quantity: u32) {
    let order = json!({
        "event_id": THE_SAME, "event_type": "OrderPlaced", "timestamp": "2026-01-15T10:30:00Z", "version": 1,
        "order_id": order_id, "customer_id": "c-1", "customer_email": "c@example.com",
        "items": [{"product_id": "lamp", "product_name": "Lamp", "quantity": quantity, "price": 10.0}],
        "total_amount": 10 * quantity,
    });
    shop.publish("order.placed", order.to_string().as_bytes()).await.unwrap();
}

async fn pay(shop: &Shop, payment_id: &str, order_id: &str, status: &str) {
    let payment = json!({
        "event_id": THE_SAME, "event_type": "PaymentProcessed", "timestamp": "2026-01-15T10:31:00Z", "version": 1,
        "payment_id": payment_id, "order_id": order_id, "amount": 10.0, "payment_method": "credit_card",
        "status": status,
    });
    shop.publish("payment.processed", payment.to_string().as_bytes()).await.unwrap();
}

/// Waits until what stands under `path` has that status.
async fn becomes(shop: &Shop, service: &str, path: &str, status: &str) {
    let reached = shop
        .wait_for(async || {
            let found: Option<Value> = shop.find(service, path).await?;
            Ok(found.filter(|found| found["status"] == status).map(drop))
        })
        .await;
    assert!(reached.unwrap().is_some(), "{path} of {service} never became {status}");
}

#[tokio::test]
async fn orders_and_payments_under_one_event_id_are_each_followed_to_their_end() {
    let running = RunningShop::start().await.unwrap();
    let shop = &running.shop;
    let stock = json!({"received": 3});
    let received = shop.post("consumer-inventory", "/stock/lamp/receipts", "lamps", &stock).await;
    received.unwrap().expect(200).unwrap();

    // Two to be confirmed, one whose payment fails, and one for which there is too little.
    for (order_id, quantity) in [("o-1", 1), ("o-2", 1), ("o-3", 1), ("o-4", 9)] {
        order(shop, order_id, quantity).await;
    }
    becomes(shop, "order-service", "/orders/o-4", "Cancelled").await;
    for order_id in ["o-1", "o-2", "o-3"] {
        becomes(shop, "consumer-inventory", &format!("/reservations/{order_id}"), "reserved").await;
    }
    pay(shop, "p-1", "o-1", "SUCCESS").await;
    pay(shop, "p-2", "o-2", "SUCCESS").await;
    pay(shop, "p-3", "o-3", "FAILED").await;
    becomes(shop, "order-service", "/orders/o-1", "Confirmed").await;
    becomes(shop, "order-service", "/orders/o-2", "Confirmed").await;
    becomes(shop, "order-service", "/orders/o-3", "Cancelled").await;
    // One more payment of an order: its money is given back with the first one's.
    pay(shop, "p-11", "o-1", "SUCCESS").await;
    becomes(shop, "payment-service", "/payments/p-11", "SUCCESS").await;
    let cancelled = shop
        .post("order-service", "/orders/o-1/cancel", "cancel", &json!({"reason": "changed my mind"}))
        .await;
    cancelled.unwrap().expect(200).unwrap();
    for payment_id in ["p-1", "p-11"] {
        becomes(shop, "payment-service", &format!("/payments/{payment_id}"), "REFUNDED").await;
    }

    shop.quiet().await.unwrap();
    for (order_id, told) in [
        ("o-1", json!(["order_placed", "order_confirmed", "order_cancelled"])),
        ("o-2", json!(["order_placed", "order_confirmed"])),
        ("o-3", json!(["order_placed", "payment_failed", "order_cancelled"])),
        ("o-4", json!(["order_placed", "order_cancelled"])),
    ] {
        let path = format!("/mails?order_id={order_id}");
        let mails: Vec<Value> = shop.list("consumer-email", &path).await.unwrap();
        assert!(mails.iter().all(|mail| mail["status"] == "sent"), "{mails:?}");
        let mut kinds: Vec<_> = mails.iter().map(|mail| mail["kind"].as_str().unwrap()).collect();
        let mut told: Vec<_> = told.as_array().unwrap().iter().map(|kind| kind.as_str().unwrap()).collect();
        kinds.sort_unstable();
        told.sort_unstable();
        assert_eq!(kinds, told, "{order_id}");
    }
    // What the second payment of one order meets where the order is confirmed, its dead letter says.
    let letters: Vec<Value> = shop.list("consumer-dlq", "/dead-letters").await.unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    running.system.stop().await.unwrap();
}
