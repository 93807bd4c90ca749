//! A mail server that takes no mails: nothing is lost, nothing becomes a dead letter, and one recipient is not all.

use std::time::Duration;

use async_nats::jetstream;
use consumer_email::smtp::Smtp;
use consumer_email::transport::MailTransport;
use jetkit::testing::{NatsServer, eventually};
use jetkit::{Breaker, Consumer, EventLog, open_circuits};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::smtp_server::{Answer, SmtpServer};
use crate::{AnyOrder, happens, log, mailer, order};

const SOON: Duration = Duration::from_secs(30);

struct Running {
    log: EventLog,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

/// The consumer as it is shipped, apart from its delays.
fn run(log: &EventLog, transport: impl MailTransport + 'static) -> Running {
    let impatient = |consumer: Consumer| {
        let (first_delay, longest_delay) = (Duration::from_millis(10), Duration::from_millis(50));
        consumer
            .breaker(Breaker { first_delay, longest_delay, doubt_after: 1000 })
            .retry_delays(first_delay, longest_delay)
            .postponements(first_delay, longest_delay, 10_000)
    };
    let consumer = impatient(consumer_email::consumer(mailer(log, transport)));
    let stop = CancellationToken::new();
    let task = tokio::spawn(consumer.run(log.client().clone(), stop.clone()));
    Running { log: log.clone(), stop, task }
}

impl Running {
    async fn opened(&self) -> String {
        let open = || async { open_circuits(self.log.client()).await.unwrap().pop() };
        let circuit = eventually(SOON, open).await;
        assert_eq!(circuit.dependency, "smtp");
        circuit.reason
    }

    async fn dead_letters(&self) -> u64 {
        let js = jetstream::new(self.log.client().clone());
        js.get_stream("DLQ").await.unwrap().cached_info().state.messages
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

async fn orders(log: &EventLog, count: usize) {
    for n in 0..count {
        happens::<AnyOrder, _>(log, order(&format!("o-{n}"))).await;
    }
}

/// Waits for so many more conversations.
async fn asked_again(smtp: &SmtpServer, times: usize) {
    let enough = smtp.conversations() + times;
    eventually(SOON, || async { (smtp.conversations() >= enough).then_some(()) }).await;
}

/// Has the server answer like that for longer than an event has attempts, then take mails: all leave, once.
async fn outlasts(smtp: &SmtpServer, answer: Answer, transport: Smtp, reason: &str) {
    let nats = NatsServer::start().await;
    let log = log(&nats).await;
    smtp.answers(answer);
    orders(&log, 5).await;
    let running = run(&log, transport);
    let told = running.opened().await;
    assert!(told.contains(reason), "{told}");
    asked_again(smtp, 30).await;
    assert_eq!(smtp.received(), []);
    smtp.answers(Answer::Take);
    eventually(SOON, || async { (smtp.received().len() >= 5).then_some(()) }).await;
    eventually(SOON, || async { open_circuits(log.client()).await.unwrap().is_empty().then_some(()) }).await;
    assert_eq!(running.dead_letters().await, 0);
    running.stop().await;
    assert_eq!(smtp.received().len(), 5);
}

#[tokio::test]
async fn a_server_that_refuses_the_login_costs_no_mail() {
    let smtp = SmtpServer::start().await;
    let nats = NatsServer::start().await;
    let log = log(&nats).await;
    smtp.answers(Answer::RefusesLogin);
    orders(&log, 5).await;
    let running = run(&log, smtp.transport_with_login());
    let told = running.opened().await;
    assert!(told.contains("535"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    asked_again(&smtp, 30).await;
    assert_eq!(running.dead_letters().await, 0);
    running.stop().await;
    // Somebody puts the login right.
    smtp.answers(Answer::Take);
    let running = run(&log, smtp.transport());
    eventually(SOON, || async { (smtp.received().len() >= 5).then_some(()) }).await;
    assert_eq!(running.dead_letters().await, 0);
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
    let (nats, mut smtp) = (NatsServer::start().await, SmtpServer::start().await);
    let log = log(&nats).await;
    let running = run(&log, smtp.transport());
    orders(&log, 2).await;
    eventually(SOON, || async { (smtp.received().len() >= 2).then_some(()) }).await;
    smtp.go_away();
    for n in 2..6 {
        happens::<AnyOrder, _>(&log, order(&format!("o-{n}"))).await;
    }
    running.opened().await;
    smtp.come_back().await;
    eventually(SOON, || async { (smtp.received().len() >= 6).then_some(()) }).await;
    assert_eq!(running.dead_letters().await, 0);
    running.stop().await;
    assert_eq!(smtp.received().len(), 6);
}

#[tokio::test]
async fn a_greylisted_recipient_waits_and_holds_up_nobody() {
    let (nats, smtp) = (NatsServer::start().await, SmtpServer::start().await);
    let log = log(&nats).await;
    smtp.answers(Answer::Greylists("slow@example.org"));
    let mut slow = order("o-slow");
    slow.customer_email = Some("slow@example.org".to_owned());
    happens::<AnyOrder, _>(&log, slow).await;
    let running = run(&log, smtp.transport());
    // More often than an event has attempts.
    eventually(SOON, || async { (smtp.wanted("slow@example.org") > 30).then_some(()) }).await;
    orders(&log, 5).await;
    eventually(SOON, || async { (smtp.received().len() >= 5).then_some(()) }).await;
    assert_eq!(open_circuits(log.client()).await.unwrap(), [], "one recipient is no outage");
    assert_eq!(running.dead_letters().await, 0);
    smtp.answers(Answer::Take);
    eventually(SOON, || async { (smtp.received().len() >= 6).then_some(()) }).await;
    assert_eq!(running.dead_letters().await, 0);
    running.stop().await;
}

#[tokio::test]
async fn a_recipient_that_is_refused_for_good_is_one_dead_letter_and_no_outage() {
    let (nats, smtp) = (NatsServer::start().await, SmtpServer::start().await);
    let log = log(&nats).await;
    smtp.answers(Answer::Refuses("gone@example.org"));
    let mut gone = order("o-gone");
    gone.customer_email = Some("gone@example.org".to_owned());
    happens::<AnyOrder, _>(&log, gone).await;
    orders(&log, 5).await;
    let running = run(&log, smtp.transport());
    eventually(SOON, || async { (smtp.received().len() >= 5).then_some(()) }).await;
    eventually(SOON, || async { (running.dead_letters().await == 1).then_some(()) }).await;
    assert_eq!(smtp.wanted("gone@example.org"), 1);
    running.stop().await;
}

#[tokio::test]
async fn connections_are_kept_for_the_next_mails() {
    let (nats, smtp) = (NatsServer::start().await, SmtpServer::start().await);
    let log = log(&nats).await;
    let mailer = mailer(&log, smtp.transport());
    for n in 0..5 {
        let placed = happens::<AnyOrder, _>(&log, order(&format!("o-{n}"))).await;
        jetkit::Handler::handle(&mailer, placed).await.unwrap();
    }
    assert_eq!((smtp.received().len(), smtp.conversations()), (5, 1));
}
