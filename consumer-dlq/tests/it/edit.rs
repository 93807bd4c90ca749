//! New data for an event that failed.

use consumer_dlq::edit::{EditError, with_data};
use serde_json::value::RawValue;
use serde_json::{Value, json};

fn confirmed(data: &Value) -> Value {
    json!({
        "specversion": "1.0", "id": "e-1", "source": "/x", "type": "order.confirmed", "subject": "o-1",
        "time": "2026-01-02T12:00:00Z", "dataversion": 1, "data": data, "extra": 1.10,
    })
}

fn edit(payload: &str, data: &str) -> Result<Value, EditError> {
    let data = RawValue::from_string(data.to_owned()).unwrap();
    with_data(payload.as_bytes(), &data, &common::catalog())
        .map(|edited| serde_json::from_slice(&edited).unwrap())
}

#[test]
fn only_the_data_changes() {
    let broken = confirmed(&json!({"order_id": "o 1"}));
    let edited = edit(&broken.to_string(), r#"{"order_id":"o-1","payment_id":"p-1"}"#).unwrap();
    assert_eq!(edited, confirmed(&json!({"order_id": "o-1", "payment_id": "p-1"})));
}

#[test]
fn what_would_fail_again_is_refused() {
    let broken = confirmed(&json!({})).to_string();
    assert!(matches!(edit(&broken, "{}"), Err(EditError::StillUndecodable(_))));
    assert!(matches!(edit(&broken, "3"), Err(EditError::StillUndecodable(_))));
    assert!(matches!(edit("no event at all", "{}"), Err(EditError::StillUndecodable(_))));
    let unknown = confirmed(&json!({})).to_string().replace("order.confirmed", "order.dreamt");
    assert!(matches!(edit(&unknown, "{}"), Err(EditError::UnknownType(_))));
}

#[test]
fn what_was_no_event_is_replaced_as_a_whole() {
    let mended = confirmed(&json!({"order_id": "o-1", "payment_id": "p-1"}));
    assert_eq!(edit("garbage \u{1}", &mended.to_string()).unwrap(), mended);
}
