//! The routes of consumer-email.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use consumer_email::http::router;
use eventkit::testing::NatsServer;
use eventkit::{Handler, ReadModel};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::smtp_server::SmtpServer;
use crate::{AnyOrder, happens, log, mailer, order};

#[tokio::test]
async fn mails_are_listed_by_order() {
    let (nats, smtp) = (NatsServer::start().await, SmtpServer::start().await);
    let log = log(&nats).await;
    let mailer = mailer(&log, smtp.transport());
    for order_id in ["o-1", "o-2"] {
        let placed = happens::<AnyOrder, _>(&log, order(order_id)).await;
        mailer.handle(placed).await.unwrap();
    }
    let dir = TempDir::new().unwrap();
    let mails = ReadModel::follow(&log, dir.path());
    let routes = eventkit::http::complete(router(mails));
    let get = async |path: &str| {
        let answer = routes.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };

    let (status, body) = get("/mails?order_id=o-1").await;
    assert_eq!((status, &body["total"]), (StatusCode::OK, &json!(1)));
    let mail = &body["items"][0];
    assert_eq!(mail["kind"], "order_placed");
    assert_eq!(mail["status"], "sent");
    assert_eq!(mail["to"], "alice@example.org");
    assert_eq!(get("/mails").await.1["total"], 2);
    assert_eq!(get("/mails?order_id=o-3").await.1["total"], 0);
    assert_eq!(get("/mails?order_id=a.b").await.0, StatusCode::BAD_REQUEST);
}
