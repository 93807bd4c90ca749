//! The routes: accounts and payments.

use axum::body::Body;
use axum::http::{Method, Request};
use jetkit::Handler;
use serde_json::{Value, json};

use crate::test_service::{TestService, account};

const OPEN: &str = r#"{"type":"OpenAccount","owner":"Alice","initial_balance":1000.0}"#;

#[tokio::test]
async fn an_account_is_opened_filled_and_drawn_from() {
    let service = TestService::start().await;
    let opened = service.http.post("/accounts/acc-001", OPEN).await;
    assert_eq!(opened.status, 201);
    assert_eq!(opened.headers["etag"], "\"1\"");
    assert_eq!(
        service.http.post("/accounts/acc-001", r#"{"type":"Deposit","amount":500.0}"#).await.status,
        200
    );
    let withdrawn = service.http.post("/accounts/acc-001", r#"{"type":"Withdraw","amount":200.0}"#).await;
    assert_eq!((withdrawn.status.as_u16(), &withdrawn.headers["etag"]), (200, &"\"3\"".parse().unwrap()));

    let shown = service.http.get("/accounts/acc-001").await.body;
    assert_eq!(
        shown,
        json!({"id": "acc-001", "owner": "Alice", "balance": 1300.0, "currency": "USD", "version": 3})
    );
    assert_eq!(shown, withdrawn.body);

    let history = service.http.get("/accounts/acc-001/events").await.body;
    let without_metadata: Vec<Value> = history
        .as_array()
        .unwrap()
        .iter()
        .cloned()
        .map(|mut entry| {
            let metadata = entry.as_object_mut().unwrap().remove("metadata").unwrap();
            assert!(
                metadata["version"].is_u64() && metadata["sequence"].is_u64() && metadata["id"].is_string()
            );
            entry
        })
        .collect();
    assert_eq!(
        without_metadata,
        [
            json!({"type": "AccountOpened", "owner": "Alice", "initial_balance": 1000.0, "currency": "USD"}),
            json!({"type": "MoneyDeposited", "amount": 500.0, "currency": "USD"}),
            json!({"type": "MoneyWithdrawn", "amount": 200.0, "currency": "USD"}),
        ]
    );
}

#[tokio::test]
async fn what_the_rules_refuse_is_a_problem_and_writes_nothing() {
    let service = TestService::start().await;
    service
        .http
        .post("/accounts/a", r#"{"type":"Deposit","amount":1}"#)
        .await
        .assert_problem(409, "account-not-open");
    service.http.get("/accounts/a").await.assert_problem(404, "not-found");
    service.http.get("/accounts/a/events").await.assert_problem(404, "not-found");
    service.http.post("/accounts/a", OPEN).await;
    for (body, status, slug) in [
        (OPEN, 409, "account-already-open"),
        (r#"{"type":"Withdraw","amount":1000.01}"#, 409, "insufficient-funds"),
        (r#"{"type":"Withdraw","amount":0}"#, 422, "amount-not-positive"),
        (r#"{"type":"Deposit","amount":-5}"#, 422, "amount-not-positive"),
        (r#"{"type":"Deposit","amount":0.001}"#, 422, "too-many-decimals"),
        (r#"{"type":"Deposit","amount":0.1000000000000000055}"#, 422, "too-many-decimals"),
        (r#"{"type":"Deposit","amount":1e20}"#, 422, "invalid-amount"),
        (r#"{"type":"Deposit","amount":1,"currency":"EUR"}"#, 422, "currency-mismatch"),
    ] {
        let refused = service.http.post("/accounts/a", body).await;
        refused.assert_problem(status, slug);
    }
    let title =
        service.http.post("/accounts/a", r#"{"type":"Withdraw","amount":1000.01}"#).await.body["title"]
            .clone();
    assert_eq!(title, "Insufficient funds");
    assert_eq!(service.http.get("/accounts/a").await.body["version"], 1);
}

#[tokio::test]
async fn what_is_no_command_is_a_client_error() {
    let service = TestService::start().await;
    for body in [
        "",
        "{",
        "[]",
        "null",
        "1",
        "{}",
        r#"{"type":"Steal","amount":1}"#,
        r#"{"type":"OpenAccount","owner":"Alice"}"#,
        r#"{"type":"OpenAccount","owner":"","initial_balance":1}"#,
        r#"{"type":"OpenAccount","owner":"Alice","initial_balance":-1}"#,
        r#"{"type":"OpenAccount","owner":"Alice","initial_balance":1,"vip":true}"#,
        r#"{"type":"OpenAccount","owner":"Alice","initial_balance":1,"currency":"EURO"}"#,
        r#"{"type":"OpenAccount","owner":"Alice","initial_balance":"many"}"#,
        r#"{"type":"OpenAccount","owner":7,"initial_balance":1}"#,
        r#"{"type":"Deposit","amount":null}"#,
        r#"{"type":"Deposit","amount":1e30}"#,
        r#"{"type":"Deposit","amount":1,"owner":"Alice"}"#,
    ] {
        let answer = service.http.post("/accounts/a", body).await;
        assert!(answer.status.is_client_error(), "{body} was answered {}", answer.status);
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{body}");
    }
    for path in ["/accounts/a.b", "/accounts/a%20b", &format!("/accounts/{}", "x".repeat(65))] {
        assert!(service.http.post(path, OPEN).await.status.is_client_error(), "{path}");
        assert!(service.http.get(path).await.status.is_client_error(), "{path}");
    }
    service.http.get("/accounts/a").await.assert_problem(404, "not-found");
}

#[tokio::test]
async fn a_query_parameter_that_nobody_knows_is_refused() {
    let service = TestService::start().await;
    service.http.post("/accounts/a", OPEN).await;
    assert_eq!(service.http.get("/accounts/a?min_sequence=1").await.status, 200);
    for path in
        ["/accounts/a?min_seqence=1", "/accounts/a?page=1", "/payments?order=o-1", "/payments?%6frder_id2=x"]
    {
        service.http.get(path).await.assert_problem(400, "bad-request");
    }
    service
        .http
        .post("/accounts/a?dry_run=true", r#"{"type":"Deposit","amount":1}"#)
        .await
        .assert_problem(400, "bad-request");
    assert_eq!(service.http.get("/accounts/a").await.body["version"], 1);
}

#[tokio::test]
async fn an_amount_may_be_a_string_and_is_read_to_the_last_digit() {
    let service = TestService::start().await;
    let open = r#"{"type":"OpenAccount","owner":"A","initial_balance":"999999999999.99","currency":"EUR"}"#;
    service.http.post("/accounts/a", open).await;
    let drawn = service.http.post("/accounts/a", r#"{"type":"Withdraw","amount":0.01}"#).await;
    assert_eq!(
        (&drawn.body["balance"], &drawn.body["currency"]),
        (&json!(999_999_999_999.98), &json!("EUR"))
    );
    let yen = r#"{"type":"OpenAccount","owner":"A","initial_balance":1000.0,"currency":"JPY"}"#;
    assert_eq!(service.http.post("/accounts/y", yen).await.body["balance"], json!(1000));
    service
        .http
        .post("/accounts/y", r#"{"type":"Deposit","amount":0.5}"#)
        .await
        .assert_problem(422, "too-many-decimals");
}

#[tokio::test]
async fn a_repeated_request_has_no_second_effect() {
    let service = TestService::start().await;
    service.http.post("/accounts/a", OPEN).await;
    let deposit = || {
        let request = Request::post("/accounts/a").header("idempotency-key", "k-1");
        request.body(Body::from(r#"{"type":"Deposit","amount":500}"#)).unwrap()
    };
    let first = service.http.ask(deposit()).await;
    service.http.post("/accounts/a", r#"{"type":"Deposit","amount":1}"#).await;
    let again = service.http.ask(deposit()).await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(first.headers["etag"], again.headers["etag"]);
    assert_eq!(service.http.get("/accounts/a").await.body["balance"], json!(1501.0));
}

#[tokio::test]
async fn a_request_repeated_after_a_restart_gets_the_first_answer_and_no_second_effect() {
    let service = TestService::start().await;
    let deposit = r#"{"type":"Deposit","amount":500}"#;
    let requests = [("k-1", OPEN), ("k-2", deposit)];
    let mut answers = Vec::new();
    for (key, body) in requests {
        let key = [("idempotency-key", key)];
        answers.push(service.http.send(Method::POST, "/accounts/a", &key, body).await);
    }
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    assert_eq!(statuses, [201, 200]);
    service.http.post("/accounts/a", r#"{"type":"Withdraw","amount":1}"#).await;

    let service = service.restarted().await;
    for ((key, body), first) in requests.into_iter().zip(answers) {
        let key = [("idempotency-key", key)];
        let again = service.http.send(Method::POST, "/accounts/a", &key, body).await;
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        for header in ["etag", "event-sequence"] {
            assert_eq!(again.headers[header], first.headers[header], "{header}");
        }
    }
    let richer = deposit.replace("500", "501");
    let reused = service.http.send(Method::POST, "/accounts/a", &[("idempotency-key", "k-2")], richer).await;
    reused.assert_problem(422, "idempotency-key-reused");
    let shown = service.http.get("/accounts/a").await.body;
    assert_eq!((&shown["version"], &shown["balance"]), (&json!(3), &json!(1499.0)));
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused_and_changes_nothing() {
    let service = TestService::start().await;
    let keyed = |body: &str| {
        let request = Request::post("/accounts/a").header("idempotency-key", "k-1");
        request.body(Body::from(body.to_owned())).unwrap()
    };
    assert_eq!(service.http.ask(keyed(OPEN)).await.status, 201);
    let richer = OPEN.replace("1000.0", "9000.0");
    for other in [richer.as_str(), r#"{"type":"Deposit","amount":1}"#] {
        service.http.ask(keyed(other)).await.assert_problem(422, "idempotency-key-reused");
    }
    assert_eq!(service.http.ask(keyed(OPEN)).await.status, 201);
    assert_eq!(service.http.get("/accounts/a/events").await.body.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_write_may_insist_on_a_version() {
    let service = TestService::start().await;
    service.http.post("/accounts/a", OPEN).await;
    let deposit = |tag: &str| {
        let request = Request::post("/accounts/a").header("if-match", tag);
        request.body(Body::from(r#"{"type":"Deposit","amount":1}"#)).unwrap()
    };
    assert_eq!(service.http.ask(deposit("\"1\"")).await.status, 200);
    service.http.ask(deposit("\"1\"")).await.assert_problem(412, "version-mismatch");
    assert_eq!(service.http.get("/accounts/a").await.body["version"], 2);
}

#[tokio::test]
async fn payments_are_listed_by_order_as_soon_as_they_are_asked_for() {
    let service = TestService::start().await;
    service.open("acc", 10_000).await;
    for order in ["o-1", "o-2"] {
        service.place(order, account("acc")).await;
        service.cashier.handle(service.reserve(order).await).await.unwrap();
    }
    let shown = service.http.get("/payments/o-2").await;
    assert_eq!((&shown.body["status"], &shown.body["amount"]), (&json!("SUCCESS"), &json!(30.0)));
    assert_eq!(shown.body["payment_method"], json!({"type": "account", "account_id": "acc"}));
    let sequence = shown.headers["event-sequence"].to_str().unwrap().to_owned();
    let listed = service.http.get(&format!("/payments?order_id=o-2&min_sequence={sequence}")).await.body;
    assert_eq!((&listed["total"], &listed["items"][0]), (&json!(1), &shown.body));
    assert_eq!(service.http.get(&format!("/payments?min_sequence={sequence}")).await.body["total"], json!(2));
    assert_eq!(service.http.get("/payments?order_id=o-3").await.body["total"], json!(0));
    service.http.get("/payments/o-3").await.assert_problem(404, "not-found");
}

#[tokio::test]
async fn payments_are_seen_once_while_others_are_made_in_between() {
    let service = TestService::start().await;
    service.open("acc", 100_000).await;
    let pay = async |order: &str| {
        service.place(order, account("acc")).await;
        service.cashier.handle(service.reserve(order).await).await.unwrap();
    };
    for order in ["b", "d", "f", "h", "j"] {
        pay(order).await;
    }
    let (mut seen, mut path, mut earlier) =
        (Vec::new(), "/payments?per_page=2".to_owned(), ["a", "c"].iter());
    loop {
        let page = service.http.get(&path).await.body;
        let ids = page["items"].as_array().unwrap().iter().map(|payment| payment["id"].as_str().unwrap());
        seen.extend(ids.map(str::to_owned));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/payments?per_page=2&cursor={next}");
        // By pages counted off from the beginning, each of these would move a payment onto the next page again.
        if let Some(order) = earlier.next() {
            pay(order).await;
        }
    }
    assert_eq!(seen, ["b", "d", "f", "h", "j"]);
}
