//! Odd addresses: what the edge accepts arrives, at a server without SMTPUTF8 too; what it refuses is a skipped mail where
//! another producer has put it on the log.

use common::email::wire_form;
use common::order::OrderEvent;
use consumer_email::mail_list::MailStatus;
use jetkit::Handler;

use crate::mailer::listed;
use crate::{mailer, order, servers};

/// As written, and as a mail server is given it; none where it is refused.
const ODD: [(&str, Option<&str>); 48] = [
    ("alice@example.org", Some("alice@example.org")),
    ("ALICE@EXAMPLE.ORG", Some("ALICE@example.org")),
    ("joerg@bücher.example", Some("joerg@xn--bcher-kva.example")),
    ("joerg@BÜCHER.EXAMPLE", Some("joerg@xn--bcher-kva.example")),
    ("a@xn--bcher-kva.example", Some("a@xn--bcher-kva.example")),
    ("a@例え.テスト", Some("a@xn--r8jz45g.xn--zckzah")),
    ("a@пример.рф", Some("a@xn--e1afmkfd.xn--p1ai")),
    ("a@faß.example", Some("a@xn--fa-hia.example")),
    ("a@ｅｘａｍｐｌｅ.com", Some("a@example.com")),
    ("first.last+tag@example.org", Some("first.last+tag@example.org")),
    ("o'brien@example.org", Some("o'brien@example.org")),
    ("!#$%&'*+-/=?^_`{|}~@example.org", Some("!#$%&'*+-/=?^_`{|}~@example.org")),
    ("a/b@example.org", Some("a/b@example.org")),
    ("a=b@example.org", Some("a=b@example.org")),
    ("a%b@example.org", Some("a%b@example.org")),
    ("1@example.org", Some("1@example.org")),
    ("-@example.org", Some("-@example.org")),
    ("a@localhost", Some("a@localhost")),
    ("a@1.example.org", Some("a@1.example.org")),
    ("a@a--b.example", Some("a@a--b.example")),
    ("a@b.c.d.e.f.example", Some("a@b.c.d.e.f.example")),
    ("jörg@example.org", None),
    ("用户@example.org", None),
    ("a\u{301}@example.org", None),
    ("\"a b\"@example.org", None),
    ("\"a@b\"@example.org", None),
    ("\"\"@example.org", None),
    ("a@[127.0.0.1]", None),
    ("a@[IPv6:::1]", None),
    ("a@127.0.0.1", None),
    ("a@::1", None),
    (".a@example.org", None),
    ("a.@example.org", None),
    ("a..b@example.org", None),
    ("a@example.org.", None),
    ("a@.example.org", None),
    ("a@example..org", None),
    ("a@-example.org", None),
    ("a@example-.org", None),
    ("a@under_score.org", None),
    ("a@xn--a.example", None),
    ("a@exam\u{ad}ple.com", Some("a@example.com")), // IDNA leaves a soft hyphen out
    ("a@\u{200b}", None),
    ("a@\u{202e}example.org", None),
    ("a\u{200d}@example.org", None),
    ("a(comment)@example.org", None),
    ("a@example.org>", None),
    ("Alice <a@example.org>", None),
];

#[tokio::test]
async fn every_address_that_the_edge_accepts_arrives_and_every_other_is_skipped() {
    let (harness, smtp) = servers().await;
    let mailer = mailer(&harness, smtp.transport());
    for (n, (written, wire)) in ODD.into_iter().enumerate() {
        assert_eq!(wire_form(written).ok().as_deref(), wire, "at the edge: {written:?}");
        let mut order = order(&format!("o-{n}"));
        order.customer_email = Some(written.to_owned());
        let placed = harness.happens::<OrderEvent, _>(order).await;
        mailer.handle(placed).await.unwrap_or_else(|error| panic!("{written:?}: {error:?}"));
    }
    let arrived: Vec<String> = smtp.received().into_iter().flat_map(|mail| mail.to).collect();
    let accepted: Vec<&str> = ODD.iter().filter_map(|(_, wire)| *wire).collect();
    assert_eq!(arrived, accepted);
    let headers = smtp.received().into_iter().filter_map(|mail| mail.header("To").map(str::to_owned));
    assert_eq!(headers.collect::<Vec<_>>(), accepted);

    let mails = listed(&harness.read_model()).await;
    let skipped = mails.iter().filter(|mail| mail.status == MailStatus::Skipped && mail.reason.is_some());
    assert_eq!(skipped.count(), ODD.len() - accepted.len());
}
