//! The services' pages, run by a JavaScript engine against answers in which any field may be absent.

use rquickjs::{Context, Runtime};
use serde_json::{Value, json};

const DOM: &str = include_str!("../../js/dom.js");
const DEAD_LETTERS: &str = include_str!("../../../consumer-dlq/src/page.html");
const DASHBOARD: &str = include_str!("../../../consumer-analytics/src/dashboard.html");

/// What no page may show: JavaScript's words for what is not there.
const NO_WORDS: [&str; 6] = ["undefined", "null", "NaN", "[object", "Invalid Date", "Infinity"];

/// Every text that a page shows after it has drawn these answers, by address.
fn shown(page: &str, hash: &str, answers: &Value) -> Vec<String> {
    let script = page.split_once("<script>").unwrap().1.split_once("</script>").unwrap().0;
    let runtime = Runtime::new().unwrap();
    let context = Context::full(&runtime).unwrap();
    context.with(|js| {
        let globals = format!("globalThis.ANSWERS = {answers}; globalThis.HASH = {};", json!(hash));
        js.eval::<(), _>(globals).unwrap();
        js.eval::<(), _>(DOM).unwrap();
        js.eval::<(), _>(script).unwrap();
    });
    while runtime.execute_pending_job().unwrap() {}
    let texts: String = context.with(|js| js.eval("shownTexts()").unwrap());
    serde_json::from_str(&texts).unwrap()
}

/// The paths to everything inside, as JSON pointers.
fn paths(value: &Value) -> Vec<String> {
    let inside: Vec<(String, &Value)> = match value {
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.replace('/', "~1"), field)).collect()
        }
        Value::Array(items) => items.iter().enumerate().map(|(at, item)| (at.to_string(), item)).collect(),
        _ => Vec::new(),
    };
    let below = |(name, field): (String, &Value)| {
        let deeper = paths(field).into_iter().map(|path| format!("/{name}{path}")).collect::<Vec<_>>();
        [vec![format!("/{name}")], deeper].concat()
    };
    inside.into_iter().flat_map(below).collect()
}

fn without(answers: &Value, path: &str) -> Value {
    let mut answers = answers.clone();
    let (parent, name) = path.rsplit_once('/').unwrap();
    match answers.pointer_mut(parent).unwrap() {
        Value::Object(fields) => drop(fields.remove(&name.replace("~1", "/"))),
        Value::Array(items) => drop(items.remove(name.parse().unwrap())),
        other => panic!("{other}"),
    }
    answers
}

fn with_null(answers: &Value, path: &str) -> Value {
    let mut answers = answers.clone();
    *answers.pointer_mut(path).unwrap() = Value::Null;
    answers
}

/// Draws the answers as they are, and without each of their fields in turn, and with a null in its place.
fn check(page: &str, hash: &str, answers: &Value) {
    let look = |answers: &Value, what: &str| {
        for text in shown(page, hash, answers) {
            let word = NO_WORDS.iter().find(|word| text.contains(**word));
            assert_eq!(word, None, "{what}: {text:?}");
        }
    };
    look(answers, "everything is there");
    // An answer itself is there, or the page says that it is not.
    for path in paths(answers).iter().filter(|path| path.matches('/').count() > 1) {
        look(&without(answers, path), &format!("without {path}"));
        // A message's own null is shown as it is.
        if !path.contains("/payload/json/") {
            look(&with_null(answers, path), &format!("with a null at {path}"));
        }
    }
}

fn letter(payload: &Value) -> Value {
    let time = "2026-01-02T12:00:00Z";
    json!({
        "id": "picky-EVENTS-7", "consumer": "picky", "type": "order.confirmed", "class": "rejected", "status": "open",
        "error": "looking at the order", "attempts": 1, "redrives": 0, "first_failed_at": time,
        "last_failed_at": time, "subject": "order.confirmed.o-1.1", "stream": "EVENTS", "sequence": 7,
        "dlq_sequence": 3, "errors": ["looking at the order", "no"], "service_version": "0.1.0",
        "headers": {"Nats-Msg-Id": ["e-1"]}, "headers_dropped": 2, "payload": payload,
    })
}

#[test]
fn the_page_of_dead_letters_shows_no_word_for_what_is_not_there() {
    let event = json!({"specversion": "1.0", "id": "e-1", "data": {"order_id": "o-1"}});
    let no_data = json!({"specversion": "1.0", "id": "e-1"});
    for payload in [
        json!({"bytes": 70, "json": event, "text": event.to_string(), "base64": "eA=="}),
        json!({"bytes": 40, "json": no_data, "text": no_data.to_string(), "base64": "eA=="}),
        json!({"bytes": 1, "json": 5, "text": "5", "base64": "NQ=="}),
        json!({"bytes": 5, "json": null, "text": "hello", "base64": "aGVsbG8="}),
        json!({"bytes": 1, "json": null, "text": null, "base64": "/w=="}),
    ] {
        let letter = letter(&payload);
        let mut page = json!({"items": [letter], "page": 1, "per_page": 20, "total": 21, "next": "abc"});
        page["items"][0].as_object_mut().unwrap().retain(|name, _| name != "payload" && name != "headers");
        let answers = json!({"/dead-letters?": page, "/dead-letters/": letter});
        let texts = shown(DEAD_LETTERS, "#picky-EVENTS-7", &answers);
        for expected in ["order.confirmed.o-1.1", "picky 0.1.0", "Nats-Msg-Id: e-1"] {
            assert!(texts.iter().any(|text| text.contains(expected)), "{expected}: {texts:?}");
        }
        check(DEAD_LETTERS, "#picky-EVENTS-7", &answers);
    }
}

#[test]
fn an_event_without_data_is_edited_from_nothing() {
    let editor = |payload: Value| {
        let answers =
            json!({"/dead-letters/": letter(&json!({"bytes": 9, "json": payload})), "/dead-letters?": {}});
        let texts = shown(DEAD_LETTERS, "#x", &answers);
        let at = texts.iter().position(|text| text == "New data").unwrap();
        (texts[at - 1].clone(), texts[at + 2].clone())
    };
    let (heading, text) = editor(json!({"specversion": "1.0"}));
    assert_eq!((&*heading, &*text), ("Edit: this event has no data, give it some", ""));
    let (heading, text) = editor(json!({"specversion": "1.0", "data": 7}));
    assert_eq!((&*heading, &*text), ("Edit: new data for this event", "7"));
}

#[test]
fn the_dashboard_shows_no_word_for_what_is_not_there() {
    let counts =
        json!({"total": 3, "succeeded": 2, "failed": 1, "refunds": 0, "voided": 0, "success_rate": 0.6667});
    let money = json!([{"currency": "EUR", "orders": 3, "ordered": 30.0, "average_order_value": 10.0, "paid": 20.0,
                        "refunded": 1.0, "revenue": 19.0}]);
    let sum = json!([{"currency": "EUR", "amount": 12.5}]);
    let times = json!({"count": 2, "average_ms": 10, "p50_ms": 9, "p95_ms": 11, "max_ms": 12,
                       "histogram": [{"up_to_ms": 10, "count": 1}, {"up_to_ms": null, "count": 1}]});
    let page = |item: Value| json!({"items": [item], "page": 1, "per_page": 10, "total": 1});
    let answers = json!({
        "/metrics/summary": {"sequence": 9, "customers": 1, "products": 1, "money": money, "payments": counts,
                             "orders": {"total": 3, "placed": 1, "confirmed": 1, "shipped": 1, "cancelled": 0},
                             "time_to_payment": times},
        "/metrics/days": page(json!({"day": "2026-01-02", "orders": 3, "cancelled": 0, "money": money,
                                     "payments": counts})),
        "/metrics/payments": {"methods": [{"method": "card", "total": 3, "share": 1.0, "success_rate": 0.6667,
                                           "paid": sum}],
                              "failures": [{"reason": "card_declined", "count": 1}], "time_to_payment": times},
        "/metrics/products": page(json!({"product_id": "lamp", "name": "Lamp", "orders": 3, "units_ordered": 4,
                                         "units_sold": 3, "revenue": sum})),
        "/metrics/customers": page(json!({"customer_id": "c-1", "orders": 3, "cancelled": 0, "paid": sum})),
    });
    let texts = shown(DASHBOARD, "", &answers);
    for expected in ["log position 9", "Lamp", "c-1", "card declined", "live"] {
        assert!(texts.iter().any(|text| text.contains(expected)), "{expected}: {texts:?}");
    }
    check(DASHBOARD, "", &answers);
}
