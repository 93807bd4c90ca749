//! The flat documents of the first generation, brought to version 2 of the same events.
//!
//! They had float amounts, no currency ([`Currency::DEFAULT`] is meant, unless the document has a `currency`), and
//! ids of any shape. An id that is not an [`jetkit::EntityId`] is refused, not rewritten: a rewritten id would no
//! longer be the one its producer asks about. The dead letter says which field it was, and can be sent again with
//! its data corrected.

use jetkit::{EntityId, UpcastError};
use serde::Deserialize;
use serde_json::{Number, Value, json};

use crate::money::{Currency, Money};

#[derive(Deserialize)]
struct FlatOrder {
    order_id: String,
    customer_id: String,
    #[serde(default)]
    customer_email: Option<String>,
    items: Vec<FlatItem>,
    total_amount: Number,
    #[serde(default)]
    currency: Currency,
}

#[derive(Deserialize)]
struct FlatItem {
    product_id: String,
    product_name: String,
    quantity: u32,
    price: Number,
}

#[derive(Deserialize)]
struct FlatPayment {
    payment_id: String,
    order_id: String,
    amount: Number,
    payment_method: String,
    status: String,
    #[serde(default)]
    currency: Currency,
}

#[derive(Deserialize)]
struct FlatShipment {
    order_id: String,
    tracking_number: String,
    carrier: String,
}

pub(crate) fn order_placed(data: Value) -> Result<Value, UpcastError> {
    let flat = FlatOrder::deserialize(data).map_err(UpcastError::new)?;
    let currency = flat.currency;
    let items = flat
        .items
        .into_iter()
        .map(|item| {
            Ok(json!({
                "product_id": id("product_id", &item.product_id)?,
                "product_name": item.product_name,
                "quantity": item.quantity,
                "unit_price": money("price", &item.price, currency)?,
            }))
        })
        .collect::<Result<Vec<_>, UpcastError>>()?;
    Ok(json!({
        "order_id": id("order_id", &flat.order_id)?,
        "customer_id": id("customer_id", &flat.customer_id)?,
        "customer_email": flat.customer_email.filter(|email| !email.is_empty()),
        "items": items,
        "total": money("total_amount", &flat.total_amount, currency)?,
        "payment_method": {"type": "external"},
    }))
}

pub(crate) fn payment_processed(data: Value) -> Result<Value, UpcastError> {
    let flat = FlatPayment::deserialize(data).map_err(UpcastError::new)?;
    Ok(json!({
        "payment_id": id("payment_id", &flat.payment_id)?,
        "order_id": id("order_id", &flat.order_id)?,
        "amount": money("amount", &flat.amount, flat.currency)?,
        "payment_method": {"type": "external", "method": flat.payment_method},
        "status": flat.status,
    }))
}

pub(crate) fn order_shipped(data: Value) -> Result<Value, UpcastError> {
    let flat = FlatShipment::deserialize(data).map_err(UpcastError::new)?;
    Ok(json!({
        "order_id": id("order_id", &flat.order_id)?,
        "carrier": flat.carrier,
        "tracking_number": flat.tracking_number,
    }))
}

fn id(field: &str, text: &str) -> Result<EntityId, UpcastError> {
    EntityId::new(text).map_err(|e| UpcastError::new(format_args!("`{field}`: {e}")))
}

/// The shortest text of a float is the one that its producer meant.
fn money(field: &str, number: &Number, currency: Currency) -> Result<Money, UpcastError> {
    Money::from_float_text(&number.to_string(), currency)
        .map_err(|e| UpcastError::new(format_args!("`{field}`: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(price: f64, total: f64) -> Value {
        json!({
            "event_id": "e-1", "event_type": "OrderPlaced", "timestamp": "2024-01-01T00:00:00Z", "version": 1,
            "order_id": "o-1", "customer_id": "c-1", "customer_email": "a@example.com",
            "items": [{"product_id": "p-1", "product_name": "Lamp", "quantity": 3, "price": price}],
            "total_amount": total,
        })
    }

    #[test]
    fn float_noise_does_not_reach_the_log() {
        let order = order_placed(flat(0.1, 0.1 + 0.2)).unwrap();
        assert_eq!(order["total"], json!({"minor": 30, "currency": "USD"}));
        assert_eq!(order["items"][0]["unit_price"], json!({"minor": 10, "currency": "USD"}));
    }

    #[test]
    fn a_refusal_names_the_field() {
        let refusal = |field: &str, value: Value| {
            let mut order = flat(1.0, 3.0);
            order[field] = value;
            order_placed(order).unwrap_err().to_string()
        };
        assert!(refusal("customer_id", json!("jane doe")).contains("`customer_id`"));
        assert!(refusal("total_amount", json!(0.333)).contains("`total_amount`"));
        assert!(refusal("total_amount", json!("much")).contains("number"));
        assert!(refusal("currency", json!("EURO")).contains("ISO 4217"));
    }
}
