//! What every route has in common, without a socket.

use axum::body::Body as Bytes;
use axum::http::{Method, Request, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use jetkit::http::{
    Body, IfMatch, MinSequence, Object, PageQuery, Path, Problem, Query, RequestCause, Versioned,
};
use jetkit::testing::{Answer, Routes};
use jetkit::{EntityId, ExpectedVersion, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};

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
) -> Versioned<Value> {
    let body = json!({ "lamp": light.lamp_id, "brightness": light.brightness, "cause": cause.id(), "if": format!("{version:?}") });
    Versioned::ok(3, 17, body).created()
}

async fn list(
    Query(filter): Query<Filter>,
    MinSequence(sequence): MinSequence,
    page: PageQuery,
) -> Json<Value> {
    Json(json!({ "bright": filter.bright, "min_sequence": sequence, "page": format!("{page:?}") }))
}

async fn panics() -> StatusCode {
    panic!("secret inside")
}

fn routes() -> Routes {
    Routes::new(
        Router::new()
            .route("/lamps", post(light).get(list))
            .route("/lamps/{id}", get(|Path(id): Path<EntityId>| async move { id.to_string() }))
            .route("/new", post(|cause: RequestCause| async move { cause.derive_entity_id().to_string() }))
            .route(
                "/lamps/{id}/cause",
                post(|RequestCause(cause): RequestCause| async move { cause.id().to_string() }),
            )
            .route("/panics", get(panics))
            .route(
                "/down",
                get(|| async { Problem::from(StoreError::Unavailable("nats-7 is on fire".into())) }),
            )
            .route("/bare", get(|| async { StatusCode::IM_A_TEAPOT })),
    )
}

async fn ask(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    routes().send(method, path, headers, body).await
}

async fn see(path: &str) -> Answer {
    ask(Method::GET, path, &[], "").await
}

async fn write(headers: &[(&str, &str)], body: &str) -> Answer {
    ask(Method::POST, "/lamps", headers, body).await
}

const GOOD: &str = r#"{"lamp_id":"a","brightness":5}"#;

#[tokio::test]
async fn a_write_is_answered_with_version_and_position() {
    let answer = write(&[("if-match", "\"2\"")], GOOD).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!((answer.header("etag"), answer.header("event-sequence")), ("\"3\"", "17"));
    assert_eq!(answer.body["if"], "OneOf([2])");
}

#[tokio::test]
async fn the_same_key_is_the_same_cause_and_no_key_never_is() {
    let cause = async |headers: &[(&str, &str)]| write(headers, GOOD).await.body["cause"].clone();
    let keyed = [("idempotency-key", "k-1")];
    assert_eq!(cause(&keyed).await, cause(&keyed).await);
    assert_ne!(cause(&keyed).await, cause(&[("idempotency-key", "k-2")]).await);
    assert_ne!(cause(&[]).await, cause(&[]).await);
    let created = async || ask(Method::POST, "/new", &keyed, "").await.text;
    assert_eq!(created().await, created().await);
    assert!(EntityId::new(created().await).is_ok());
}

#[tokio::test]
async fn a_path_written_in_another_way_is_the_same_request() {
    let cause = async |path: &str| ask(Method::POST, path, &[("idempotency-key", "k-1")], "").await.text;
    assert_eq!(cause("/lamps/%6cate/cause").await, cause("/lamps/late/cause").await);
    assert_ne!(cause("/lamps/early/cause").await, cause("/lamps/late/cause").await);
}

#[tokio::test]
async fn a_bad_key_is_refused() {
    let long = "k".repeat(129);
    for key in ["", "with space", "caf\u{e9}", &long] {
        write(&[("idempotency-key", key)], GOOD).await.assert_problem(400, "bad-request");
    }
    write(&[("idempotency-key", "a"), ("idempotency-key", "b")], GOOD)
        .await
        .assert_problem(400, "bad-request");
}

#[tokio::test]
async fn a_conditional_write_takes_any_version_lists_and_several_lines() {
    let expected = async |lines: &[&str]| {
        let lines: Vec<_> = lines.iter().map(|line| ("if-match", *line)).collect();
        let answer = write(&lines, GOOD).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{lines:?}: {}", answer.text);
        answer.body["if"].as_str().unwrap().to_owned()
    };
    let one_of = |versions: &[u64]| format!("{:?}", ExpectedVersion::OneOf(versions.to_vec()));
    assert_eq!(expected(&[]).await, format!("{:?}", ExpectedVersion::Any));
    assert_eq!(expected(&[" * "]).await, format!("{:?}", ExpectedVersion::Existing));
    assert_eq!(expected(&["\"3\""]).await, one_of(&[3]));
    assert_eq!(expected(&["\"3\", \"4\",\"5\" , "]).await, one_of(&[3, 4, 5]));
    assert_eq!(expected(&["\"3\"", ",\t\"4\""]).await, one_of(&[3, 4]));
    // A weak tag, and one that is none of ours, match nothing (RFC 9110, sections 8.8.3.2 and 13.1.1).
    for never in
        ["W/\"3\"", "\"\"", "\"x\"", "\"+4\"", "\"03\"", "\"0\"", "\"3,4\"", "\"1111111111111111111\""]
    {
        assert_eq!(expected(&[never]).await, one_of(&[]), "{never}");
        assert_eq!(expected(&[never, "\"7\""]).await, one_of(&[7]), "{never}");
    }
}

#[tokio::test]
async fn what_is_no_list_of_tags_is_refused() {
    for tag in [
        "",
        " , ",
        "3",
        "\"",
        "\"3",
        "3\"",
        "w/\"3\"",
        "W/3",
        "\"3\" \"4\"",
        "\"3\";",
        "\"a b\"",
        "*, \"3\"",
        "**",
    ] {
        write(&[("if-match", tag)], GOOD).await.assert_problem(400, "bad-request");
    }
    write(&[("if-match", "*"), ("if-match", "\"2\"")], GOOD).await.assert_problem(400, "bad-request");
}

#[tokio::test]
async fn a_byte_order_mark_is_named_in_the_refusal() {
    let utf_16 = |mark: [u8; 2], unit: fn(u16) -> [u8; 2]| {
        [mark.to_vec(), GOOD.encode_utf16().flat_map(unit).collect()].concat()
    };
    for (body, encoding) in [
        ([&[0xef, 0xbb, 0xbf], GOOD.as_bytes()].concat(), "(UTF-8)"),
        (utf_16([0xff, 0xfe], u16::to_le_bytes), "(UTF-16)"),
        (utf_16([0xfe, 0xff], u16::to_be_bytes), "(UTF-16)"),
        ([&[0xff, 0xfe, 0, 0], GOOD.as_bytes()].concat(), "(UTF-32)"),
        (vec![0xef, 0xbb, 0xbf], "(UTF-8)"),
    ] {
        let request = Request::post("/lamps").body(Bytes::from(body)).unwrap();
        let refused = routes().ask(request).await;
        refused.assert_problem(400, "bad-request");
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains("byte order mark") && detail.contains(encoding), "{detail}");
    }
}

#[tokio::test]
async fn a_bad_body_is_refused_with_the_place_of_the_mistake() {
    let refused = async |body: &str| write(&[], body).await;
    let empty = refused(" ").await;
    empty.assert_problem(400, "bad-request");
    assert_eq!(empty.body["detail"], "A body is needed: a JSON object");
    refused("{").await.assert_problem(400, "bad-request");
    refused("hello").await.assert_problem(400, "bad-request");
    refused(r#"{"lamp_id":"a"}"#).await.assert_problem(422, "invalid");
    refused(r#" ["a",5]"#).await.assert_problem(422, "invalid");
    refused(r#"{"lamp_id":"a","brightness":5,"colour":"red"}"#).await.assert_problem(422, "invalid");
    refused(r#"{"lamp_id":"a.b","brightness":5}"#).await.assert_problem(422, "invalid");
    let wrong_type = refused(r#"{"lamp_id":"a","brightness":"much"}"#).await;
    wrong_type.assert_problem(422, "invalid");
    assert!(wrong_type.body["detail"].as_str().unwrap().starts_with("brightness: "), "{}", wrong_type.text);
    let negative = refused(r#"{"lamp_id":"a","brightness":-2}"#).await;
    let detail = negative.body["detail"].as_str().unwrap();
    assert!(detail.contains("expected a whole number from 0 to 4294967295"), "{detail}");
}

#[tokio::test]
async fn a_field_given_twice_is_refused() {
    write(&[], r#"{"lamp_id":"a","brightness":5,"brightness":6}"#).await.assert_problem(422, "invalid");
}

#[tokio::test]
async fn a_nested_object_is_not_given_as_a_list() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Room {
        lamps: Vec<Object<Light>>,
    }
    let room = async |Body(room): Body<Room>| -> String { format!("{}", room.lamps[0].0.brightness) };
    let http = Routes::new(Router::new().route("/rooms", post(room)));
    let rooms = async |body: String| http.post("/rooms", body).await;
    assert_eq!(rooms(format!(r#"{{"lamps":[{GOOD}]}}"#)).await.status, StatusCode::OK);
    rooms(r#"{"lamps":[["a",5]]}"#.into()).await.assert_problem(422, "invalid");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let body = format!(r#"{{"lamp_id":"a","brightness":5}}{}"#, " ".repeat(256 * 1024));
    write(&[], &body).await.assert_problem(413, "too-large");
    write(&[("idempotency-key", "k")], &body).await.assert_problem(413, "too-large");
    let body = format!("{GOOD}{}", " ".repeat(256 * 1024 - GOOD.len()));
    assert_eq!(write(&[], &body).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn paths_and_queries_are_checked() {
    assert_eq!(see("/lamps/a-1").await.text, "a-1");
    see("/lamps/a.1").await.assert_problem(422, "invalid");
    see("/lamps/%3E").await.assert_problem(422, "invalid");
    see("/lamps?bright=perhaps").await.assert_problem(400, "bad-request");
    see("/lamps?min_sequence=-1").await.assert_problem(400, "bad-request");
    for query in ["page=0", "per_page=0", "per_page=101", "page=x", "page=1001", "page=1000000000000"] {
        see(&format!("/lamps?{query}")).await.assert_problem(400, "bad-request");
    }
    let list = see("/lamps?bright=true&min_sequence=9&page=2&per_page=30").await.body;
    assert_eq!((&list["bright"], &list["min_sequence"]), (&json!(true), &json!(9)));
    assert_eq!(list["page"], format!("{:?}", PageQuery::number(2, 30)));
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    see("/nowhere").await.assert_problem(404, "not-found");
    let wrong = ask(Method::DELETE, "/lamps", &[], "").await;
    wrong.assert_problem(405, "method-not-allowed");
    assert!(wrong.header("allow").contains("POST"), "{:?}", wrong.headers);
    see("/bare").await.assert_problem(418, "bad-request");
}

#[tokio::test]
async fn a_cause_is_for_the_log_and_not_for_the_client() {
    let panicked = see("/panics").await;
    panicked.assert_problem(500, "internal");
    assert!(!panicked.text.contains("secret"), "{}", panicked.text);
    let down = see("/down").await;
    down.assert_problem(503, "unavailable");
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
