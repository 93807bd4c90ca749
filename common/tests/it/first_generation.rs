//! What the flat documents of the first generation mean today.

use common::money::{Currency, Money};
use common::order::{OrderItem, OrderPlaced, OrderShipped, PaymentMethod};
use common::payment::{PaymentMethodKind, PaymentOutcome, PaymentProcessed};
use jetkit::{EntityId, Envelope, Event};
use serde_json::{Value, json};

fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD).unwrap()
}

fn decode<E: Event>(body: &[u8]) -> E {
    Envelope::decode(body).unwrap().event().unwrap()
}

fn order() -> Value {
    serde_json::from_slice(include_bytes!("../golden/order.placed.v1.json")).unwrap()
}

fn refusal(order: &Value) -> String {
    let body = serde_json::to_vec(order).unwrap();
    Envelope::decode(&body).unwrap().event::<OrderPlaced>().unwrap_err().to_string()
}

#[test]
fn a_flat_order_is_an_order_paid_outside() {
    let item = |product: &str, name: &str, quantity, price| OrderItem {
        product_id: id(product),
        product_name: name.to_owned(),
        quantity,
        unit_price: usd(price),
    };
    assert_eq!(
        decode::<OrderPlaced>(include_bytes!("../golden/order.placed.v1.json")),
        OrderPlaced {
            order_id: id("order-123"),
            customer_id: id("customer-456"),
            customer_email: Some("customer@example.com".to_owned()),
            items: vec![item("prod-789", "Widget", 2, 5000), item("prod-790", "Gadget", 3, 10)],
            total: usd(10030),
            payment_method: PaymentMethod::External {},
        }
    );
}

#[test]
fn a_flat_payment_keeps_its_producers_word_for_the_method() {
    assert_eq!(
        decode::<PaymentProcessed>(include_bytes!("../golden/payment.processed.v1.json")),
        PaymentProcessed {
            payment_id: id("pay-123"),
            order_id: id("order-123"),
            amount: usd(10030),
            payment_method: PaymentMethodKind::External { method: "credit_card".to_owned() },
            status: PaymentOutcome::Success,
            failure: None,
            reference: None,
        }
    );
}

#[test]
fn a_flat_shipment_is_a_shipment() {
    assert_eq!(
        decode::<OrderShipped>(include_bytes!("../golden/order.shipped.v1.json")),
        OrderShipped {
            order_id: id("order-123"),
            carrier: "UPS".to_owned(),
            tracking_number: "TRACK123".to_owned()
        }
    );
}

#[test]
fn an_order_without_an_address_is_taken() {
    for absent in [json!(null), json!("")] {
        let mut order = order();
        order["customer_email"] = absent;
        let body = serde_json::to_vec(&order).unwrap();
        assert_eq!(decode::<OrderPlaced>(&body).customer_email, None);
    }
}

#[test]
fn an_id_that_is_no_subject_token_is_refused_by_name() {
    for field in ["order_id", "customer_id"] {
        let mut order = order();
        order[field] = json!("jane@example.com");
        assert!(refusal(&order).contains(&format!("`{field}`: \"jane@example.com\" is not an identifier")));
    }
}

#[test]
fn a_flat_order_with_nonsense_in_it_is_refused() {
    for (field, value) in [
        ("items", json!("lamp")),
        ("items", json!([{"product_id": "p"}])),
        ("items", json!([{"product_id": "p", "product_name": "n", "quantity": -1, "price": 1.0}])),
        ("items", json!([{"product_id": "p", "product_name": "n", "quantity": 1, "price": "1.0"}])),
        ("total_amount", json!(null)),
        ("total_amount", json!(1e300)),
        ("order_id", json!(123)),
    ] {
        let mut order = order();
        order[field] = value;
        refusal(&order);
    }
}

#[test]
fn an_unknown_payment_status_is_refused() {
    let mut payment: Value =
        serde_json::from_slice(include_bytes!("../golden/payment.processed.v1.json")).unwrap();
    payment["status"] = json!("PENDING");
    let body = serde_json::to_vec(&payment).unwrap();
    assert!(Envelope::decode(&body).unwrap().event::<PaymentProcessed>().is_err());
}
