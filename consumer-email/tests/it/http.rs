//! The routes of consumer-email.

use common::order::OrderEvent;
use consumer_email::http::Api;
use jetkit::Handler;
use jetkit::http::HttpApi as _;
use jetkit::testing::Routes;

use crate::{mailer, order, servers};

#[tokio::test]
async fn mails_are_listed_by_order() {
    let (harness, smtp) = servers().await;
    let mailer = mailer(&harness, smtp.transport());
    for order_id in ["o-1", "o-2"] {
        let placed = harness.happens::<OrderEvent, _>(order(order_id)).await;
        mailer.handle(placed).await.unwrap();
    }
    let http = Routes::new(Api { mails: harness.read_model() }.routes());

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
