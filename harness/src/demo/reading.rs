//! Fills a [`Ledger`]: from the streams themselves, and from what every service says.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use common::ShopEvent;
use common::money::{Amount, Currency};
use jetkit::subject::{EVENTS, EventSubject};
use jetkit::{DLQ, DeadLetter, EntityId, Envelope, EventSet, Followed, FollowedMessage, Follower, Recorded};
use serde::Deserialize;

use super::{
    Analytics, Content, DeliveredMail, Ledger, Logged, Mailbox, Position, Shop, StoredLetter, Traffic,
};

/// How long reading a whole stream may take.
const READ_WITHIN: Duration = Duration::from_mins(1);

impl Ledger {
    /// Reads everything that there is to see. `before` is where everything stood before the traffic.
    pub async fn read(shop: &Shop, before: Position, traffic: Traffic) -> Result<Self> {
        let log: Vec<_> = stream(shop, EVENTS, "").await?.iter().map(logged).collect();
        let mut ledger = Self { before, traffic, log, ..Self::default() };
        ledger.stored_letters = stream(shop, DLQ, "dlq.events.>").await?.into_iter().map(letter).collect();
        let last_letter = ledger.stored_letters.iter().map(|letter| letter.sequence).max().unwrap_or(0);
        let archived = shop.wait_for(async || {
            let letters = shop.list("consumer-dlq", "/dead-letters").await?;
            let last = letters.iter().map(|letter: &super::ListedLetter| letter.dlq_sequence).max();
            Ok((last.unwrap_or(0) >= last_letter).then_some(letters))
        });
        ledger.listed_letters = archived.await?.context("consumer-dlq does not list the last dead letter")?;
        ledger.orders = shop.list("order-service", "/orders").await?;
        ledger.stock = shop.list("consumer-inventory", "/stock").await?;
        ledger.balances = balances(shop, &ledger).await?;
        ledger.mails = shop.list("consumer-email", "/mails").await?;
        ledger.delivered = delivered(shop).await?;
        ledger.analytics = Analytics::read(shop).await?;
        Ok(ledger)
    }
}

/// A whole stream, from its first message to its last.
async fn stream(shop: &Shop, name: &str, filter: &str) -> Result<Vec<FollowedMessage>> {
    let filters = if filter.is_empty() { Vec::new() } else { vec![filter.to_owned()] };
    let mut follower = Follower::new(shop.nats().clone(), name, filters, 1);
    let mut messages = Vec::new();
    let read = async {
        while let Followed::Message(message) = follower.next().await {
            messages.push(message);
        }
    };
    tokio::time::timeout(READ_WITHIN, read).await.with_context(|| format!("reading the stream {name}"))?;
    Ok(messages)
}

fn logged(message: &FollowedMessage) -> Logged {
    let (subject, sequence) = (message.message.subject.to_string(), message.sequence);
    let content = match EventSubject::parse(&subject) {
        None => Content::Foreign,
        Some(place) => event(&place, message)
            .map_or_else(|error| Content::Unreadable(format!("{error:#}")), Content::Event),
    };
    Logged { subject, sequence, content }
}

fn event(place: &EventSubject<'_>, message: &FollowedMessage) -> Result<Recorded<ShopEvent>> {
    let envelope = Envelope::decode(&message.message.payload)?;
    let (event, meta) = (ShopEvent::decode(&envelope)?, envelope.metadata()?);
    Ok(Recorded { event, meta, version: place.version, sequence: message.sequence, stored_at: message.time })
}

fn letter(message: FollowedMessage) -> StoredLetter {
    let headers = message.message.headers.unwrap_or_default();
    StoredLetter {
        sequence: message.sequence,
        subject: message.message.subject.to_string(),
        letter: DeadLetter::decode(&headers, message.message.payload).map_err(|error| error.to_string()),
    }
}

async fn balances(shop: &Shop, ledger: &Ledger) -> Result<BTreeMap<EntityId, Option<common::money::Money>>> {
    #[derive(Deserialize)]
    struct Account {
        balance: Amount,
        currency: Currency,
    }
    let mut balances = BTreeMap::new();
    for event in ledger.events() {
        let ShopEvent::AccountOpened(opened) = &event.event else { continue };
        let account: Option<Account> =
            shop.find("payment-service", &format!("/accounts/{}", opened.account_id)).await?;
        let balance = account.map(|account| account.balance.in_currency(account.currency)).transpose()?;
        balances.insert(opened.account_id.clone(), balance);
    }
    Ok(balances)
}

async fn delivered(shop: &Shop) -> Result<Vec<DeliveredMail>> {
    match shop.mailbox() {
        Mailbox::Files(directory) => files(directory),
        Mailbox::Catcher(url) => caught(shop, url).await,
    }
}

fn files(directory: &Path) -> Result<Vec<DeliveredMail>> {
    let mut mails = Vec::new();
    let reading = || format!("reading {}", directory.display());
    for entry in std::fs::read_dir(directory).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        if path.extension().is_some_and(|extension| extension == "eml") {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            mails.push(DeliveredMail::parse(&text));
        }
    }
    Ok(mails)
}

impl DeliveredMail {
    /// The headers of a mail (RFC 5322): a line that begins with a space goes on with the one before.
    fn parse(text: &str) -> Self {
        let head = text.split("\r\n\r\n").next().unwrap_or(text).replace("\r\n ", " ").replace("\r\n\t", " ");
        let header = |wanted: &str| {
            let headers = head.lines().filter_map(|line| line.split_once(':'));
            let mut found = headers.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.next().map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        Self { message_id: header("Message-ID"), to: header("To"), subject: header("Subject") }
    }
}

/// What maildev lists.
async fn caught(shop: &Shop, url: &str) -> Result<Vec<DeliveredMail>> {
    let mails: Vec<CaughtMail> = shop.find_at(url).await?.with_context(|| format!("no mails at {url}"))?;
    Ok(mails.into_iter().map(DeliveredMail::from).collect())
}

/// A mail as maildev shows it.
#[derive(Deserialize)]
struct CaughtMail {
    headers: CaughtHeaders,
    subject: String,
}

#[derive(Deserialize)]
struct CaughtHeaders {
    #[serde(rename = "message-id")]
    message_id: String,
    to: String,
}

impl From<CaughtMail> for DeliveredMail {
    fn from(CaughtMail { headers: CaughtHeaders { message_id, to }, subject }: CaughtMail) -> Self {
        Self { message_id, to, subject }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_headers_of_a_mail_are_read() {
        let mail = DeliveredMail::parse(
            "From: shop@example.com\r\nTo: a@example.com\r\nSubject: Thank you\r\n for o-1\r\n\
             Message-ID: <1@example.com>\r\n\r\nSubject: not this\r\n",
        );
        assert_eq!(mail, thank_you());
    }

    #[test]
    fn mails_are_read_as_maildev_shows_them() {
        let shown = r#"{"headers": {"to": "a@example.com", "message-id": "<1@example.com>", "mime-version": "1.0"},
            "subject": "Thank you for o-1", "messageId": "1@example.com", "attachments": null}"#;
        let mail: CaughtMail = serde_json::from_str(shown).unwrap();
        assert_eq!(DeliveredMail::from(mail), thank_you());
    }

    fn thank_you() -> DeliveredMail {
        let [message_id, to, subject] =
            ["<1@example.com>", "a@example.com", "Thank you for o-1"].map(str::to_owned);
        DeliveredMail { message_id, to, subject }
    }
}
