//! What is known about every dead letter: a fold of the stream `DLQ`. Pure.
//!
//! A message that one consumer gave up is one entry, however often it came back. Payloads are not kept here: an entry
//! knows where on the stream they are.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use eventkit::{DeadLetter, FailureClass};
use serde::{Deserialize, Serialize};

/// Every entry, by id, and by its place on the stream.
#[derive(Debug, Default)]
pub struct DeadLetters {
    entries: HashMap<String, Entry>,
    /// The entries' sequences and ids: the latest failure last.
    by_sequence: BTreeSet<(u64, String)>,
}

/// One message that one consumer gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
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

impl Filter {
    fn takes(&self, entry: &Entry) -> bool {
        self.consumer.as_ref().is_none_or(|consumer| *consumer == entry.consumer)
            && self.event_type.as_ref().is_none_or(|event_type| *event_type == entry.event_type)
            && self.class.is_none_or(|class| class == entry.class)
            && match self.status {
                Some(status) => status == entry.status,
                None => entry.status != Status::Dismissed,
            }
    }
}

impl DeadLetters {
    /// Takes in a message of the stream, at its position there. The same news twice change nothing: what an entry has been
    /// through is told by its number of redrives.
    pub fn apply(&mut self, sequence: u64, news: News, letter: &DeadLetter) {
        match news {
            News::GivenUp => self.given_up(sequence, letter),
            News::Redriven => {
                if let Some(entry) = self.entries.get_mut(&letter.id())
                    && letter.redrives > entry.redrives
                {
                    entry.redrives = letter.redrives;
                    entry.status = Status::Redriven;
                }
            }
            News::Dismissed => {
                if let Some(entry) = self.entries.get_mut(&letter.id()) {
                    entry.status = Status::Dismissed;
                }
            }
        }
    }

    fn given_up(&mut self, sequence: u64, letter: &DeadLetter) {
        let id = letter.id();
        let before = self.entries.get(&id);
        let repeated = before.is_some_and(|before| match before.status {
            Status::Open | Status::Dismissed => letter.redrives <= before.redrives,
            Status::Redriven => letter.redrives < before.redrives,
        });
        if repeated {
            return;
        }
        let first_failed_at = before.map_or(letter.first_failed_at, |before| before.first_failed_at);
        if let Some(before) = before {
            self.by_sequence.remove(&(before.dlq_sequence, id.clone()));
        }
        self.by_sequence.insert((sequence, id.clone()));
        let original = &letter.original;
        let entry = Entry {
            id: id.clone(),
            consumer: letter.consumer.clone(),
            event_type: event_type(&original.subject),
            class: letter.class,
            status: Status::Open,
            error: letter.errors.first().cloned().unwrap_or_default(),
            attempts: letter.attempts,
            redrives: letter.redrives,
            first_failed_at,
            last_failed_at: letter.last_failed_at,
            subject: original.subject.clone(),
            stream: original.stream.clone(),
            sequence: original.sequence,
            dlq_sequence: sequence,
        };
        self.entries.insert(id, entry);
    }

    /// The entries that `filter` takes, the latest failure first.
    pub fn list<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a Entry> {
        let latest_first = self.by_sequence.iter().rev().filter_map(|(_, id)| self.entries.get(id));
        latest_first.filter(|entry| filter.takes(entry))
    }

    /// One entry.
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }
}

/// The first two tokens of a subject; the whole of a shorter one.
fn event_type(subject: &str) -> String {
    let end = subject.match_indices('.').nth(1).map_or(subject.len(), |(at, _)| at);
    subject.get(..end).unwrap_or(subject).to_owned()
}
