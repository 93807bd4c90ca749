//! Which mails went out, kept from the log. Losing it loses nothing: it is folded again at start.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use common::mail::MailEvent;
use common::mail::MailKind;
use eventkit::view::Projection;
use eventkit::{EntityId, Recorded};
use serde::Serialize;

/// Every mail, in the order of its first attempt.
#[derive(Debug, Default)]
pub struct MailView {
    mails: Vec<MailSummary>,
    by_id: HashMap<EntityId, usize>,
    by_order: HashMap<EntityId, Vec<usize>>,
}

/// One mail, as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MailSummary {
    /// The mail.
    pub mail_id: EntityId,
    /// The order that it is about.
    pub order_id: EntityId,
    /// What it says.
    pub kind: MailKind,
    /// To whom.
    pub to: String,
    /// Its `Message-ID`.
    pub message_id: String,
    /// Whether it went out.
    pub status: MailStatus,
    /// When it was first tried.
    pub attempted_at: DateTime<Utc>,
    /// When it went out.
    pub sent_at: Option<DateTime<Utc>>,
}

/// Whether a mail went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MailStatus {
    /// It was tried; it is tried again, or is a dead letter.
    Attempted,
    /// The mail server took it.
    Sent,
}

impl MailView {
    /// The mails about one order, or all; oldest first.
    pub fn mails(&self, order_id: Option<&EntityId>) -> Vec<&MailSummary> {
        match order_id {
            None => self.mails.iter().collect(),
            Some(order_id) => self
                .by_order
                .get(order_id)
                .into_iter()
                .flatten()
                .filter_map(|index| self.mails.get(*index))
                .collect(),
        }
    }
}

impl Projection for MailView {
    type Event = MailEvent;

    fn apply(&mut self, event: &Recorded<MailEvent>) {
        match &event.event {
            MailEvent::Attempted(e) => {
                let index = self.mails.len();
                self.by_id.insert(e.mail_id.clone(), index);
                self.by_order.entry(e.order_id.clone()).or_default().push(index);
                self.mails.push(MailSummary {
                    mail_id: e.mail_id.clone(),
                    order_id: e.order_id.clone(),
                    kind: e.kind,
                    to: e.to.clone(),
                    message_id: e.message_id.clone(),
                    status: MailStatus::Attempted,
                    attempted_at: event.meta.time,
                    sent_at: None,
                });
            }
            MailEvent::Sent(e) => {
                let index = self.by_id.get(&e.mail_id);
                if let Some(mail) = index.and_then(|index| self.mails.get_mut(*index)) {
                    mail.status = MailStatus::Sent;
                    mail.sent_at = Some(event.meta.time);
                }
            }
        }
    }
}
