//! Everything that can be seen of the shop when all is quiet: what the audit goes by. No I/O here; `reading.rs` fills it.

use std::collections::BTreeMap;
use std::time::Duration;

use common::ShopEvent;
use common::mail::MailKind;
use common::money::Money;
use jetkit::{DeadLetter, EntityId, FailureClass, Recorded};
use serde::Deserialize;

use super::{Analytics, Ending, Traffic};

/// How far the log and the dead letters go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The last sequence of the stream EVENTS.
    pub log: u64,
    /// The last sequence of the stream DLQ.
    pub dead_letters: u64,
}

/// What was asked for, what the log says, and what everybody else says.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Where everything stood before the traffic.
    pub before: Position,
    /// What was asked of the shop.
    pub traffic: Traffic,
    /// The whole stream EVENTS, in order.
    pub log: Vec<Logged>,
    /// What order-service says of orders.
    pub orders: Vec<ListedOrder>,
    /// What consumer-inventory says of products.
    pub stock: Vec<Stock>,
    /// What payment-service says of every account on the log; [`None`] if it knows of none.
    pub balances: BTreeMap<EntityId, Option<Money>>,
    /// What consumer-email says of mails.
    pub mails: Vec<ListedMail>,
    /// What arrived where mails arrive.
    pub delivered: Vec<DeliveredMail>,
    /// What consumer-analytics says.
    pub analytics: Analytics,
    /// The stream DLQ: what was given up.
    pub stored_letters: Vec<StoredLetter>,
    /// What consumer-dlq says of it.
    pub listed_letters: Vec<ListedLetter>,
}

/// One message on the log.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Its subject.
    pub subject: String,
    /// Its position.
    pub sequence: u64,
    /// What it is.
    pub content: Content,
}

/// What a message on the log is.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly every one is an event")]
pub enum Content {
    /// An event of an entity's history.
    Event(Recorded<ShopEvent>),
    /// What another producer published, for the owner of the entity to adopt or to give up.
    Foreign,
    /// It stands where an event should, and is none, for this reason.
    Unreadable(String),
}

/// An order in the list of order-service.
#[derive(Debug, Clone, Deserialize)]
pub struct ListedOrder {
    /// Which.
    pub order_id: EntityId,
    /// Where it stands.
    pub status: String,
    /// How many events that is.
    pub version: u64,
}

/// A product in the list of consumer-inventory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Stock {
    /// Which.
    pub product_id: EntityId,
    /// Free.
    pub on_hand: u64,
    /// Held for orders.
    pub reserved: u64,
    /// Gone out.
    pub shipped: u64,
    /// Everything that ever came in.
    pub received: u64,
}

/// A mail in the list of consumer-email.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ListedMail {
    /// Which.
    pub mail_id: EntityId,
    /// About which order.
    pub order_id: EntityId,
    /// What it says.
    pub kind: MailKind,
    /// To whom.
    pub to: String,
    /// Its `Message-ID`; none if it was skipped.
    pub message_id: Option<String>,
    /// `attempted`, `sent` or `skipped`.
    pub status: String,
}

/// A mail that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveredMail {
    /// Its `Message-ID`.
    pub message_id: String,
    /// To whom.
    pub to: String,
    /// What it is about.
    pub subject: String,
}

/// A dead letter on the stream.
#[derive(Debug, Clone)]
pub struct StoredLetter {
    /// Its position.
    pub sequence: u64,
    /// Its subject: `dlq.events.<consumer>.<entity>.<event>`.
    pub subject: String,
    /// What it says, or why it cannot be read.
    pub letter: Result<DeadLetter, String>,
}

/// A dead letter in the list of consumer-dlq.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ListedLetter {
    /// Names the message and the consumer.
    pub id: String,
    /// Who gave up.
    pub consumer: String,
    /// Why.
    pub class: FailureClass,
    /// What happened.
    pub error: String,
    /// The original's position on the log.
    pub sequence: u64,
    /// Its position on the stream.
    pub dlq_sequence: u64,
}

impl Ledger {
    /// Every event on the log, in order.
    pub fn events(&self) -> impl Iterator<Item = &Recorded<ShopEvent>> {
        self.log.iter().filter_map(|logged| match &logged.content {
            Content::Event(event) => Some(event),
            Content::Foreign | Content::Unreadable(_) => None,
        })
    }

    /// What happened, for people.
    pub fn summary(&self, took: Duration) -> String {
        let placed = &self.traffic.placed;
        let ended = |wanted: &str| placed.iter().filter(|order| order.ending.status() == wanted).count();
        let mut paths: BTreeMap<_, (usize, Ending)> = BTreeMap::new();
        for order in placed {
            paths.entry(order.path).or_insert((0, order.ending)).0 += 1;
        }
        let mut lines = vec![format!(
            "{} orders in {:.1} s: {} to be confirmed, {} to be shipped, {} to be cancelled; {} refused",
            placed.len(),
            took.as_secs_f32(),
            ended("Confirmed"),
            ended("Shipped"),
            ended("Cancelled"),
            self.traffic.refused.len(),
        )];
        lines.extend(paths.into_iter().map(|(path, (count, ending))| {
            format!("  {count:>4}  {path:<46} {}", ending.status().to_lowercase())
        }));
        let new = || self.events().filter(|event| event.sequence > self.before.log);
        let mails = new().filter(|event| matches!(event.event, ShopEvent::MailSent(_)));
        let letters = self.stored_letters.iter().filter(|letter| letter.sequence > self.before.dead_letters);
        lines.push(format!(
            "{} events, {} mails, {} dead letter(s), {} users, {} accounts",
            new().count(),
            mails.count(),
            letters.count(),
            self.traffic.users,
            self.traffic.accounts.len(),
        ));
        lines.join("\n")
    }
}
