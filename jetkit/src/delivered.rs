//! The pull protocol (ADR-37): a request for messages, and what the server puts into its inbox.

use std::time::Duration;

use anyhow::{Context, anyhow};
use async_nats::{Client, Message, StatusCode, Subject};

/// How long the server keeps one request for messages open.
const EXPIRES: Duration = Duration::from_secs(30);

/// How often the server shows a sign of life while there is nothing to deliver.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(2);

/// Asks the server to put up to `messages` messages of a consumer into `inbox`; together of at most `bytes`, if not 0.
pub(crate) async fn request(
    client: &Client,
    (stream, consumer): (&str, &str),
    inbox: &Subject,
    (messages, bytes): (usize, usize),
) -> anyhow::Result<()> {
    let request = serde_json::json!({
        "batch": messages, "max_bytes": bytes,
        "expires": EXPIRES.as_nanos(), "idle_heartbeat": HEARTBEAT.as_nanos(),
    });
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
    let sent = client.publish_with_reply(subject, inbox.clone(), request.to_string().into());
    let sent = tokio::time::timeout(HEARTBEAT, sent).await;
    Ok(sent.map_err(|_| anyhow!("the connection does not take requests"))??)
}

/// What the server put into the inbox of a request.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// A message, and where it stands.
    Message(Message, Place),
    /// There is nothing to deliver right now.
    SignOfLife,
    /// A request has ended, with so many messages and bytes of it left over.
    Ended { status: StatusCode, description: String, messages: usize, bytes: usize },
}

impl Delivered {
    /// Tells a message from a status. A stored message may begin with any status line and have any headers; but the
    /// subject for the answer is the server's, and only a message has one to acknowledge it on.
    pub(crate) fn read(message: Message) -> anyhow::Result<Self> {
        if let Some(reply) = message.reply.as_deref() {
            let place = Place::read(reply).with_context(|| format!("{reply} is no message's place"))?;
            return Ok(Self::Message(message, place));
        }
        let status = message.status.with_context(|| format!("a message without its place: {message:?}"))?;
        if status == StatusCode::IDLE_HEARTBEAT {
            return Ok(Self::SignOfLife);
        }
        let left = |name: &'static str| message.headers.as_ref()?.get(name)?.as_str().parse::<usize>().ok();
        Ok(Self::Ended {
            status,
            messages: left("Nats-Pending-Messages").unwrap_or(0),
            bytes: left("Nats-Pending-Bytes").unwrap_or(0),
            description: message.description.unwrap_or_default(),
        })
    }
}

/// Where a delivered message stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    /// Its position on the stream.
    pub(crate) sequence: u64,
    /// How often it was delivered, this time included.
    pub(crate) delivered: u64,
    /// Its number among all that the consumer has delivered.
    pub(crate) consumer_sequence: u64,
    /// When the server stored it, in nanoseconds since 1970.
    pub(crate) stored_at: i64,
    /// How many messages the consumer has still to deliver after it.
    pub(crate) pending: u64,
}

impl Place {
    /// Reads a message's place from its reply subject (ADR-15):
    /// `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer's sequence>.<time>.<pending>`, with domain and account
    /// after `ACK` in the longer form.
    fn read(reply: &str) -> Option<Self> {
        let tokens = reply.strip_prefix("$JS.ACK.")?;
        let dots = tokens.bytes().filter(|byte| *byte == b'.').count();
        let mut numbers = tokens.split('.').skip(if dots < 8 { 2 } else { 4 });
        Some(Self {
            delivered: numbers.next()?.parse().ok()?,
            sequence: numbers.next()?.parse().ok()?,
            consumer_sequence: numbers.next()?.parse().ok()?,
            stored_at: numbers.next()?.parse().ok()?,
            pending: numbers.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_messages_place_is_read_from_either_form_of_its_reply_subject() {
        let place = Place {
            sequence: 17,
            delivered: 2,
            consumer_sequence: 9,
            stored_at: 1_760_000_000_000_000_000,
            pending: 3,
        };
        for reply in [
            "$JS.ACK.EVENTS.mailer.2.17.9.1760000000000000000.3",
            "$JS.ACK._.ACCHASH.EVENTS.mailer.2.17.9.1760000000000000000.3.token",
        ] {
            assert_eq!(Place::read(reply), Some(place), "{reply}");
        }
        for other in ["", "_INBOX.x", "$JS.ACK.EVENTS.mailer", "$JS.ACK.EVENTS.mailer.x.17.9.1.3"] {
            assert_eq!(Place::read(other), None, "{other}");
        }
    }
}
