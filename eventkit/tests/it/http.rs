//! What every route has in common, without a socket.

use axum::body::Body as Bytes;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use eventkit::http::{
    Body, IfMatch, MinSequence, Object, PageQuery, Path, Problem, Query, RequestCause, Written, complete,
};
use eventkit::{EntityId, StoreError};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Light {
    lamp_id: EntityId,
    brightness: u32,
}

#[derive(Debug, Deserialize)]
struct Filter {
    bright: Option<bool>,
}

async fn light(
    RequestCause(cause): RequestCause,
    IfMatch(version): IfMatch,
    Body(light): Body<Light>,
) -> Written<Value> {
    let body =
        json!({ "lamp": light.lamp_id, "brightness": light.brightness, "cause": cause.id(), "if": version });
    Written { status: StatusCode::CREATED, version: 3, sequence: 17, body }
}

async fn list(
    Query(filter): Query<Filter>,
    MinSequence(sequence): MinSequence,
    page: PageQuery,
) -> Json<Value> {
    Json(json!({ "bright": filter.bright, "min_sequence": sequence, "page": page.of(0..50) }))
}

async fn panics() -> StatusCode {
    panic!("secret inside")
}

fn routes() -> Router {
    complete(
        Router::new()
            .route("/lamps", post(light).get(list))
            .route("/lamps/{id}", get(|Path(id): Path<EntityId>| async move { id.to_string() }))
            .route("/new", post(|cause: RequestCause| async move { cause.derive_entity_id().to_string() }))
            .route("/panics", get(panics))
            .route(
                "/down",
                get(|| async { Problem::from(StoreError::Unavailable("nats-7 is on fire".into())) }),
            )
            .route("/bare", get(|| async { StatusCode::IM_A_TEAPOT })),
    )
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that it is a problem of this type, with the request's id in it.
    fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:problem:{slug}"));
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        problem
    }
}

async fn ask(method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = routes().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, headers, text: String::from_utf8(body.to_vec()).unwrap() }
}

async fn see(path: &str) -> Answer {
    ask(Method::GET, path, &[], "").await
}

async fn write(headers: &[(&str, &str)], body: &str) -> Answer {
    ask(Method::POST, "/lamps", headers, body.to_owned()).await
}

const GOOD: &str = r#"{"lamp_id":"a","brightness":5}"#;

#[tokio::test]
async fn a_write_is_answered_with_version_and_position() {
    let answer = write(&[("if-match", "\"2\"")], GOOD).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!((answer.header("etag"), answer.header("event-sequence")), ("\"3\"", "17"));
    assert_eq!(answer.json()["if"], 2);
}

#[tokio::test]
async fn the_same_key_is_the_same_cause_and_no_key_never_is() {
    let cause = async |headers: &[(&str, &str)]| write(headers, GOOD).await.json()["cause"].clone();
    let keyed = [("idempotency-key", "k-1")];
    assert_eq!(cause(&keyed).await, cause(&keyed).await);
    assert_ne!(cause(&keyed).await, cause(&[("idempotency-key", "k-2")]).await);
    assert_ne!(cause(&[]).await, cause(&[]).await);
    let created = async || ask(Method::POST, "/new", &keyed, "").await.text;
    assert_eq!(created().await, created().await);
    assert!(EntityId::new(created().await).is_ok());
}

#[tokio::test]
async fn a_bad_key_is_refused() {
    let long = "k".repeat(129);
    for key in ["", "with space", "caf\u{e9}", &long] {
        write(&[("idempotency-key", key)], GOOD).await.problem(400, "bad-request");
    }
    write(&[("idempotency-key", "a"), ("idempotency-key", "b")], GOOD).await.problem(400, "bad-request");
    for tag in ["3", "W/\"3\"", "\"x\"", "*"] {
        write(&[("if-match", tag)], GOOD).await.problem(400, "bad-request");
    }
}

#[tokio::test]
async fn a_bad_body_is_refused_with_the_place_of_the_mistake() {
    let refused = async |body: &str| write(&[], body).await;
    refused("").await.problem(400, "bad-request");
    refused("{").await.problem(400, "bad-request");
    refused("hello").await.problem(400, "bad-request");
    refused(r#"{"lamp_id":"a"}"#).await.problem(422, "invalid");
    refused(r#" ["a",5]"#).await.problem(422, "invalid");
    refused(r#"{"lamp_id":"a","brightness":5,"colour":"red"}"#).await.problem(422, "invalid");
    refused(r#"{"lamp_id":"a.b","brightness":5}"#).await.problem(422, "invalid");
    let wrong_type = refused(r#"{"lamp_id":"a","brightness":"much"}"#).await.problem(422, "invalid");
    assert!(wrong_type["detail"].as_str().unwrap().starts_with("brightness: "), "{wrong_type}");
}

#[tokio::test]
async fn a_field_given_twice_is_refused() {
    write(&[], r#"{"lamp_id":"a","brightness":5,"brightness":6}"#).await.problem(422, "invalid");
}

#[tokio::test]
async fn a_nested_object_is_not_given_as_a_list() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Room {
        lamps: Vec<Object<Light>>,
    }
    let room = async |Body(room): Body<Room>| -> String { format!("{}", room.lamps[0].0.brightness) };
    let routes = complete(Router::new().route("/rooms", post(room)));
    let answer = async |body: String| {
        let request = Request::post("/rooms").body(Bytes::from(body)).unwrap();
        routes.clone().oneshot(request).await.unwrap().status()
    };
    assert_eq!(answer(format!(r#"{{"lamps":[{GOOD}]}}"#)).await, StatusCode::OK);
    assert_eq!(answer(r#"{"lamps":[["a",5]]}"#.into()).await, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let body = format!(r#"{{"lamp_id":"a","brightness":5}}{}"#, " ".repeat(256 * 1024));
    write(&[], &body).await.problem(413, "too-large");
    write(&[("idempotency-key", "k")], &body).await.problem(413, "too-large");
    let body = format!("{GOOD}{}", " ".repeat(256 * 1024 - GOOD.len()));
    assert_eq!(write(&[], &body).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn paths_and_queries_are_checked() {
    assert_eq!(see("/lamps/a-1").await.text, "a-1");
    see("/lamps/a.1").await.problem(422, "invalid");
    see("/lamps/%3E").await.problem(422, "invalid");
    see("/lamps?bright=perhaps").await.problem(400, "bad-request");
    see("/lamps?min_sequence=-1").await.problem(400, "bad-request");
    for query in ["page=0", "per_page=0", "per_page=101", "page=x"] {
        see(&format!("/lamps?{query}")).await.problem(400, "bad-request");
    }
    let list = see("/lamps?bright=true&min_sequence=9&page=2&per_page=30").await.json();
    assert_eq!((&list["bright"], &list["min_sequence"]), (&json!(true), &json!(9)));
    assert_eq!(list["page"]["items"].as_array().unwrap().len(), 20);
    assert_eq!(list["page"]["total"], 50);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    see("/nowhere").await.problem(404, "not-found");
    let wrong = ask(Method::DELETE, "/lamps", &[], "").await;
    wrong.problem(405, "method-not-allowed");
    assert!(wrong.header("allow").contains("POST"), "{:?}", wrong.headers);
    see("/bare").await.problem(418, "bad-request");
}

#[tokio::test]
async fn a_cause_is_for_the_log_and_not_for_the_client() {
    let panicked = see("/panics").await;
    panicked.problem(500, "internal");
    assert!(!panicked.text.contains("secret"), "{}", panicked.text);
    let down = see("/down").await;
    down.problem(503, "unavailable");
    assert!(!down.text.contains("fire"), "{}", down.text);
    assert_eq!(down.header(header::RETRY_AFTER.as_str()), "1");
}

#[tokio::test]
async fn a_request_keeps_its_id_if_it_is_a_reasonable_one() {
    let with = async |id: &str| ask(Method::GET, "/lamps/a", &[("x-request-id", id)], "").await;
    assert_eq!(with("req-7").await.header("x-request-id"), "req-7");
    for odd in ["two words", &"x".repeat(200), ""] {
        let answer = with(odd).await;
        assert_eq!(answer.header("x-request-id").len(), 36, "{odd}");
    }
}
