//! Orders become mails: each once, whatever happens in between.

use std::collections::HashSet;
use std::time::Duration;

use common::mail::MailKind;
use common::order::OrderEvent;
use common::payment::{PaymentEvent, PaymentOutcome};
use consumer_email::letter::Letter;
use consumer_email::mail::{Mail, MailCommand, MailFacts};
use consumer_email::mail_list::{MailList, MailStatus, MailSummary};
use consumer_email::smtp::Smtp;
use consumer_email::transport::{MailTransport, Sending};
use jetkit::http::{MinSequence, PageQuery};
use jetkit::testing::{SOON, eventually};
use jetkit::{Cause, EntityId, EventId, Handler, HandlerError, ReadModel};

use crate::smtp_server::Answer;
use crate::{cancelled, confirmed, mailer, order, payment, servers, shipped};

/// Every mail that is listed.
pub(crate) async fn listed(mails: &ReadModel<MailList>) -> Vec<MailSummary> {
    let mails = mails.at(MinSequence(None)).await.unwrap();
    let all = PageQuery::number(1, 100);
    mails.read(move |tables| MailSummary::list(tables, None, &all)).await.unwrap().value.items
}

#[tokio::test]
async fn every_news_of_an_order_is_one_mail() {
    let (harness, smtp) = servers().await;
    let mails = harness.read_model();
    let running = harness.run(consumer_email::consumer(mailer(&harness, smtp.transport())));

    harness.happens::<OrderEvent, _>(order("o-1")).await;
    harness.happens::<PaymentEvent, _>(payment("o-1", PaymentOutcome::Success)).await;
    harness.happens::<OrderEvent, _>(confirmed("o-1")).await;
    harness.happens::<OrderEvent, _>(shipped("o-1")).await;
    harness.happens::<OrderEvent, _>(order("o-2")).await;
    harness.happens::<PaymentEvent, _>(payment("o-2", PaymentOutcome::Failed)).await;
    harness.happens::<OrderEvent, _>(cancelled("o-2")).await;

    harness.handled("consumer-email").await;
    running.stop().await;
    let received = smtp.received();
    assert_eq!(received.len(), 6);
    assert!(received.iter().all(|mail| mail.to == ["alice@example.org"]));
    let ids: HashSet<_> = received.iter().map(|mail| mail.header("Message-ID").unwrap().to_owned()).collect();
    let listed = listed(&mails).await;
    assert_eq!(listed.iter().filter(|mail| mail.status == MailStatus::Sent).count(), 6);
    let recorded: HashSet<_> = listed.into_iter().filter_map(|mail| mail.message_id).collect();
    assert_eq!(ids, recorded);
    assert_eq!(ids.len(), 6);
}

#[tokio::test]
async fn a_redelivery_of_a_mail_that_was_sent_sends_nothing() {
    let (harness, smtp) = servers().await;
    let placed = harness.happens::<OrderEvent, _>(order("o-1")).await;
    for _ in 0..3 {
        mailer(&harness, smtp.transport()).handle(placed.clone()).await.unwrap();
    }
    assert_eq!(smtp.received().len(), 1);
}

#[tokio::test]
async fn news_under_one_event_id_are_each_a_mail() {
    let (harness, smtp) = servers().await;
    let mailer = mailer(&harness, smtp.transport());
    let (mut placed, mut failed) = (Vec::new(), Vec::new());
    for (order_id, source) in [("o-1", "/one"), ("o-2", "/one"), ("o-3", "/two")] {
        let mut order = harness.happens::<OrderEvent, _>(order(order_id)).await;
        let mut payment = harness.happens::<PaymentEvent, _>(payment(order_id, PaymentOutcome::Failed)).await;
        for meta in [&mut order.meta, &mut payment.meta] {
            // As another producer's events stand on the log once they are adopted.
            (meta.id, meta.causation_id) = (EventId::new("e-1").unwrap(), None);
            meta.source = source.to_owned();
        }
        placed.push(order);
        failed.push(payment);
    }
    for _ in 0..2 {
        for order in &placed {
            mailer.handle(order.clone()).await.unwrap();
        }
        for payment in &failed {
            mailer.handle(payment.clone()).await.unwrap();
        }
    }
    let received = smtp.received();
    let ids: HashSet<_> = received.iter().map(|mail| mail.header("Message-ID").unwrap().to_owned()).collect();
    assert_eq!((received.len(), ids.len()), (6, 6), "a mail for each piece of news, and once");
}

#[tokio::test]
async fn a_mail_that_an_earlier_release_sent_is_not_sent_again_under_another_id() {
    let (harness, smtp) = servers().await;
    let mut orders = Vec::new();
    for order_id in ["o-1", "o-2"] {
        let mut order = harness.happens::<OrderEvent, _>(order(order_id)).await;
        (order.meta.id, order.meta.causation_id) = (EventId::new("e-1").unwrap(), None);
        orders.push(order);
    }
    // Its id followed from the event's id alone, and so did those of its events.
    let cause = orders[0].cause();
    let mail_id = EntityId::new(cause.derive_by_id_alone("mail").unwrap()).unwrap();
    let facts = MailFacts {
        order_id: orders[0].order_id.clone(),
        kind: MailKind::OrderPlaced,
        to: "alice@example.org".to_owned(),
        message_id: format!("<{mail_id}@example.com>"),
        mail_id: mail_id.clone(),
    };
    let request = Cause::request(EventId::new("e-1").unwrap());
    let mails = harness.log.store::<Mail>();
    mails.execute(&mail_id, &MailCommand::Attempt(facts.clone()), &request).await.unwrap();
    mails.execute(&mail_id, &MailCommand::MarkSent(facts), &request.step("sent")).await.unwrap();

    let mailer = mailer(&harness, smtp.transport());
    for order in orders {
        mailer.handle(order).await.unwrap();
    }
    let received = smtp.received();
    assert_eq!(received.len(), 1, "the second order's only");
    assert!(received[0].header("Subject").unwrap().contains("o-2"));
}

#[tokio::test]
async fn nobody_to_write_to_is_not_a_failure() {
    let (harness, smtp) = servers().await;
    let mut order = order("o-1");
    order.customer_email = None;
    let placed = harness.happens::<OrderEvent, _>(order).await;
    mailer(&harness, smtp.transport()).handle(placed).await.unwrap();
    assert_eq!(smtp.received(), []);
}

#[tokio::test]
async fn an_address_that_is_none_is_one_skipped_mail_and_no_dead_letter() {
    let (harness, smtp) = servers().await;
    let addresses = NO_ADDRESSES;
    let mailer = mailer(&harness, smtp.transport());
    for (n, address) in addresses.iter().enumerate() {
        let order_id = format!("o-{n}");
        let mut order = order(&order_id);
        order.customer_email = Some((*address).to_owned());
        let placed = harness.happens::<OrderEvent, _>(order).await;
        mailer.handle(placed.clone()).await.unwrap();
        mailer.handle(placed).await.unwrap();
        let failed = harness.happens::<PaymentEvent, _>(payment(&order_id, PaymentOutcome::Failed)).await;
        mailer.handle(failed).await.unwrap();
        let off = harness.happens::<OrderEvent, _>(cancelled(&order_id)).await;
        mailer.handle(off).await.unwrap();
    }
    assert_eq!(smtp.received(), []);
    let mails = listed(&harness.read_model()).await;
    assert_eq!(mails.len(), addresses.len(), "one for each order: {mails:?}");
    assert!(mails.iter().all(|mail| mail.status == MailStatus::Skipped && mail.reason.is_some()));
    assert!(mails.iter().all(|mail| mail.to.chars().count() <= 121 && !mail.to.contains('\n')));
}

/// Not to be written to: nobody, half an address, several, and two lines of a mail's header.
const NO_ADDRESSES: [&str; 6] =
    ["", "alice", "alice@", "a b@example.org", "alice@example.org\r\nBcc: eve@example.org", "a@b, c@d"];

#[tokio::test]
async fn a_server_that_says_never_is_believed() {
    let (harness, smtp) = servers().await;
    let placed = harness.happens::<OrderEvent, _>(order("o-1")).await;
    smtp.answers(Answer::Never);
    let failure = mailer(&harness, smtp.transport()).handle(placed).await.unwrap_err();
    assert!(matches!(failure, HandlerError::Reject(_)), "{failure:?}");
}

#[tokio::test]
async fn a_server_that_says_later_or_is_away_is_tried_again() {
    let (harness, smtp) = servers().await;
    let placed = harness.happens::<OrderEvent, _>(order("o-1")).await;
    smtp.answers(Answer::Later);
    let later = mailer(&harness, smtp.transport()).handle(placed.clone()).await.unwrap_err();
    assert!(matches!(later, HandlerError::Postpone(_)), "{later:?}");
    let nobody = Smtp::new(&"smtp://127.0.0.1:1".parse().unwrap());
    let away = mailer(&harness, nobody).handle(placed.clone()).await.unwrap_err();
    assert!(matches!(away, HandlerError::Unavailable { dependency: "smtp", .. }), "{away:?}");
    smtp.answers(Answer::Take);
    mailer(&harness, smtp.transport()).handle(placed).await.unwrap();
    assert_eq!(smtp.received().len(), 1);
}

#[tokio::test]
async fn a_server_that_falls_silent_is_not_waited_for_for_ever() {
    let (harness, smtp) = servers().await;
    let placed = harness.happens::<OrderEvent, _>(order("o-1")).await;
    smtp.answers(Answer::Nothing);
    let impatient = smtp.transport().with_patience(Duration::from_millis(300));
    let silence = mailer(&harness, impatient).handle(placed).await.unwrap_err();
    assert!(matches!(silence, HandlerError::Retry(_)), "{silence:?}");
}

/// SMTP has no transaction over both sides: here the mail goes out twice, and both carry the same `Message-ID`.
#[tokio::test]
async fn a_mail_whose_answer_was_lost_goes_out_again_as_the_same_mail() {
    let (harness, smtp) = servers().await;
    let placed = harness.happens::<OrderEvent, _>(order("o-1")).await;
    smtp.answers(Answer::TakeAndHangUp);
    let lost = mailer(&harness, smtp.transport()).handle(placed.clone()).await.unwrap_err();
    assert!(matches!(lost, HandlerError::Retry(_)), "{lost:?}");
    smtp.answers(Answer::Take);
    mailer(&harness, smtp.transport()).handle(placed).await.unwrap();
    let received = smtp.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].header("Message-ID"), received[1].header("Message-ID"));
}

/// Sends, and then the process dies before it can record that it did.
struct DiesAfterSending(Smtp);

impl MailTransport for DiesAfterSending {
    fn send<'a>(&'a self, letter: &'a Letter) -> Sending<'a> {
        Box::pin(async {
            self.0.send(letter).await?;
            std::future::pending().await
        })
    }
}

#[tokio::test]
async fn a_crash_between_sending_and_recording_leaves_one_mail_by_its_id() {
    let (harness, smtp) = servers().await;
    let placed = harness.happens::<OrderEvent, _>(order("o-1")).await;
    let dying = mailer(&harness, DiesAfterSending(smtp.transport()));
    let event = placed.clone();
    let dies = tokio::spawn(async move { dying.handle(event).await });
    eventually(SOON, async || (!smtp.received().is_empty()).then_some(())).await;
    dies.abort();

    for _ in 0..2 {
        mailer(&harness, smtp.transport()).handle(placed.clone()).await.unwrap();
    }
    let received = smtp.received();
    assert_eq!(received.len(), 2, "once before the crash, once after it, never again");
    assert_eq!(received[0].header("Message-ID"), received[1].header("Message-ID"));
    let mails = listed(&harness.read_model()).await;
    assert_eq!(mails.len(), 1, "one mail, recorded before it was sent");
    assert_eq!(mails[0].status, MailStatus::Sent);
}

#[tokio::test]
async fn news_of_an_order_that_is_not_there_yet_waits_for_it() {
    let (harness, smtp) = servers().await;
    let failed = harness.happens::<PaymentEvent, _>(payment("o-1", PaymentOutcome::Failed)).await;
    let early = mailer(&harness, smtp.transport()).handle(failed.clone()).await.unwrap_err();
    assert!(matches!(early, HandlerError::Retry(_)), "{early:?}");
    harness.happens::<OrderEvent, _>(order("o-1")).await;
    mailer(&harness, smtp.transport()).handle(failed).await.unwrap();
    assert_eq!(smtp.received().len(), 1);
}
