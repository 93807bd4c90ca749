//! What is known about every dead letter: a fold of the stream `DLQ`.
//!
//! A message that one consumer gave up is one entry, however often it came back. Payloads are not kept here: an entry
//! knows where on the stream they are.

use anyhow::Context;
use chrono::{DateTime, Utc};
use jetkit::http::{Page, PageQuery};
use jetkit::projection::{Conditions, FromStream, List, Order, Row, Tables, Word, params, rusqlite};
use jetkit::{DLQ, DeadLetter, FailureClass, FollowedMessage, Projection};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Every entry.
#[derive(Debug)]
pub struct DeadLetters;

/// One message of the stream: what it says, about which letter.
#[derive(Debug, Clone)]
pub struct Filed {
    /// Its position on the stream.
    pub sequence: u64,
    /// What it says.
    pub news: News,
    /// The letter.
    pub letter: DeadLetter,
}

/// A message that nobody here wrote is parked: it is on the stream for whoever wants to look.
impl FromStream for Filed {
    const STREAM: &'static str = DLQ;

    fn filters() -> Vec<String> {
        Vec::new()
    }

    fn from_stream(followed: FollowedMessage) -> anyhow::Result<Self> {
        let FollowedMessage { message, sequence, .. } = followed;
        let news = News::on(&message.subject).context("the subject says nothing about dead letters")?;
        let letter = DeadLetter::decode(&message.headers.unwrap_or_default(), message.payload)?;
        Ok(Self { sequence, news, letter })
    }
}

/// One message that one consumer gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Entry {
    /// Names the message and the consumer.
    pub id: String,
    /// Who gave up.
    pub consumer: String,
    /// What was given up: `order.placed`, by its subject.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Why.
    pub class: FailureClass,
    /// Where it stands.
    pub status: Status,
    /// The outermost error.
    pub error: String,
    /// How often the handler was started, last time.
    pub attempts: u32,
    /// How often it was sent back to the consumer.
    pub redrives: u32,
    /// When it failed first.
    pub first_failed_at: DateTime<Utc>,
    /// When it was given up last.
    pub last_failed_at: DateTime<Utc>,
    /// The subject of the original.
    pub subject: String,
    /// The stream of the original.
    pub stream: String,
    /// The original's position there.
    pub sequence: u64,
    /// Where on the stream `DLQ` its latest dead letter is.
    pub dlq_sequence: u64,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Somebody should look.
    Open,
    /// Sent back to its consumer. If it fails again it is open again.
    Redriven,
    /// Nobody will try it again.
    Dismissed,
}

/// What a message on the stream says about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The consumer gave up.
    GivenUp,
    /// It was sent back to the consumer.
    Redriven,
    /// It was dismissed.
    Dismissed,
}

impl News {
    /// What a message on that subject says; [`None`] if it says nothing about dead letters.
    pub fn on(subject: &str) -> Option<Self> {
        match subject.strip_prefix("dlq.")?.split_once('.')?.0 {
            "events" => Some(Self::GivenUp),
            "redrive" => Some(Self::Redriven),
            "dismissed" => Some(Self::Dismissed),
            _ => None,
        }
    }
}

/// Which entries are meant. An absent part means any, except for the status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Who gave up.
    pub consumer: Option<String>,
    /// What was given up.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// Why.
    pub class: Option<FailureClass>,
    /// Where it stands. Absent: not dismissed.
    pub status: Option<Status>,
}

const COLUMNS: &str = "id, consumer, event_type, class, status, error, attempts, redrives, first_failed_at, \
                       last_failed_at, subject, stream, sequence, dlq_sequence";

impl Entry {
    /// One entry.
    pub fn find(tables: &Tables<'_>, id: &str) -> rusqlite::Result<Option<Self>> {
        tables.first(&format!("SELECT {COLUMNS} FROM dead_letters WHERE id = ?1"), [id], Self::read)
    }

    /// Returns the entries that `filter` takes, the latest first. An entry that fails again keeps its place: who reads the
    /// list page by page misses none and sees none twice.
    pub fn list(tables: &Tables<'_>, filter: Filter, page: &PageQuery) -> rusqlite::Result<Page<Self>> {
        tables.page(filter.list(Order::Descending("place")), page, Self::read)
    }

    /// Returns the oldest entries that `filter` takes; no more than `most`, and how many there are.
    pub fn oldest(tables: &Tables<'_>, filter: Filter, most: usize) -> rusqlite::Result<(Vec<Self>, usize)> {
        let page = PageQuery::number(1, most);
        let found = tables.page(filter.list(Order::Ascending("place")), &page, Self::read)?;
        Ok((found.items, found.total))
    }

    /// What the stream's news make of an entry; [`None`] if nothing changes. The same news twice change nothing: what an
    /// entry has been through is told by its number of redrives.
    fn after(before: Option<Self>, Filed { sequence, news, letter }: &Filed) -> Option<Self> {
        match (news, before) {
            (News::GivenUp, before) => Self::given_up(before, *sequence, letter),
            (_, None) => None,
            (News::Redriven, Some(before)) => (letter.redrives > before.redrives).then_some(Self {
                redrives: letter.redrives,
                status: Status::Redriven,
                ..before
            }),
            (News::Dismissed, Some(before)) => Some(Self { status: Status::Dismissed, ..before }),
        }
    }

    fn given_up(before: Option<Self>, dlq_sequence: u64, letter: &DeadLetter) -> Option<Self> {
        let repeated = before.as_ref().is_some_and(|before| match before.status {
            Status::Open | Status::Dismissed => letter.redrives <= before.redrives,
            Status::Redriven => letter.redrives < before.redrives,
        });
        if repeated {
            return None;
        }
        let original = &letter.original;
        Some(Self {
            id: letter.id(),
            consumer: letter.consumer.clone(),
            event_type: event_type(&original.subject),
            class: letter.class,
            status: Status::Open,
            error: letter.errors.first().cloned().unwrap_or_default(),
            attempts: letter.attempts,
            redrives: letter.redrives,
            first_failed_at: before.map_or(letter.first_failed_at, |before| before.first_failed_at),
            last_failed_at: letter.last_failed_at,
            subject: original.subject.clone(),
            stream: original.stream.clone(),
            sequence: original.sequence,
            dlq_sequence,
        })
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            consumer: row.get("consumer")?,
            event_type: row.get("event_type")?,
            class: row.get::<_, Word<_>>("class")?.0,
            status: row.get::<_, Word<_>>("status")?.0,
            error: row.get("error")?,
            attempts: row.get("attempts")?,
            redrives: row.get("redrives")?,
            first_failed_at: row.get::<_, Word<_>>("first_failed_at")?.0,
            last_failed_at: row.get::<_, Word<_>>("last_failed_at")?.0,
            subject: row.get("subject")?,
            stream: row.get("stream")?,
            sequence: row.get("sequence")?,
            dlq_sequence: row.get("dlq_sequence")?,
        })
    }
}

impl Filter {
    fn list(self, order: Order<'_>) -> List<'_> {
        let dismissed = self.status.is_none().then_some(Word(Status::Dismissed));
        let matching = Conditions::default()
            .equal("consumer", self.consumer)
            .equal("event_type", self.event_type)
            .equal("class", self.class.map(Word))
            .equal("status", self.status.map(Word))
            .unequal("status", dismissed);
        List { columns: COLUMNS, from: "dead_letters", matching, order }
    }
}

impl Projection for DeadLetters {
    const NAME: &'static str = "dead_letters";
    // 2: an entry has a place of its own.
    const VERSION: u32 = 2;
    const SCHEMA: &'static str = "
        CREATE TABLE dead_letters (
            id TEXT NOT NULL PRIMARY KEY,
            consumer TEXT NOT NULL,
            event_type TEXT NOT NULL,
            class TEXT NOT NULL,
            status TEXT NOT NULL,
            error TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            redrives INTEGER NOT NULL,
            first_failed_at TEXT NOT NULL,
            last_failed_at TEXT NOT NULL,
            subject TEXT NOT NULL,
            stream TEXT NOT NULL,
            sequence INTEGER NOT NULL, -- of the original on its stream
            dlq_sequence INTEGER NOT NULL UNIQUE,
            place INTEGER NOT NULL UNIQUE -- of its first dead letter on the stream
        );
        CREATE INDEX dead_letters_of_consumer ON dead_letters (consumer, status);
    ";
    type Event = Filed;

    fn apply(tables: &Tables<'_>, filed: &Filed) -> anyhow::Result<()> {
        let before = Entry::find(tables, &filed.letter.id())?;
        let Some(entry) = Entry::after(before, filed) else { return Ok(()) };
        tables.run(
            "INSERT INTO dead_letters
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
             ON CONFLICT (id) DO UPDATE SET
                 class = excluded.class, status = excluded.status, error = excluded.error,
                 attempts = excluded.attempts, redrives = excluded.redrives,
                 last_failed_at = excluded.last_failed_at, dlq_sequence = excluded.dlq_sequence",
            params![
                entry.id,
                entry.consumer,
                entry.event_type,
                Word(entry.class),
                Word(entry.status),
                entry.error,
                entry.attempts,
                entry.redrives,
                Word(entry.first_failed_at),
                Word(entry.last_failed_at),
                entry.subject,
                entry.stream,
                entry.sequence,
                entry.dlq_sequence,
                filed.sequence,
            ],
        )?;
        Ok(())
    }
}

/// The first two tokens of a subject; the whole of a shorter one.
fn event_type(subject: &str) -> String {
    let end = subject.match_indices('.').nth(1).map_or(subject.len(), |(at, _)| at);
    subject.get(..end).unwrap_or(subject).to_owned()
}
