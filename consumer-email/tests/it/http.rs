//! The routes of consumer-email.

use consumer_email::http::Api;
use jetkit::http::HttpApi as _;
use jetkit::testing::{NatsServer, Routes};
use jetkit::{Handler, ReadModel};
use tempfile::TempDir;

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
    let http = Routes::new(Api { mails }.routes());

    let about_one = http.get("/mails?order_id=o-1").await;
    assert_eq!((about_one.status.as_u16(), &about_one.body["total"]), (200, &1.into()));
    let mail = &about_one.body["items"][0];
    assert_eq!(mail["kind"], "order_placed");
    assert_eq!(mail["status"], "sent");
    assert_eq!(mail["to"], "alice@example.org");
    assert_eq!(http.get("/mails").await.body["total"], 2);
    assert_eq!(http.get("/mails?order_id=o-3").await.body["total"], 0);
    http.get("/mails?order_id=a.b").await.assert_problem(400, "bad-request");
}
