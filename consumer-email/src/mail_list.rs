//! What readers see of mails: which were tried, which went out, which had nowhere to go.

use chrono::{DateTime, Utc};
use common::mail::{MailEvent, MailKind};
use jetkit::http::{Page, PageQuery};
use jetkit::projection::{Conditions, List, Order, OutOfTurn, Row, Tables, Word, params, rusqlite};
use jetkit::{EntityId, Projection, Recorded};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Every mail, in the order of its first attempt.
#[derive(Debug)]
pub struct MailList;

/// One mail, as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MailSummary {
    /// The mail.
    pub mail_id: EntityId,
    /// The order that it is about.
    pub order_id: EntityId,
    /// What it says.
    pub kind: MailKind,
    /// To whom.
    pub to: String,
    /// Its `Message-ID`; none if it was skipped.
    pub message_id: Option<String>,
    /// Whether it went out.
    pub status: MailStatus,
    /// When it was first tried, or skipped.
    pub attempted_at: DateTime<Utc>,
    /// When it went out.
    pub sent_at: Option<DateTime<Utc>>,
    /// Why it was skipped.
    pub reason: Option<String>,
}

/// Whether a mail went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MailStatus {
    /// It was tried; it is tried again, or is a dead letter.
    Attempted,
    /// The mail server took it.
    Sent,
    /// It had nowhere to go, and neither has any other mail about its order.
    Skipped,
}

impl MailSummary {
    /// The mails about one order, or all; oldest first.
    pub fn list(
        tables: &Tables<'_>,
        order_id: Option<EntityId>,
        page: &PageQuery,
    ) -> rusqlite::Result<Page<Self>> {
        let list = List {
            columns: "mail_id, order_id, kind, recipient, message_id, status, attempted_at, sent_at, reason",
            from: "mails",
            matching: Conditions::default().equal("order_id", order_id),
            order: Order::Ascending("place"),
        };
        tables.page(list, page, Self::read)
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            mail_id: row.get("mail_id")?,
            order_id: row.get("order_id")?,
            kind: row.get::<_, Word<_>>("kind")?.0,
            to: row.get("recipient")?,
            message_id: row.get("message_id")?,
            status: row.get::<_, Word<_>>("status")?.0,
            attempted_at: row.get::<_, Word<_>>("attempted_at")?.0,
            sent_at: row.get::<_, Option<Word<_>>>("sent_at")?.map(|Word(at)| at),
            reason: row.get("reason")?,
        })
    }
}

impl Projection for MailList {
    const NAME: &'static str = "mails";
    const SCHEMA: &'static str = "
        CREATE TABLE mails (
            place INTEGER PRIMARY KEY, -- of its first attempt on the log
            mail_id TEXT NOT NULL UNIQUE,
            version INTEGER NOT NULL,
            order_id TEXT NOT NULL,
            kind TEXT NOT NULL,
            recipient TEXT NOT NULL,
            message_id TEXT,
            status TEXT NOT NULL,
            attempted_at TEXT NOT NULL,
            sent_at TEXT,
            reason TEXT
        );
        CREATE INDEX mails_of_order ON mails (order_id);
    ";
    type Event = Recorded<MailEvent>;

    fn apply(tables: &Tables<'_>, event: &Recorded<MailEvent>) -> anyhow::Result<()> {
        let (version, time) = (event.version, Word(event.meta.time));
        let rows = match &event.event {
            MailEvent::Attempted(mail) => tables.run(
                "INSERT INTO mails SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL, NULL WHERE ?3 = 1",
                params![
                    event.sequence,
                    mail.mail_id,
                    version,
                    mail.order_id,
                    Word(mail.kind),
                    mail.to,
                    mail.message_id,
                    Word(MailStatus::Attempted),
                    time,
                ],
            )?,
            MailEvent::Sent(mail) => tables.run(
                "UPDATE mails SET version = ?2, status = ?3, sent_at = ?4 WHERE mail_id = ?1 AND version = ?2 - 1",
                params![mail.mail_id, version, Word(MailStatus::Sent), time],
            )?,
            MailEvent::Skipped(mail) => tables.run(
                "INSERT INTO mails SELECT ?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7, ?8, NULL, ?9 WHERE ?3 = 1",
                params![
                    event.sequence,
                    mail.mail_id,
                    version,
                    mail.order_id,
                    Word(mail.kind),
                    mail.to,
                    Word(MailStatus::Skipped),
                    time,
                    mail.reason,
                ],
            )?,
        };
        Ok(OutOfTurn::unless_changed(rows, event)?)
    }
}
