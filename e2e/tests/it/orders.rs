//! Nothing goes wrong.

use std::collections::HashSet;

use e2e::RunningShop;
use futures::StreamExt;
use harness::demo::{Progress, Traffic};
use serde_json::json;

#[tokio::test]
async fn orders_on_every_path_add_up() {
    let running = RunningShop::start().await.unwrap();
    let traffic = Traffic::drive(&running.shop, 40, 8, &Progress::silent()).await.unwrap();
    running.audited(traffic).await.unwrap();
}

#[tokio::test]
async fn everything_that_an_order_leads_to_is_part_of_its_trace() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let running = RunningShop::start().await.unwrap();
    let shop = &running.shop;
    let stocked = shop
        .post("consumer-inventory", "/stock/lamp/receipts", "stock", &json!({ "received": 1 }))
        .await
        .unwrap();
    stocked.expect(200).unwrap();
    let mut stored = shop.nats().subscribe("*.*.*.*").await.unwrap();
    shop.nats().flush().await.unwrap();
    let order = json!({
        "order_id": "o-1", "customer_id": "guest-1", "customer_email": "guest@example.com",
        "items": [{ "product_id": "lamp", "product_name": "Lamp", "quantity": 1, "price": 19.99 }],
        "payment_method": { "type": "card", "token": "tok_visa" },
    });
    let request = reqwest::Client::new().post(running.system.url("order-service").unwrap() + "/orders");
    let traced = request.header("traceparent", TRACE).header("tracestate", "shop=1").json(&order);
    assert_eq!(traced.send().await.unwrap().status(), 201);

    let mut missing = HashSet::from([
        "order.placed",
        "stock.reserved",
        "payment.processed",
        "order.confirmed",
        "mail.sent",
    ]);
    while !missing.is_empty() {
        let message = tokio::time::timeout(shop.patience(), stored.next()).await.unwrap().unwrap();
        // The server tells of each question about a stream on four tokens too.
        if message.subject.starts_with('$') {
            continue;
        }
        let headers = message.headers.unwrap_or_default();
        let header = |name| headers.get(name).map(ToString::to_string).unwrap_or_default();
        let trace = (header("traceparent"), header("tracestate"));
        // What is due or acknowledged has other subjects; everything on the log has these four tokens.
        assert_eq!((&*trace.0, &*trace.1), (TRACE, "shop=1"), "{}", message.subject);
        missing.retain(|event_type| !message.subject.starts_with(event_type));
    }
    running.system.stop().await.unwrap();
}
