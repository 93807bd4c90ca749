//! Mails: one for every piece of news, sent once, and no other.

use std::collections::{BTreeMap, HashMap, HashSet};

use common::ShopEvent;
use common::mail::{MailKind, MailSent};
use common::payment::PaymentOutcome;
use jetkit::{EntityId, EventId};

use super::{Check, Ledger};
use crate::demo::DeliveredMail;

/// A mail that must have been sent.
struct Expected<'a> {
    cause: &'a EventId,
    sequence: u64,
    order_id: &'a EntityId,
    kind: MailKind,
    to: &'a str,
}

pub(super) fn check(ledger: &Ledger) -> Check {
    let mut check = Check::new("mails");
    let expected = expected(ledger);
    let mut sent: HashMap<&EventId, Vec<&MailSent>> = HashMap::new();
    for event in ledger.events() {
        if let (ShopEvent::MailSent(mail), Some(cause)) = (&event.event, &event.meta.causation_id) {
            sent.entry(cause).or_default().push(mail);
        }
    }
    let mut listed: BTreeMap<_, usize> = BTreeMap::new();
    for mail in ledger.mails.iter().filter(|mail| mail.status == "sent") {
        *listed.entry(&mail.mail_id).or_default() += 1;
    }
    let mut arrived: HashMap<&str, Vec<&DeliveredMail>> = HashMap::new();
    for mail in &ledger.delivered {
        arrived.entry(&mail.message_id).or_default().push(mail);
    }
    for wanted in &expected {
        let Expected { order_id, kind, to, .. } = wanted;
        let what = || format!("the mail {kind:?} about order {order_id} to {to}");
        let mail = match &*sent.remove(wanted.cause).unwrap_or_default() {
            [mail] if mail.kind == *kind && mail.order_id == **order_id && mail.to == *to => *mail,
            [] => {
                check.wrong.push(format!("{} was never sent", what()));
                continue;
            }
            other => {
                check.wrong.push(format!("{} was sent as {other:?}", what()));
                continue;
            }
        };
        let times = listed.remove(&mail.mail_id).unwrap_or(0);
        check.holds(times == 1, || format!("{} is listed as sent {times} times", what()));
        // A catcher that was restarted has forgotten what came before.
        if wanted.sequence > ledger.before.log {
            let arrived = arrived.get(&*mail.message_id).map_or(&[][..], Vec::as_slice);
            check.holds(arrived.len() == 1, || format!("{} arrived {} times", what(), arrived.len()));
            let right = |mail: &&DeliveredMail| mail.to == *to && mail.subject.contains(order_id.as_str());
            check.holds(arrived.iter().all(right), || format!("{} arrived as {arrived:?}", what()));
        }
    }
    for mail in sent.into_values().flatten() {
        check
            .wrong
            .push(format!("a mail {:?} about order {} went out for no reason", mail.kind, mail.order_id));
    }
    for mail_id in listed.into_keys() {
        check.wrong.push(format!("mail {mail_id} is listed as sent, and should not have been"));
    }
    let known: HashSet<_> = ledger.mails.iter().filter_map(|mail| mail.message_id.as_deref()).collect();
    for stray in ledger.delivered.iter().filter(|mail| !known.contains(&*mail.message_id)) {
        check.wrong.push(format!("a mail arrived that nobody sent: {stray:?}"));
    }
    check.seen = format!("{} pieces of news, each told once", expected.len());
    check
}

/// A mail for each event that customers hear of, where the order has an address. What came before this run may have
/// had addresses that are none; the run's own are all good.
fn expected(ledger: &Ledger) -> Vec<Expected<'_>> {
    let skipped: HashSet<_> = ledger
        .events()
        .filter(|event| event.sequence <= ledger.before.log)
        .filter_map(|event| match &event.event {
            ShopEvent::MailSkipped(mail) => Some(&mail.order_id),
            _ => None,
        })
        .collect();
    let addresses: HashMap<_, _> = ledger
        .events()
        .filter_map(|event| match &event.event {
            ShopEvent::OrderPlaced(order) => Some((&order.order_id, order.customer_email.as_deref()?)),
            _ => None,
        })
        .collect();
    let expected = ledger.events().filter_map(|event| {
        let (order_id, kind) = match &event.event {
            ShopEvent::OrderPlaced(e) => (&e.order_id, MailKind::OrderPlaced),
            ShopEvent::OrderConfirmed(e) => (&e.order_id, MailKind::OrderConfirmed),
            ShopEvent::OrderShipped(e) => (&e.order_id, MailKind::OrderShipped),
            ShopEvent::OrderCancelled(e) => (&e.order_id, MailKind::OrderCancelled),
            ShopEvent::PaymentProcessed(e) if e.status == PaymentOutcome::Failed => {
                (&e.order_id, MailKind::PaymentFailed)
            }
            _ => return None,
        };
        let to = addresses.get(order_id).copied().filter(|_| !skipped.contains(order_id))?;
        Some(Expected { cause: &event.meta.id, sequence: event.sequence, order_id, kind, to })
    });
    expected.collect()
}
