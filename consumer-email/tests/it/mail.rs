//! The rules of one mail.

use common::mail::{MailAttempted, MailEvent, MailKind, MailSent, MailSkipped};
use consumer_email::mail::{Mail, MailCommand, MailFacts, MailRejection};
use jetkit::testing::{aggregate_laws, given};
use proptest::prelude::*;

use crate::id;

fn facts() -> MailFacts {
    MailFacts {
        mail_id: id("m-1"),
        order_id: id("o-1"),
        kind: MailKind::OrderPlaced,
        to: "alice@example.org".into(),
        message_id: "<m-1@example.com>".into(),
    }
}

fn attempted() -> MailEvent {
    let MailFacts { mail_id, order_id, kind, to, message_id } = facts();
    MailAttempted { mail_id, order_id, kind, to, message_id }.into()
}

fn sent() -> MailEvent {
    let MailFacts { mail_id, order_id, kind, to, message_id } = facts();
    MailSent { mail_id, order_id, kind, to, message_id }.into()
}

#[test]
fn an_attempt_is_recorded_once() {
    given::<Mail>([]).when(&MailCommand::Attempt(facts())).then([attempted()]);
    given::<Mail>([attempted()]).when(&MailCommand::Attempt(facts())).then_nothing();
}

#[test]
fn a_mail_is_sent_once() {
    given::<Mail>([attempted()]).when(&MailCommand::MarkSent(facts())).then([sent()]);
    given::<Mail>([attempted(), sent()]).when(&MailCommand::MarkSent(facts())).then_nothing();
    given::<Mail>([attempted(), sent()]).when(&MailCommand::Attempt(facts())).then_nothing();
}

#[test]
fn what_was_skipped_is_never_sent() {
    let skipped = || {
        let MailFacts { mail_id, order_id, kind, .. } = facts();
        MailSkipped { mail_id, order_id, kind, to: "alice".into(), reason: "no domain".into() }
    };
    given::<Mail>([]).when(&MailCommand::Skip(skipped())).then([skipped().into()]);
    given::<Mail>([skipped().into()]).when(&MailCommand::Skip(skipped())).then_nothing();
    given::<Mail>([skipped().into()]).when(&MailCommand::Attempt(facts())).then_nothing();
    given::<Mail>([skipped().into()])
        .when(&MailCommand::MarkSent(facts()))
        .then_rejected(MailRejection::NeverAttempted);
    given::<Mail>([attempted(), sent()]).when(&MailCommand::Skip(skipped())).then_nothing();
}

#[test]
fn what_nobody_tried_was_not_sent() {
    given::<Mail>([]).when(&MailCommand::MarkSent(facts())).then_rejected(MailRejection::NeverAttempted);
}

proptest! {
    #[test]
    fn a_mail_is_attempted_at_most_once_and_then_sent_at_most_once(
        marks in prop::collection::vec(any::<bool>(), 0..10)
    ) {
        let commands = marks.into_iter().map(|mark| {
            if mark { MailCommand::MarkSent(facts()) } else { MailCommand::Attempt(facts()) }
        });
        let (_, events) = aggregate_laws(commands, |_: &Mail| {});
        prop_assert!([attempted(), sent()].starts_with(&events), "{:?}", events);
    }
}
