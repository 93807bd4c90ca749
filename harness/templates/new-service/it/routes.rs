//! The routes: what a client writes and reads.

use axum::http::Method;
use serde_json::json;
use {{ plan.library }}::{{ plan.entity }}::MAX_QUANTITY;

use crate::Harness;

#[tokio::test]
async fn what_is_recorded_is_read_back() {
    let service = Harness::start().await;
{%- for event in plan.events %}
    let recorded = service.http.post("/{{ plan.path }}/a-1", json!({"type": "{{ event.variant }}", "quantity": 5})).await;
    assert_eq!((recorded.status.as_u16(), &recorded.body["{{ event.name }}"]), (200, &json!(5)), "{}", recorded.text);
{%- endfor %}
    let expected = json!({"id": "a-1", {% for event in plan.events %}"{{ event.name }}": 5, {% endfor %}"version": {{ plan.events.len() }}});
    assert_eq!(recorded.body, expected);

    let after = format!("min_sequence={}", recorded.header("event-sequence"));
    let shown = service.http.get(&format!("/{{ plan.path }}/a-1?{after}")).await;
    assert_eq!((&shown.body, shown.header("etag")), (&expected, "\"{{ plan.events.len() }}\""));
    let listed = service.http.get("/{{ plan.path }}").await.body;
    assert_eq!((&listed["total"], &listed["items"]), (&json!(1), &json!([expected])));
    let history = service.http.get("/{{ plan.path }}/a-1/events").await.body;
    let types: Vec<_> = history.as_array().unwrap().iter().map(|entry| &entry["type"]).collect();
    assert_eq!(types, [{% for event in plan.events %}"{{ event.rust_type }}"{% if !loop.last %}, {% endif %}{% endfor %}]);
}

#[tokio::test]
async fn a_repeated_request_records_nothing_more() {
    let service = Harness::start().await;
    for _ in 0..2 {
        let (key, body) = ([("idempotency-key", "k-1")], json!({"type": "{{ plan.first().variant }}", "quantity": 5}));
        let answer = service.http.send(Method::POST, "/{{ plan.path }}/a-1", &key, body).await;
        assert_eq!((answer.status.as_u16(), &answer.body["version"]), (200, &json!(1)), "{}", answer.text);
    }
}

#[tokio::test]
async fn nonsense_is_refused_and_records_nothing() {
    let service = Harness::start().await;
    for body in [
        json!({"type": "{{ plan.first().variant }}", "quantity": 0}),
        json!({"type": "{{ plan.first().variant }}", "quantity": MAX_QUANTITY + 1}),
        json!({"type": "{{ plan.first().variant }}", "quantity": -1}),
        json!({"type": "{{ plan.first().variant }}", "quantity": 1, "more": 1}),
        json!({"type": "Unknown", "quantity": 1}),
        json!({"quantity": 1}),
    ] {
        service.http.post("/{{ plan.path }}/a-1", body).await.assert_problem(422, "invalid");
    }
    service.http.get("/{{ plan.path }}/a-1").await.assert_problem(404, "not-found");
    service.http.get("/{{ plan.path }}/a-1/events").await.assert_problem(404, "not-found");
}
