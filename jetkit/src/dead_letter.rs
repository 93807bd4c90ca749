//! Dead letters: what a consumer gave up on, kept with everything needed to understand it and to try again.
//!
//! The message in stream `DLQ` has the original payload as its body, byte for byte, and the original headers; what is
//! known about the failure stands in `Dlq-…` headers. `Nats-…` headers mean something to the server (a message id would
//! be deduplicated, a TTL would delete it), so they are kept as `Original-Nats-…`. What the server has no room for is
//! left out and counted: a message that can be published can be a dead letter.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderValue, NATS_MESSAGE_ID};
use async_nats::{Client, Subject};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::direct;
use crate::log::{Ack, Outgoing, PublishFailure, publish_once};
use crate::streams::{DLQ, MAX_DEAD_LETTER_BYTES};

/// The server's answer to one dead letter is awaited this long.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The server takes no longer header block than its length in 16 bits says.
const MAX_HEADER_BYTES: usize = u16::MAX as usize;

/// The longest error chain that is kept, in bytes of JSON: a quarter of the headers.
const MAX_ERRORS: usize = 16 * 1024;

/// The longest names of an original that are read. The server has them shorter; longer ones would leave no room to store
/// the dead letter again.
const MAX_STREAM: usize = 255;
const MAX_SUBJECT: usize = 32 * 1024;

/// Why a consumer gave up on a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// It is not an event that this consumer can read. The handler was not called.
    Undecodable,
    /// The handler said that it will never work.
    Rejected,
    /// The handler failed as often as it may.
    Exhausted,
    /// The handler was started as often as it may and never came to an end: it probably kills its process.
    Crashed,
}

impl FailureClass {
    /// The class as it is written: `undecodable`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::Crashed => "crashed",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FailureClass {
    type Err = NotADeadLetter;

    fn from_str(text: &str) -> Result<Self, NotADeadLetter> {
        [Self::Undecodable, Self::Rejected, Self::Exhausted, Self::Crashed]
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or_else(|| NotADeadLetter(format!("no failure class {text:?}")))
    }
}

/// One message that one consumer gave up on.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Who gave up: the consumer's durable name.
    pub consumer: String,
    /// Why.
    pub class: FailureClass,
    /// The error and what caused it, outermost first.
    pub errors: Vec<String>,
    /// How often the handler was started.
    pub attempts: u32,
    /// When it failed first, as far as is known.
    pub first_failed_at: DateTime<Utc>,
    /// When it was given up.
    pub last_failed_at: DateTime<Utc>,
    /// The version of the consumer's program.
    pub service_version: String,
    /// How often it had been redriven before this failure.
    pub redrives: u32,
    /// What could not be handled.
    pub original: Original,
}

/// A message as the consumer received it.
#[derive(Debug, Clone)]
pub struct Original {
    /// The stream it is stored in.
    pub stream: String,
    /// Its position there.
    pub sequence: u64,
    /// The subject it was published on.
    pub subject: String,
    /// Its headers, as published, as far as there was room for them in a dead letter.
    pub headers: HeaderMap,
    /// How many headers there was no room for.
    pub headers_dropped: usize,
    /// Its body, as published.
    pub payload: Bytes,
}

impl DeadLetter {
    /// Names the message and the consumer; the same for every dead letter of the two.
    pub fn id(&self) -> String {
        let Original { stream, sequence, .. } = &self.original;
        format!("{}-{stream}-{sequence}", self.consumer)
    }

    /// Reads a message of the stream `DLQ`, on any of its subjects.
    pub fn decode(headers: &HeaderMap, payload: Bytes) -> Result<Self, NotADeadLetter> {
        fn parse<T: FromStr<Err: fmt::Display>>(name: &str, text: &str) -> Result<T, NotADeadLetter> {
            text.parse().map_err(|error| NotADeadLetter(format!("header {name}: {error}")))
        }
        let text = |name: &str| {
            headers
                .get(name)
                .map(async_nats::HeaderValue::as_str)
                .ok_or_else(|| NotADeadLetter(format!("no header {name}")))
        };
        let consumer = text(CONSUMER)?.to_owned();
        if !is_short_token(&consumer) {
            return Err(NotADeadLetter(format!("{consumer:?} is no consumer's name")));
        }
        let (stream, subject) = (text(STREAM)?, text(SUBJECT)?);
        if stream.len() > MAX_STREAM || subject.len() > MAX_SUBJECT {
            return Err(NotADeadLetter("no stream or subject has so long a name".to_owned()));
        }
        Ok(Self {
            consumer,
            class: text(CLASS)?.parse()?,
            errors: serde_json::from_str(text(ERRORS)?).map_err(|error| NotADeadLetter(error.to_string()))?,
            attempts: parse(ATTEMPTS, text(ATTEMPTS)?)?,
            first_failed_at: parse(FIRST_FAILED_AT, text(FIRST_FAILED_AT)?)?,
            last_failed_at: parse(LAST_FAILED_AT, text(LAST_FAILED_AT)?)?,
            service_version: text(SERVICE_VERSION)?.to_owned(),
            redrives: parse(REDRIVES, text(REDRIVES)?)?,
            original: Original {
                stream: stream.to_owned(),
                sequence: parse(SEQUENCE, text(SEQUENCE)?)?,
                subject: subject.to_owned(),
                headers: original_headers(headers),
                // The first dead letters did not count them.
                headers_dropped: text(HEADERS_DROPPED).map_or(Ok(0), |text| parse(HEADERS_DROPPED, text))?,
                payload,
            },
        })
    }

    /// Reads what stands at a position of the stream `DLQ`; [`None`] if nothing stands there any more.
    pub async fn at(client: &Client, sequence: u64) -> anyhow::Result<Option<Self>> {
        let Some(got) = direct::at(client, DLQ, sequence).await? else { return Ok(None) };
        Ok(Some(Self::decode(&got.headers, got.payload)?))
    }

    /// Stores it on `dlq.events.<consumer>.<entity>.<event>` and awaits the acknowledgement.
    pub(crate) async fn store(&self, client: &Client) -> Result<(), DeadLetterError> {
        let mut tokens = self.original.subject.split('.');
        let mut token = || tokens.next().filter(|token| is_short_token(token)).unwrap_or("none");
        let (entity, event) = (token(), token());
        let subject = format!("dlq.events.{}.{entity}.{event}", self.consumer);
        let message_id = format!("dlq:{}:{}", self.id(), self.redrives);
        self.publish(client, subject, &message_id, self.original.payload.clone()).await.map(|_| ())
    }

    /// Asks the consumer that failed, and no other, to try again; with another payload, if one is given. Answers with the
    /// position of the request in the stream `DLQ`. Asking again changes nothing, so another payload is refused then: the
    /// consumer would never read it.
    pub async fn redrive(&self, client: &Client, payload: Option<Bytes>) -> Result<u64, RedriveError> {
        let again = Self { redrives: self.redrives.saturating_add(1), ..self.clone() };
        let message_id = format!("redrive:{}:{}", self.id(), again.redrives);
        let is_mended = payload.is_some();
        let payload = payload.unwrap_or_else(|| self.original.payload.clone());
        let ack = again.publish(client, redrive_subject(&self.consumer), &message_id, payload).await?;
        if is_mended && ack.duplicate { Err(RedriveError::UnderWay) } else { Ok(ack.sequence) }
    }

    /// Records that nobody will try it again. Answers with the position of the record in the stream `DLQ`.
    pub async fn dismiss(&self, client: &Client) -> Result<u64, DeadLetterError> {
        let message_id = format!("dismissed:{}:{}", self.id(), self.redrives);
        let ack = self.publish(client, dismissed_subject(&self.consumer), &message_id, Bytes::new()).await?;
        Ok(ack.sequence)
    }

    async fn publish(
        &self,
        client: &Client,
        subject: String,
        message_id: &str,
        payload: Bytes,
    ) -> Result<Ack, DeadLetterError> {
        let most = client.server_info().max_payload.min(MAX_DEAD_LETTER_BYTES.unsigned_abs() as usize);
        let mut headers = self.headers_within(most.saturating_sub(payload.len()).min(MAX_HEADER_BYTES));
        headers.insert(NATS_MESSAGE_ID, message_id);
        let message = Outgoing { subject: Subject::from(subject), headers, payload };
        publish_once(client, message, ANSWER_WITHIN).await.map_err(DeadLetterError)
    }

    /// What is known about the failure, then the error chain, then the original headers, each as far as there is room left.
    fn headers_within(&self, room: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // The longest there can be, so that a redrive and a dismissal keep what the dead letter has kept.
        headers.insert(NATS_MESSAGE_ID, format!("dismissed:{}:{}", self.id(), u32::MAX));
        let Original { stream, sequence, subject, headers: original, headers_dropped, .. } = &self.original;
        for (name, value) in [
            (HEADERS_DROPPED, usize::MAX.to_string()),
            (CONSUMER, self.consumer.clone()),
            (CLASS, self.class.to_string()),
            (ERRORS, String::new()),
            (ATTEMPTS, self.attempts.to_string()),
            (FIRST_FAILED_AT, self.first_failed_at.to_rfc3339()),
            (LAST_FAILED_AT, self.last_failed_at.to_rfc3339()),
            (SERVICE_VERSION, self.service_version.clone()),
            (REDRIVES, self.redrives.to_string()),
            (STREAM, stream.clone()),
            (SEQUENCE, sequence.to_string()),
            (SUBJECT, subject.clone()),
        ] {
            headers.insert(name, value);
        }
        let left = room.saturating_sub(wire_len(&headers));
        headers.insert(ERRORS, errors_within(&self.errors, left.min(MAX_ERRORS)));
        let left = room.saturating_sub(wire_len(&headers));
        let dropped = headers_dropped.saturating_add(keep_headers(&mut headers, original, left));
        headers.insert(HEADERS_DROPPED, dropped.to_string());
        headers
    }
}

/// Whether it can stand in a subject of ours. A subject with anything else in it, or one that is too long for the server,
/// would never be stored.
fn is_short_token(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && !b".*>".contains(&b))
}

/// Where a consumer listens for what it should try again.
pub(crate) fn redrive_subject(consumer: &str) -> String {
    format!("dlq.redrive.{consumer}")
}

fn dismissed_subject(consumer: &str) -> String {
    format!("dlq.dismissed.{consumer}")
}

const CONSUMER: &str = "Dlq-Consumer";
const CLASS: &str = "Dlq-Class";
const ERRORS: &str = "Dlq-Errors";
const ATTEMPTS: &str = "Dlq-Attempts";
const FIRST_FAILED_AT: &str = "Dlq-First-Failed-At";
const LAST_FAILED_AT: &str = "Dlq-Last-Failed-At";
const SERVICE_VERSION: &str = "Dlq-Service-Version";
const REDRIVES: &str = "Dlq-Redrives";
const STREAM: &str = "Dlq-Stream";
const SEQUENCE: &str = "Dlq-Sequence";
const SUBJECT: &str = "Dlq-Subject";
const HEADERS_DROPPED: &str = "Dlq-Headers-Dropped";

/// Headers that would be misread in a dead letter are put aside under this prefix.
const ASIDE: &str = "Original-";

fn is_put_aside(name: &str) -> bool {
    ["Nats-", "Dlq-", ASIDE]
        .iter()
        .any(|prefix| name.get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(prefix)))
}

/// How long the headers are as the server counts them.
fn wire_len(headers: &HeaderMap) -> usize {
    let lines =
        headers.iter().flat_map(|(name, values)| values.iter().map(|value| line_len(name.as_ref(), value)));
    "NATS/1.0\r\n\r\n".len() + lines.sum::<usize>()
}

fn line_len(name: &str, value: &HeaderValue) -> usize {
    name.len() + ": \r\n".len() + value.as_str().len()
}

/// Keeps the original headers that there is `room` for, and tells how many there is none for. Short ones come first (the
/// client knows no order): so the most are kept, and what a trace needs is short. A name keeps all its values or none.
fn keep_headers(kept: &mut HeaderMap, original: &HeaderMap, mut room: usize) -> usize {
    let mut named: Vec<_> = original
        .iter()
        .map(|(name, values)| {
            let name: &str = name.as_ref();
            let name = if is_put_aside(name) { format!("{ASIDE}{name}") } else { name.to_owned() };
            (values.iter().map(|value| line_len(&name, value)).sum::<usize>(), name, values)
        })
        .collect();
    named.sort_by(|(len, name, _), (other_len, other, _)| (len, name).cmp(&(other_len, other)));
    let mut dropped = 0;
    for (len, name, values) in named {
        let Some(left) = room.checked_sub(len) else {
            dropped += values.len();
            continue;
        };
        room = left;
        for value in values {
            kept.append(name.as_str(), value.as_str());
        }
    }
    dropped
}

fn original_headers(kept: &HeaderMap) -> HeaderMap {
    let mut original = HeaderMap::new();
    for (name, values) in kept.iter() {
        let name: &str = name.as_ref();
        let name = match name.strip_prefix(ASIDE) {
            Some(inner) => inner,
            None if is_put_aside(name) => continue,
            None => name,
        };
        for value in values {
            original.append(name, value.as_str());
        }
    }
    original
}

/// The errors as a JSON array in ASCII, cut where it would become longer than `limit`.
fn errors_within(errors: &[String], limit: usize) -> String {
    let mut json = String::from("[");
    for error in errors {
        let start = if json.len() == 1 { "\"" } else { ",\"" };
        if json.len() + start.len() + "\"]".len() > limit {
            break;
        }
        json.push_str(start);
        for c in error.chars().take(2048) {
            let written = match c {
                '"' | '\\' => format!("\\{c}"),
                ' '..='~' => c.to_string(),
                '\n' => "\\n".to_owned(),
                _ => c
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .fold(String::new(), |written, unit| format!("{written}\\u{unit:04x}")),
            };
            if json.len() + written.len() + "\"]".len() > limit {
                break;
            }
            json.push_str(&written);
        }
        json.push('"');
    }
    json.push(']');
    json
}

/// A message in the stream `DLQ` that nobody here wrote.
#[derive(Debug, thiserror::Error)]
#[error("not a dead letter: {0}")]
pub struct NotADeadLetter(String);

/// A dead letter, a redrive or a dismissal that was not stored. Try again: it is stored once.
#[derive(Debug, thiserror::Error)]
#[error("the dead-letter stream did not take it: {0}")]
pub struct DeadLetterError(#[source] PublishFailure);

/// A redrive that was not stored.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// It was sent back before, after the same failure, and this payload would not be read. Wait for what becomes of it.
    #[error("it is on its way back to its consumer already, with another payload")]
    UnderWay,
    /// Try again: it is stored once.
    #[error(transparent)]
    NotStored(#[from] DeadLetterError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn original_headers_survive_byte_for_byte() {
        let mut headers = HeaderMap::new();
        headers.append("traceparent", "00-1-2-01");
        headers.append("X-Many", "a");
        headers.append("X-Many", "b");
        headers.append("Nats-Msg-Id", "id-1");
        headers.append("Nats-TTL", "1s");
        headers.append("Dlq-Consumer", "somebody's own");
        let mut kept = HeaderMap::new();
        assert_eq!(keep_headers(&mut kept, &headers, 1000), 0);
        assert!(
            kept.iter().all(|(name, _)| !is_put_aside(name.as_ref()) || name.to_string().starts_with(ASIDE))
        );
        assert_eq!(original_headers(&kept), headers);
    }

    #[test]
    fn a_dead_letter_has_no_more_headers_than_there_is_room_for() {
        let mut headers = HeaderMap::new();
        headers.append("traceparent", "00-1-2-01");
        headers.append("Nats-Msg-Id", "x".repeat(200));
        for n in 0..10 {
            headers.append(format!("X-{n}").as_str(), "y".repeat(1000));
            headers.append("X-Many", "z");
        }
        let letter = DeadLetter {
            consumer: "c".to_owned(),
            class: FailureClass::Rejected,
            errors: vec!["e".repeat(500)],
            attempts: 1,
            first_failed_at: DateTime::UNIX_EPOCH,
            last_failed_at: DateTime::UNIX_EPOCH,
            service_version: "1".to_owned(),
            redrives: 0,
            original: Original {
                stream: "EVENTS".to_owned(),
                sequence: 1,
                subject: "lamp.lit.a.1".to_owned(),
                headers,
                headers_dropped: 3,
                payload: Bytes::new(),
            },
        };
        // For what is known alone; with a part of the error; with all of it and some headers; with all headers.
        for (room, errors, dropped) in
            [(450, 0, 3 + 22), (700, 100, 3 + 22), (5000, 500, 3 + 7), (50_000, 500, 3)]
        {
            let written = letter.headers_within(room);
            assert!(wire_len(&written) <= room, "{} in {room}", wire_len(&written));
            let read = DeadLetter::decode(&written, Bytes::new()).unwrap();
            assert_eq!(read.original.headers_dropped, dropped, "{room}");
            assert!(read.errors.concat().len() >= errors, "{room}");
            let values = read.original.headers.iter().map(|(_, values)| values.len()).sum::<usize>();
            assert_eq!(values + dropped, 22 + 3, "{room}");
        }
    }

    #[test]
    fn only_what_the_server_takes_is_put_into_a_subject() {
        assert!(is_short_token("consumer-email") && is_short_token("placed"));
        for text in ["", "a b", "a.b", "*", ">", "a\tb", "é", &"x".repeat(129)] {
            assert!(!is_short_token(text), "{text}");
        }
    }

    #[test]
    fn a_long_error_chain_fits_a_header() {
        for text in ["x", "\"", "\u{1}", "é", "🦀"] {
            let written = errors_within(&vec![text.repeat(100_000); 50], MAX_ERRORS);
            assert!((MAX_ERRORS - 16..=MAX_ERRORS).contains(&written.len()), "{text}: {}", written.len());
            assert!(serde_json::from_str::<Vec<String>>(&written).is_ok(), "{written}");
        }
    }

    #[test]
    fn errors_are_written_in_ascii_and_read_back() {
        let errors = vec!["line one\nline two".to_owned(), "naïve 🦀 \u{7f}".to_owned()];
        let written = errors_within(&errors, MAX_ERRORS);
        assert!(written.bytes().all(|b| (b' '..=b'~').contains(&b)), "{written}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&written).unwrap(), errors);
    }
}
