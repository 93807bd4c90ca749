//! What a mail says.

use common::order::{CancelReason, OrderPlaced};
use common::payment::PaymentOutcome;
use consumer_email::letter::{Letter, News, Sender};

use crate::{cancelled, id, order, payment, sender, shipped};

/// The whole mail, with its encoding undone where it stands in the way of reading.
fn written(order: &OrderPlaced, news: News<'_>) -> String {
    let mail = compose(order, news).unwrap();
    String::from_utf8(mail.message().formatted()).unwrap().replace("=\r\n", "").replace("=3D", "=")
}

fn compose(order: &OrderPlaced, news: News<'_>) -> anyhow::Result<Letter> {
    let to = order.customer_email.as_ref().unwrap().parse()?;
    Letter::compose(&sender(), to, &id("m-1"), "<m-1@example.com>", order, news)
}

#[test]
fn a_mail_has_the_order_in_text_and_in_html() {
    let mail = written(&order("o-1"), News::Placed);
    for part in [
        "From: \"The Shop\" <shop@example.com>",
        "To: alice@example.org",
        "Subject: Thank you for your order (o-1)",
        "Message-ID: <m-1@example.com>",
        "Auto-Submitted: auto-generated",
        "Content-Type: multipart/alternative",
        "Content-Type: text/plain",
        "Content-Type: text/html",
        "3 x Cup, 5.00 EUR each: 15.00 EUR",
        "Total: 34.99 EUR",
        ">Teapot</td>",
        ">34.99 EUR</td>",
    ] {
        assert!(mail.contains(part), "no {part:?} in\n{mail}");
    }
}

#[test]
fn every_news_has_its_words() {
    let order = order("o-1");
    assert!(written(&order, News::Confirmed).contains("Subject: Your order is confirmed (o-1)"));
    assert!(written(&order, News::Shipped(&shipped("o-1"))).contains("Tracking number: T-1"));
    let mut off = cancelled("o-1");
    assert!(written(&order, News::Cancelled(&off)).contains("not everything that you ordered is in stock"));
    off.reason = CancelReason::Requested;
    assert!(written(&order, News::Cancelled(&off)).contains("cancelled as asked"));
    let failed = payment("o-1", PaymentOutcome::Failed);
    let mail = written(&order, News::PaymentFailed(&failed));
    assert!(mail.contains("did not go through: the card was declined"), "{mail}");
}

#[test]
fn what_others_wrote_cannot_become_markup_or_another_line() {
    let mut order = order("o-1");
    order.items[0].product_name =
        "<script>alert(1)</script>\r\nBcc: eve@example.org\u{0}\u{202e}\u{2028}".into();
    let mut away = shipped("o-1");
    away.carrier = "<b onclick=x>\r\nX".into();
    let mail = written(&order, News::Shipped(&away));
    let html = &mail[mail.find("<!doctype html>").unwrap()..];
    assert!(!html.contains("<script>") && !html.contains("<b onclick"), "{html}");
    assert!(html.contains("&#60;script&#62;") || html.contains("&lt;script&gt;"), "{html}");
    assert!(!mail.contains("\nBcc:") && !mail.contains("\nX"), "{mail}");
    for quoted in ["=E2=80=AE", "=E2=80=A8"] {
        assert!(!mail.contains(quoted), "{quoted} would reorder or break the line: {mail}");
    }
}

#[test]
fn long_names_and_long_orders_are_cut() {
    let mut order = order("o-1");
    order.items[0].product_name = "x".repeat(10_000);
    let line = order.items[1].clone();
    order.items.extend(std::iter::repeat_n(line, 200));
    let mail = written(&order, News::Placed);
    assert!(mail.contains("and 102 more"), "{mail}");
    assert!(!mail.contains(&"x".repeat(121)));
}

#[test]
fn a_sender_without_an_address_is_refused() {
    assert!(Sender::new("nobody").is_err());
    assert!(Sender::new("Shop <böse@example.com>").is_err());
}

#[test]
fn a_sender_at_a_domain_with_letters_outside_ascii_writes_from_its_ascii_form() {
    let sender = Sender::new("Bücher <shop@bücher.example>").unwrap();
    assert_eq!(sender.message_id(&id("m-1")), "<m-1@xn--bcher-kva.example>");
}
