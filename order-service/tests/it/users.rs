//! The routes of users.

use axum::http::{Method, StatusCode};
use jetkit::testing::Answer;
use serde_json::json;

use crate::test_service::TestService;

async fn create(service: &TestService, name: &str) -> Answer {
    service.http.post("/users", &json!({"username": name, "email": format!("{name}@example.com")})).await
}

#[tokio::test]
async fn a_user_is_created_changed_and_suspended() {
    let service = TestService::start().await;
    let created = create(&service, "alice").await;
    assert_eq!(created.status, 201);
    let path = created.header("location").to_owned();
    let id = created.body["id"].as_str().unwrap();
    assert_eq!(path, format!("/users/{id}"));
    assert_eq!(
        created.body,
        json!({"id": id, "user_id": id, "username": "alice", "email": "alice@example.com", "status": "Active",
               "version": 1})
    );
    assert_eq!(service.http.get(&path).await.body, created.body);

    let changed = service.http.send(Method::PATCH, &path, &[], &json!({"username": "bob"})).await;
    assert_eq!(
        (&changed.body["username"], &changed.body["email"]),
        (&json!("bob"), &json!("alice@example.com"))
    );
    let suspended = service.http.post(&format!("{path}/status"), &json!({"status": "Suspended"})).await;
    assert_eq!((&suspended.body["status"], &suspended.body["version"]), (&json!("Suspended"), &json!(3)));

    let history = service.http.get(&format!("{path}/events")).await.body;
    let types: Vec<&str> = history.as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["UserCreated", "UserUpdated", "UserStatusChanged"]);
}

#[tokio::test]
async fn a_repeated_creation_creates_one_user() {
    let service = TestService::start().await;
    let key = [("idempotency-key", "signup-1")];
    let body = json!({"username": "alice", "email": "alice@example.com"});
    let first = service.http.send(Method::POST, "/users", &key, &body).await;
    let path = first.header("location").to_owned();
    service.http.send(Method::PATCH, &path, &[], &json!({"username": "bob"})).await;
    let again = service.http.send(Method::POST, "/users", &key, &body).await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let service = TestService::start().await;
    for body in [
        json!({}),
        json!({"username": "alice"}),
        json!({"username": "", "email": "a@example.com"}),
        json!({"username": "alice", "email": "alice"}),
        json!({"username": "alice", "email": "a@example.com", "admin": true}),
        json!({"username": 7, "email": "a@example.com"}),
    ] {
        assert!(service.http.post("/users", &body).await.status.is_client_error(), "{body}");
    }
    let path = create(&service, "alice").await.header("location").to_owned();
    for body in [json!({}), json!({"email": "x"}), json!({"status": "Active"})] {
        let refused = service.http.send(Method::PATCH, &path, &[], &body).await;
        assert!(refused.status.is_client_error(), "{body}");
    }
    for body in [json!({}), json!({"status": "Gone"})] {
        assert!(service.http.post(&format!("{path}/status"), &body).await.status.is_client_error(), "{body}");
    }
    service
        .http
        .send(Method::PATCH, "/users/nobody", &[], &json!({"username": "x"}))
        .await
        .assert_problem(404, "not-found");
    service
        .http
        .post("/users/nobody/status", &json!({"status": "Active"}))
        .await
        .assert_problem(404, "not-found");
    service.http.get("/users/nobody").await.assert_problem(404, "not-found");
    service.http.get("/users/nobody/events").await.assert_problem(404, "not-found");
    assert_eq!(service.http.get(&path).await.body["version"], 1);
}

#[tokio::test]
async fn users_are_filtered_searched_and_paged() {
    let service = TestService::start().await;
    for name in ["alice", "bob", "carol"] {
        create(&service, name).await;
    }
    let dave = create(&service, "Dave").await;
    let path = dave.header("location").to_owned();
    let last = service.http.post(&format!("{path}/status"), &json!({"status": "Inactive"})).await;
    let sequence = last.header("event-sequence");
    let list = async |query: &str| {
        let list = service.http.get(&format!("/users?min_sequence={sequence}&{query}")).await.body;
        let items = list["items"].as_array().unwrap().iter();
        let names: Vec<String> = items.map(|user| user["username"].as_str().unwrap().to_owned()).collect();
        (list["total"].as_u64().unwrap(), names.join(" "))
    };
    assert_eq!(list("").await, (4, "alice bob carol Dave".to_owned()));
    assert_eq!(list("status=Inactive").await, (1, "Dave".to_owned()));
    assert_eq!(list("search=AL").await, (1, "alice".to_owned()));
    assert_eq!(list("search=dave%40EXAMPLE").await, (1, "Dave".to_owned()));
    assert_eq!(list("search=o&status=Active&per_page=1&page=2").await, (3, "bob".to_owned()));
    assert!(service.http.get("/users?status=Gone").await.status.is_client_error());
}

#[tokio::test]
async fn a_search_takes_every_letter_as_itself() {
    let service = TestService::start().await;
    for name in ["alice", "100%", "a_b"] {
        assert_eq!(create(&service, name).await.status, StatusCode::CREATED, "{name}");
    }
    let found = async |query: &str| {
        let list = service.http.get(&format!("/users?{query}")).await;
        assert_eq!(list.status, StatusCode::OK, "{query}");
        list.body["total"].as_u64().unwrap()
    };
    assert_eq!(found("search=%25").await, 1);
    assert_eq!(found("search=_").await, 1);
    assert_eq!(found("search=%27%20OR%201=1--").await, 0);
    assert_eq!(found("search=alice%00").await, 0);
    assert_eq!(found(&format!("search={}", "a".repeat(8 * 1024))).await, 0);
    let beyond = service.http.get("/users?page=1000").await;
    assert_eq!((beyond.status, &beyond.body["items"]), (StatusCode::OK, &json!([])));
    assert_eq!(beyond.body["total"], 3);
    for bad in ["page=0", "page=-1", "per_page=101", "per_page=0", "page=1001", "page=18446744073709551616"] {
        assert_eq!(service.http.get(&format!("/users?{bad}")).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn an_id_that_cannot_be_one_is_refused_and_breaks_nothing() {
    let service = TestService::start().await;
    let long = "x".repeat(8 * 1024);
    for weird in ["a.b", "a%00b", "%2A", "%3E", "a%20b", "%F0%9F%A6%80", "%27", &long] {
        for path in ["/users", "/orders"] {
            for end in ["", "/events"] {
                let answer = service.http.get(&format!("{path}/{weird}{end}")).await;
                assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}/{weird}{end}");
            }
        }
        let answer = service.http.get(&format!("/orders?customer_id={weird}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{weird}");
    }
}
