//! The routes of orders.

use axum::http::Method;
use order_service::order::OrderStatus;
use serde_json::{Value, json};

use crate::test_service::{TestService, order};

#[tokio::test]
async fn an_order_is_placed_and_read_back() {
    let service = TestService::start().await;
    let placed = service.http.post("/orders", &order()).await;
    assert_eq!(placed.status, 201);
    let id = placed.body["id"].as_str().unwrap();
    assert_eq!(placed.header("location"), format!("/orders/{id}"));
    assert_eq!(placed.header("etag"), "\"1\"");
    assert!(placed.header("event-sequence").parse::<u64>().unwrap() > 0);
    assert_eq!(
        placed.body,
        json!({
            "id": id, "order_id": id, "status": "Placed", "version": 1,
            "customer_id": "guest-1", "customer_email": "guest@example.com",
            "items": [{"product_id": "lamp", "product_name": "Lamp", "quantity": 2, "price": 19.99}],
            "total": 39.98, "currency": "USD", "payment_method": {"type": "account", "account_id": "acc"},
        })
    );
    assert_eq!(service.http.get(&format!("/orders/{id}")).await.body, placed.body);
}

#[tokio::test]
async fn the_same_order_twice_is_one_order_with_one_answer() {
    let service = TestService::start().await;
    let mut body = order();
    body["order_id"] = "o-1".into();
    let first = service.http.post("/orders", &body).await;
    let again = service.http.post("/orders", &body).await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(first.header("etag"), again.header("etag"));
    assert_eq!(service.http.get("/orders/o-1/events").await.body.as_array().unwrap().len(), 1);

    // The answer stays the first one, also when the order has moved on.
    service.http.post("/orders/o-1/cancel", &json!({"reason": "changed my mind"})).await;
    let later = service.http.post("/orders", &body).await;
    assert_eq!((later.status.as_u16(), &later.body), (201, &first.body));

    body["items"][0]["quantity"] = 3.into();
    service.http.post("/orders", &body).await.assert_problem(409, "order-exists");
}

#[tokio::test]
async fn a_repeated_key_places_one_order_and_is_no_key_to_another() {
    let service = TestService::start().await;
    let key = [("idempotency-key", "cart-7")];
    let first = service.http.send(Method::POST, "/orders", &key, &order()).await;
    let again = service.http.send(Method::POST, "/orders", &key, &order()).await;
    assert_eq!(first.body, again.body);
    for (field, value) in [("customer_id", json!("guest-2")), ("currency", json!("EUR"))] {
        let mut other = order();
        other[field] = value;
        service
            .http
            .send(Method::POST, "/orders", &key, &other)
            .await
            .assert_problem(422, "idempotency-key-reused");
    }
    let sequence = first.header("event-sequence");
    assert_eq!(service.http.get(&format!("/orders?min_sequence={sequence}")).await.body["total"], 1);
}

#[tokio::test]
async fn concurrent_requests_for_one_order_place_it_once() {
    let service = TestService::start().await;
    let mut body = order();
    body["order_id"] = "o-1".into();
    let answers = futures::future::join_all((0..20).map(|_| service.http.post("/orders", &body))).await;
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.body == answers[0].body));
    assert_eq!(service.http.get("/orders/o-1/events").await.body.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_order_that_makes_no_sense_is_refused_and_stored_nowhere() {
    let service = TestService::start().await;
    let with = |path: &str, value: Value| {
        let mut body = order();
        *body.pointer_mut(path).unwrap() = value;
        body
    };
    let item = order()["items"][0].clone();
    for (body, why) in [
        (with("/items", json!([])), "no items"),
        (with("/items", Value::Array(vec![item; 101])), "too many items"),
        (with("/items/0/quantity", json!(0)), "quantity 0"),
        (with("/items/0/quantity", json!(10_001)), "a huge quantity"),
        (with("/items/0/quantity", json!(-1)), "a negative quantity"),
        (with("/items/0/quantity", json!(1.5)), "half a lamp"),
        (with("/items/0/price", json!(0)), "price 0"),
        (with("/items/0/price", json!(-1)), "a negative price"),
        (with("/items/0/price", json!(0.001)), "a tenth of a cent"),
        (with("/items/0/price", json!("much")), "a price in words"),
        (with("/items/0/price", json!(1_000_000_000_000_u64)), "a total out of bounds"),
        (with("/items/0/product_id", json!("a.b")), "a product id with a dot"),
        (with("/items/0/product_name", json!("")), "no product name"),
        (with("/customer_email", json!("nobody")), "no address"),
        (with("/customer_email", json!("a@example.com\r\nBcc: b@example.com")), "two header lines"),
        (with("/customer_id", json!("")), "no customer"),
        (with("/payment_method", json!({"type": "cash"})), "an unknown payment method"),
        (with("/payment_method", json!({"type": "external"})), "a payment method for other producers only"),
        (with("/payment_method", json!({"type": "card"})), "no token"),
        (with("/payment_method", json!({"type": "card", "token": ""})), "an empty token"),
        (with("/items/0", json!(["lamp", "Lamp", 2, 19.99])), "an item as a list"),
        (with("/payment_method", json!(["account", "acc"])), "a payment method as a list"),
        (json!({}), "nothing"),
        (json!([]), "a list"),
    ] {
        let refused = service.http.post("/orders", &body).await;
        assert!(refused.status.is_client_error(), "{why} was answered {}", refused.status);
        assert_eq!(refused.header("content-type"), "application/problem+json", "{why}");
    }
    for (field, value) in [("coupon", json!(1)), ("currency", json!("EURO")), ("order_id", json!("a b"))] {
        let mut body = order();
        body[field] = value;
        assert!(service.http.post("/orders", &body).await.status.is_client_error(), "{field} was taken");
    }
    assert_eq!(service.http.get("/orders").await.body["total"], 0);
}

#[tokio::test]
async fn who_may_order_is_known_before_the_order_is_stored() {
    let service = TestService::start().await;
    let user = service.http.post("/users", &json!({"username": "alice", "email": "alice@example.com"})).await;
    let user = user.body["id"].as_str().unwrap();
    let mut body = order();
    body["customer_id"] = user.into();
    body.as_object_mut().unwrap().remove("customer_email");
    assert_eq!(service.http.post("/orders", &body).await.body["customer_email"], "alice@example.com");

    body["order_id"] = "o-1".into();
    let placed = service.http.post("/orders", &body).await;
    service.http.post(&format!("/users/{user}/status"), &json!({"status": "Suspended"})).await;
    assert_eq!(service.http.post("/orders", &body).await.body, placed.body, "a repeat answers the same");
    body["order_id"] = "o-2".into();
    service.http.post("/orders", &body).await.assert_problem(422, "customer-not-active");
    service.http.get("/orders/o-2").await.assert_problem(404, "not-found");

    body["customer_id"] = "stranger".into();
    service.http.post("/orders", &body).await.assert_problem(422, "unknown-customer");
    body["customer_email"] = "stranger@example.com".into();
    assert_eq!(service.http.post("/orders", &body).await.status, 201);
}

#[tokio::test]
async fn a_cards_token_is_not_shown() {
    let service = TestService::start().await;
    let mut body = order();
    body["order_id"] = "o-1".into();
    body["payment_method"] = json!({"type": "card", "token": "tok_secret"});
    let placed = service.http.post("/orders", &body).await;
    assert_eq!(placed.body["payment_method"], json!({"type": "card"}));
    let history = service.http.get("/orders/o-1/events").await.body;
    assert!(!history.to_string().contains("tok_secret"));
}

#[tokio::test]
async fn only_a_confirmed_order_is_shipped() {
    let service = TestService::start().await;
    let parcel = json!({"carrier": "DHL", "tracking_number": "T-1"});
    service.http.post("/orders/o-1/ship", &parcel).await.assert_problem(404, "not-found");
    service.place("o-1").await;
    service.http.post("/orders/o-1/ship", &parcel).await.assert_problem(409, "order-not-confirmed");
    service.confirm("o-2").await;
    for bad in [json!({"carrier": "DHL"}), json!({"carrier": "", "tracking_number": "T"}), json!({})] {
        assert!(service.http.post("/orders/o-2/ship", &bad).await.status.is_client_error(), "{bad}");
    }
    let shipped = service.http.post("/orders/o-2/ship", &parcel).await;
    assert_eq!((shipped.status.as_u16(), &shipped.body["status"]), (200, &json!("Shipped")));
    assert_eq!((&shipped.body["carrier"], &shipped.body["tracking_number"]), (&json!("DHL"), &json!("T-1")));
    assert_eq!(service.http.post("/orders/o-2/ship", &parcel).await.body, shipped.body);
    let other = json!({"carrier": "UPS", "tracking_number": "T-2"});
    service.http.post("/orders/o-2/ship", &other).await.assert_problem(409, "order-already-shipped");
    let reason = json!({"reason": "too late"});
    service.http.post("/orders/o-2/cancel", &reason).await.assert_problem(409, "order-already-shipped");
}

#[tokio::test]
async fn an_order_is_cancelled_with_the_customers_words() {
    let service = TestService::start().await;
    let reason = json!({"reason": "found it cheaper"});
    service.http.post("/orders/o-1/cancel", &reason).await.assert_problem(404, "not-found");
    service.place("o-1").await;
    assert!(service.http.post("/orders/o-1/cancel", &json!({"reason": ""})).await.status.is_client_error());
    let cancelled = service.http.post("/orders/o-1/cancel", &reason).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.body["status"]), (200, &json!("Cancelled")));
    assert_eq!(cancelled.body["cancel_reason"], "requested");
    assert_eq!(cancelled.body["cancel_detail"], "found it cheaper");
    assert_eq!(service.http.post("/orders/o-1/cancel", &reason).await.body, cancelled.body);
    let parcel = json!({"carrier": "DHL", "tracking_number": "T-1"});
    service.http.post("/orders/o-1/ship", &parcel).await.assert_problem(409, "order-cancelled");
}

#[tokio::test]
async fn a_write_may_insist_on_a_version() {
    let service = TestService::start().await;
    service.place("o-1").await;
    let reason = json!({"reason": "no"});
    let cancel = |tag| service.http.send(Method::POST, "/orders/o-1/cancel", tag, &reason);
    cancel(&[("if-match", "\"2\"")]).await.assert_problem(412, "version-mismatch");
    cancel(&[("if-match", "2")]).await.assert_problem(400, "bad-request");
    cancel(&[("if-match", "W/\"1\"")]).await.assert_problem(412, "version-mismatch");
    cancel(&[("if-match", "\"2\", \"3\"")]).await.assert_problem(412, "version-mismatch");
    let absent = service.http.send(Method::POST, "/orders/o-2/cancel", &[("if-match", "*")], &reason).await;
    absent.assert_problem(412, "version-mismatch");
    service.place("o-3").await;
    let listed = [("if-match", "\"7\", W/\"1\""), ("if-match", "\"1\"")];
    assert_eq!(service.http.send(Method::POST, "/orders/o-3/cancel", &listed, &reason).await.status, 200);
    service.place("o-4").await;
    let any = [("if-match", "*")];
    assert_eq!(service.http.send(Method::POST, "/orders/o-4/cancel", &any, &reason).await.status, 200);
    assert_eq!(cancel(&[("if-match", "\"1\"")]).await.status, 200);
}

#[tokio::test]
async fn orders_are_listed_by_customer_and_status() {
    let service = TestService::start().await;
    for (order_id, customer) in [("o-1", "c-1"), ("o-2", "c-2"), ("o-3", "c-1")] {
        let mut body = order();
        (body["order_id"], body["customer_id"]) = (order_id.into(), customer.into());
        service.http.post("/orders", &body).await;
    }
    let last = service.http.post("/orders/o-3/cancel", &json!({"reason": "no"})).await;
    let sequence = last.header("event-sequence");
    let list = async |query: &str| {
        let list = service.http.get(&format!("/orders?min_sequence={sequence}&{query}")).await.body;
        let items = list["items"].as_array().unwrap().iter();
        let ids: Vec<String> = items.map(|order| order["id"].as_str().unwrap().to_owned()).collect();
        (list["total"].as_u64().unwrap(), ids.join(" "))
    };
    assert_eq!(list("").await, (3, "o-1 o-2 o-3".to_owned()));
    assert_eq!(list("customer_id=c-1").await, (2, "o-1 o-3".to_owned()));
    assert_eq!(list("customer_id=c-1&status=Placed").await, (1, "o-1".to_owned()));
    assert_eq!(list("status=Cancelled").await, (1, "o-3".to_owned()));
    assert_eq!(list("page=2&per_page=2").await, (3, "o-3".to_owned()));
    assert_eq!(list("customer_id=nobody").await, (0, String::new()));
    for bad in ["status=Lost", "page=0", "per_page=101", "customer_id=a.b", "min_sequence=x"] {
        assert!(service.http.get(&format!("/orders?{bad}")).await.status.is_client_error(), "{bad}");
    }
}

#[tokio::test]
async fn a_history_tells_what_happened_and_when() {
    let service = TestService::start().await;
    service.http.get("/orders/o-1/events").await.assert_problem(404, "not-found");
    service.confirm("o-1").await;
    service.http.post("/orders/o-1/ship", &json!({"carrier": "DHL", "tracking_number": "T-1"})).await;
    service.becomes("o-1", OrderStatus::Shipped).await;
    let history = service.http.get("/orders/o-1/events").await.body;
    let types: Vec<&str> = history.as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["OrderPlaced", "OrderConfirmed", "OrderShipped"]);
    assert_eq!(history[0]["total"], json!(39.98));
    assert_eq!(history[1]["payment_id"], "o-1");
    assert_eq!(history[2]["metadata"]["version"], 3);
    assert_eq!(history[0]["metadata"]["type"], "order.placed");
    assert_eq!(history[0]["metadata"]["userid"], "guest-1");
}
