//! A mail server that takes no mails: nothing is lost, nothing becomes a dead letter, and one recipient is not all.

use std::time::Duration;

use common::order::OrderEvent;
use consumer_email::smtp::Smtp;
use consumer_email::transport::MailTransport;
use jetkit::testing::{Harness, Running, SOON, eventually};
use jetkit::{Breaker, open_circuits};

use crate::smtp_server::{Answer, SmtpServer};
use crate::{mailer, order, servers};

/// Starts the consumer as it is shipped, apart from its delays.
fn run(harness: &Harness, transport: impl MailTransport + 'static) -> Running {
    let (first_delay, longest_delay) = (Duration::from_millis(10), Duration::from_millis(50));
    let consumer = consumer_email::consumer(mailer(harness, transport))
        .breaker(Breaker { first_delay, longest_delay, doubt_after: 1000 })
        .retry_delays(first_delay, longest_delay)
        .postponements(first_delay, longest_delay, 10_000);
    harness.run(consumer)
}

/// Waits until the circuit is open, and returns why it is.
async fn opened(harness: &Harness) -> String {
    let circuit = eventually(SOON, || async { open_circuits(&harness.client).await.unwrap().pop() }).await;
    assert_eq!(circuit.dependency, "smtp");
    circuit.reason
}

/// Returns how many dead letters there are when every order is handled.
async fn dead_letters(harness: &Harness) -> u64 {
    harness.dead_letters("consumer-email").await
}

async fn orders(harness: &Harness, count: usize) {
    for n in 0..count {
        harness.happens::<OrderEvent, _>(order(&format!("o-{n}"))).await;
    }
}

/// Waits for so many more conversations.
async fn asked_again(smtp: &SmtpServer, times: usize) {
    let enough = smtp.conversations() + times;
    eventually(SOON, || async { (smtp.conversations() >= enough).then_some(()) }).await;
}

/// Has the server answer like that for longer than an event has attempts, then take mails: all leave, once.
async fn outlasts(smtp: &SmtpServer, answer: Answer, transport: Smtp, reason: &str) {
    let harness = Harness::start(&common::catalog()).await;
    smtp.answers(answer);
    orders(&harness, 5).await;
    let running = run(&harness, transport);
    let told = opened(&harness).await;
    assert!(told.contains(reason), "{told}");
    asked_again(smtp, 30).await;
    assert_eq!(smtp.received(), []);
    smtp.answers(Answer::Take);
    eventually(SOON, || async { open_circuits(&harness.client).await.unwrap().is_empty().then_some(()) })
        .await;
    assert_eq!(dead_letters(&harness).await, 0);
    running.stop().await;
    assert_eq!(smtp.received().len(), 5);
}

#[tokio::test]
async fn a_server_that_refuses_the_login_costs_no_mail() {
    let (harness, smtp) = servers().await;
    smtp.answers(Answer::RefusesLogin);
    orders(&harness, 5).await;
    let running = run(&harness, smtp.transport_with_login());
    let told = opened(&harness).await;
    assert!(told.contains("535"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    asked_again(&smtp, 30).await;
    running.stop().await;
    // Somebody puts the login right.
    smtp.answers(Answer::Take);
    let running = run(&harness, smtp.transport());
    assert_eq!(dead_letters(&harness).await, 0);
    running.stop().await;
    assert_eq!(smtp.received().len(), 5);
}

#[tokio::test]
async fn a_server_that_greets_with_554_costs_no_mail() {
    let smtp = SmtpServer::start().await;
    outlasts(&smtp, Answer::RefusesGreeting, smtp.transport(), "554").await;
}

#[tokio::test]
async fn a_server_that_wants_a_login_before_the_sender_costs_no_mail() {
    let smtp = SmtpServer::start().await;
    outlasts(&smtp, Answer::WantsLogin, smtp.transport(), "530").await;
}

#[tokio::test]
async fn a_server_that_shuts_down_at_the_recipient_costs_no_mail() {
    let smtp = SmtpServer::start().await;
    outlasts(&smtp, Answer::ShutsDown, smtp.transport(), "421").await;
}

#[tokio::test]
async fn a_server_that_is_away_for_a_while_costs_no_mail() {
    let (harness, mut smtp) = servers().await;
    let running = run(&harness, smtp.transport());
    orders(&harness, 2).await;
    eventually(SOON, || async { (smtp.received().len() >= 2).then_some(()) }).await;
    smtp.go_away();
    for n in 2..6 {
        harness.happens::<OrderEvent, _>(order(&format!("o-{n}"))).await;
    }
    opened(&harness).await;
    smtp.come_back().await;
    assert_eq!(dead_letters(&harness).await, 0);
    running.stop().await;
    assert_eq!(smtp.received().len(), 6);
}

#[tokio::test]
async fn a_greylisted_recipient_waits_and_holds_up_nobody() {
    let (harness, smtp) = servers().await;
    smtp.answers(Answer::Greylists("slow@example.org"));
    let mut slow = order("o-slow");
    slow.customer_email = Some("slow@example.org".to_owned());
    harness.happens::<OrderEvent, _>(slow).await;
    let running = run(&harness, smtp.transport());
    // More often than an event has attempts.
    eventually(SOON, || async { (smtp.wanted("slow@example.org") > 30).then_some(()) }).await;
    orders(&harness, 5).await;
    eventually(SOON, || async { (smtp.received().len() >= 5).then_some(()) }).await;
    assert_eq!(open_circuits(&harness.client).await.unwrap(), [], "one recipient is no outage");
    smtp.answers(Answer::Take);
    assert_eq!(dead_letters(&harness).await, 0);
    assert_eq!(smtp.received().len(), 6);
    running.stop().await;
}

#[tokio::test]
async fn a_recipient_that_is_refused_for_good_is_one_dead_letter_and_no_outage() {
    let (harness, smtp) = servers().await;
    smtp.answers(Answer::Refuses("gone@example.org"));
    let mut gone = order("o-gone");
    gone.customer_email = Some("gone@example.org".to_owned());
    harness.happens::<OrderEvent, _>(gone).await;
    orders(&harness, 5).await;
    let running = run(&harness, smtp.transport());
    assert_eq!(dead_letters(&harness).await, 1);
    assert_eq!(smtp.received().len(), 5);
    assert_eq!(smtp.wanted("gone@example.org"), 1);
    running.stop().await;
}

#[tokio::test]
async fn connections_are_kept_for_the_next_mails() {
    let (harness, smtp) = servers().await;
    let mailer = mailer(&harness, smtp.transport());
    for n in 0..5 {
        let placed = harness.happens::<OrderEvent, _>(order(&format!("o-{n}"))).await;
        jetkit::Handler::handle(&mailer, placed).await.unwrap();
    }
    assert_eq!((smtp.received().len(), smtp.conversations()), (5, 1));
}
