//! The wire form: CloudEvents 1.0 in structured JSON, written and read; and the flat first-generation form, read only.

mod data;

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Datelike, NaiveDateTime, Utc};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use self::data::decode_data;
use crate::id::is_made_here;
use crate::{EntityId, Event, EventId, InvalidId, Metadata, UpcastError, subject};

/// The content type of a message body (CloudEvents JSON format 1.0.2).
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// The longest user id, in bytes: every event that an event leads to carries it on.
const MAX_USER_ID: usize = 256;

/// How many bytes a message body is expected to have: so much is allocated at once.
const USUAL_SIZE: usize = 1024;

/// One message body, read in one pass that borrows from it; the data stays raw until its type is known.
#[derive(Debug)]
pub struct Envelope<'a> {
    wire: Wire<'a>,
    event_type: Cow<'a, str>,
    data: &'a RawValue,
}

/// Every field of both forms; which form it is, the fields tell. An absent text is empty.
#[derive(Debug, Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    specversion: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    source: Cow<'a, str>,
    #[serde(borrow, default, rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
    #[serde(default)]
    dataversion: Option<Count>,
    #[serde(borrow, default)]
    correlationid: Cow<'a, str>,
    #[serde(borrow, default)]
    causationid: Cow<'a, str>,
    #[serde(borrow, default)]
    userid: Cow<'a, str>,
    #[serde(default)]
    priority: Option<Count>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,

    #[serde(borrow, default, rename = "event_id")]
    flat_id: Cow<'a, str>,
    #[serde(borrow, default, rename = "event_type")]
    flat_type: Cow<'a, str>,
    #[serde(borrow, default, rename = "timestamp")]
    flat_time: Cow<'a, str>,
    #[serde(default, rename = "version")]
    flat_version: Option<Count>,
}

impl<'a> Envelope<'a> {
    /// Reads a message body in either form. The data is not looked at yet.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        if body.trim_ascii_start().first() != Some(&b'{') {
            // serde would take an array for the fields in their order.
            return Err(DecodeError::NotAnEvent(de::Error::custom("not a JSON object")));
        }
        // Once for the whole text, and not for each string in it.
        let text =
            std::str::from_utf8(body).map_err(|error| DecodeError::NotAnEvent(de::Error::custom(error)))?;
        let mut wire: Wire<'a> = serde_json::from_str(text).map_err(DecodeError::NotAnEvent)?;
        if wire.specversion.is_empty() && !wire.flat_type.is_empty() {
            // First generation: the whole document is the data, and its version is the data's.
            wire.id = std::mem::take(&mut wire.flat_id);
            wire.time = std::mem::take(&mut wire.flat_time);
            wire.dataversion = wire.flat_version.or(Some(Count(1)));
            let data = serde_json::from_str(text).map_err(DecodeError::NotAnEvent)?;
            let event_type = Cow::Owned(wire_name(&wire.flat_type));
            return Self { wire, event_type, data }.checked();
        }
        match &*wire.specversion {
            "1.0" => {}
            "" => return Err(DecodeError::Missing("specversion")),
            other => return Err(DecodeError::invalid("specversion", format!("{other:?} is not 1.0"))),
        }
        let data = wire.data.ok_or(DecodeError::Missing("data"))?;
        let event_type = std::mem::take(&mut wire.event_type);
        Self { wire, event_type, data }.checked()
    }

    fn checked(self) -> Result<Self, DecodeError> {
        if self.event_type.is_empty() {
            return Err(DecodeError::Missing("type"));
        }
        if self.wire.id.is_empty() {
            return Err(DecodeError::Missing("id"));
        }
        if !self.data.get().starts_with('{') {
            return Err(DecodeError::invalid("data", "not a JSON object"));
        }
        Ok(self)
    }

    /// Whether the kit recorded it because of something, and not another producer. What is adopted from one is not.
    pub(crate) fn is_made_here(&self) -> bool {
        is_made_here(self.id(), !self.wire.causationid.is_empty())
    }

    /// Who produced it, as it was sent; nothing in a first-generation document.
    pub(crate) fn source(&self) -> &str {
        &self.wire.source
    }

    /// Returns what it says, in one form however it is written: an event that its producer sends again says the same.
    pub(crate) fn content(&self) -> String {
        let Ok(mut content) = serde_json::from_str::<Value>(self.data.get()) else {
            return self.data.get().to_owned(); // too deep: a repeat of it is known byte for byte
        };
        if self.wire.specversion.is_empty()
            && let Some(document) = content.as_object_mut()
        {
            // The whole document of the first generation: like `time`, when it was sent is not what it says.
            document.remove("timestamp");
        }
        content.sort_all_objects();
        content.to_string()
    }

    /// The wire name of the event, such as `order.placed`.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// The event's id as it was sent. [`Envelope::metadata`] checks it.
    pub fn id(&self) -> &str {
        &self.wire.id
    }

    /// The correlation id, or the event's own id where it has none.
    pub fn correlation_id(&self) -> &str {
        if self.wire.correlationid.is_empty() { &self.wire.id } else { &self.wire.correlationid }
    }

    /// The data's version; [`None`] where the producer did not say, which means today's.
    pub fn data_version(&self) -> Option<u32> {
        self.wire.dataversion.map(|count| count.0)
    }

    /// The data, not yet parsed.
    pub fn data(&self) -> &'a RawValue {
        self.data
    }

    /// The event, brought to today's version.
    pub fn event<E: Event>(&self) -> Result<E, DecodeError> {
        decode_data(self.data_version().unwrap_or(E::VERSION), self.data)
    }

    /// Checks that the event stands where it belongs: a document is believed only on the subject of its own type and of
    /// the entity in its data. A reader of the log calls this before it believes either.
    pub fn check_place(&self, subject: &str, id: &EntityId) -> Result<(), DecodeError> {
        if subject::holds(subject, &self.event_type, id) {
            return Ok(());
        }
        Err(DecodeError::Misplaced {
            event_type: self.event_type.clone().into_owned(),
            id: id.clone(),
            subject: subject.to_owned(),
        })
    }

    /// The context attributes, checked. The trace is not one of them: it stands in the message's headers.
    pub fn metadata(&self) -> Result<Metadata, DecodeError> {
        let wire = &self.wire;
        let id = |name: &'static str, value: &str| {
            EventId::new(value).map_err(|e| DecodeError::invalid_id(name, e))
        };
        let own = id("id", &wire.id)?;
        let correlation_id = match &*wire.correlationid {
            "" => own.clone(),
            value => id("correlationid", value)?,
        };
        let causation_id = match &*wire.causationid {
            "" => None,
            // The request that all goes back to; the same text need not be kept twice.
            value if value == correlation_id.as_str() => Some(correlation_id.clone()),
            value => Some(id("causationid", value)?),
        };
        let priority = match wire.priority {
            Some(Count(n @ 0..=9)) => u8::try_from(n).ok(),
            Some(Count(n)) => return Err(DecodeError::invalid("priority", format!("{n} is not 0 to 9"))),
            None => None,
        };
        Ok(Metadata {
            id: own,
            source: wire.source.clone().into_owned(),
            event_type: self.event_type.clone().into_owned(),
            time: time(&wire.time)?,
            data_version: self.data_version().unwrap_or(0),
            correlation_id,
            causation_id,
            user_id: match wire.userid.len() {
                0 => None,
                1..=MAX_USER_ID => Some(wire.userid.clone().into_owned()),
                _ => return Err(DecodeError::invalid("userid", format!("more than {MAX_USER_ID} bytes"))),
            },
            priority,
            trace: None,
        })
    }

    /// The message body of an event.
    pub fn encode<E: Event>(meta: &Metadata, event: &E) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct Document<'a, E> {
            specversion: &'static str,
            id: &'a EventId,
            source: &'a str,
            #[serde(rename = "type")]
            event_type: &'a str,
            subject: &'a EntityId,
            time: DateTime<Utc>,
            datacontenttype: &'static str,
            dataversion: u32,
            correlationid: &'a EventId,
            #[serde(skip_serializing_if = "Option::is_none")]
            causationid: Option<&'a EventId>,
            #[serde(skip_serializing_if = "Option::is_none")]
            userid: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            priority: Option<u8>,
            data: &'a E,
        }
        let mut body = Vec::with_capacity(USUAL_SIZE);
        let document = Document {
            specversion: "1.0",
            id: &meta.id,
            source: &meta.source,
            event_type: &meta.event_type,
            subject: event.entity_id(),
            time: meta.time,
            datacontenttype: "application/json",
            dataversion: meta.data_version,
            correlationid: &meta.correlation_id,
            causationid: meta.causation_id.as_ref(),
            userid: meta.user_id.as_deref(),
            priority: meta.priority,
            data: event,
        };
        serde_json::to_writer(&mut body, &document)?;
        Ok(body)
    }
}

/// Why a message body is not an event that we can handle. None of these gets better by trying again.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or an attribute of the wrong JSON type.
    #[error("not an event in JSON: {0}")]
    NotAnEvent(#[source] serde_json::Error),
    /// A required attribute is absent.
    #[error("no `{0}`")]
    Missing(&'static str),
    /// An attribute has a value that is not allowed.
    #[error("`{name}` is invalid: {reason}")]
    Invalid {
        /// The attribute.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing here handles this type.
    #[error("unknown event type {0:?}")]
    UnknownType(String),
    /// The data is of a version that this program has not heard of.
    #[error("{event_type} version {version} is unknown here: this program knows 1 to {known}")]
    UnknownVersion {
        /// The wire name.
        event_type: String,
        /// As received.
        version: u32,
        /// The newest known.
        known: u32,
    },
    /// The data is of an old version and could not be brought to today's.
    #[error("{event_type} version {from} could not be brought to version {}: {source}", from + 1)]
    Upcast {
        /// The wire name.
        event_type: &'static str,
        /// The version that the failing step starts from.
        from: u32,
        /// Why.
        source: UpcastError,
    },
    /// The data does not have the shape that its type and version promise.
    #[error("the data is not a {event_type} version {version}: {source}")]
    Data {
        /// The wire name.
        event_type: &'static str,
        /// The version it claims.
        version: u32,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// The program that reads it panicked: a mistake in how its type decodes or upcasts.
    #[error("reading a {event_type} panicked: {panic}")]
    Panicked {
        /// The type that it claims.
        event_type: String,
        /// What the panic said.
        panic: String,
    },
    /// It stands on the subject of another type or entity.
    #[error("it says that it is a {event_type} of {id}, and stands on {subject}")]
    Misplaced {
        /// The type that it claims.
        event_type: String,
        /// The entity that it claims.
        id: EntityId,
        /// Where it stands.
        subject: String,
    },
}

impl DecodeError {
    fn invalid(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { name, reason: reason.into() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "used as a map_err argument")]
    fn invalid_id(name: &'static str, reason: InvalidId) -> Self {
        Self::invalid(name, reason.to_string())
    }
}

/// `order.placed` of the first generation's `OrderPlaced`: the first word is the entity.
fn wire_name(flat: &str) -> String {
    let mut name = String::with_capacity(flat.len() + 2);
    let mut words = 0;
    for (i, c) in flat.char_indices() {
        if c.is_ascii_uppercase() && i > 0 {
            name.push(if words == 0 { '.' } else { '_' });
            words += 1;
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// RFC 3339; a time without a zone, as many scripts write it, is UTC. Only a time that can be written again: an event that
/// is adopted keeps it, and RFC 3339 knows the years 0 to 9999.
fn time(text: &str) -> Result<DateTime<Utc>, DecodeError> {
    if text.is_empty() {
        return Err(DecodeError::Missing("time"));
    }
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.with_timezone(&Utc))
        .or_else(|error| text.parse::<NaiveDateTime>().map(|time| time.and_utc()).map_err(|_| error))
        .map_err(|error| DecodeError::invalid("time", error.to_string()))
        .and_then(|time| match time.year() {
            0..=9999 => Ok(time),
            year => Err(DecodeError::invalid("time", format!("the year is {year} in UTC, not 0 to 9999"))),
        })
}

/// A small whole number, as a JSON number or, as some CloudEvents SDKs write extensions, as a string.
#[derive(Debug, Clone, Copy)]
struct Count(u32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl Visitor<'_> for CountVisitor {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0 to 4294967295")
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Count, E> {
                u32::try_from(n).map(Count).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(n), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Count, E> {
                text.parse().map(Count).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(CountVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_generation_names_become_wire_names() {
        for (flat, wire) in [
            ("OrderPlaced", "order.placed"),
            ("PaymentProcessed", "payment.processed"),
            ("UserStatusChanged", "user.status_changed"),
            ("order.placed", "order.placed"),
        ] {
            assert_eq!(wire_name(flat), wire);
        }
    }

    #[test]
    fn a_time_without_a_zone_is_utc() {
        assert_eq!(time("2024-01-01T10:00:00.5").unwrap(), time("2024-01-01T12:00:00.5+02:00").unwrap());
        assert!(time("yesterday").is_err());
    }

    #[test]
    fn a_time_that_is_read_can_be_written_and_read_again() {
        for text in ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2016-12-31T23:59:60Z"] {
            let read = time(text).unwrap();
            let written = serde_json::to_value(read).unwrap();
            assert_eq!(time(written.as_str().unwrap()).unwrap(), read);
        }
        for text in [
            "+12345-01-01T00:00:00",
            "-0001-01-01T00:00:00",
            "9999-12-31T23:59:59-23:59",
            "0000-01-01T00:00:00+23:59",
        ] {
            assert!(time(text).unwrap_err().to_string().contains("the year is"), "{text}");
        }
    }

    #[test]
    fn a_user_id_is_bounded() {
        let read = |length: usize| {
            let userid = "u".repeat(length);
            let body = format!(
                r#"{{"specversion":"1.0","id":"1","type":"a.b","time":"2026-01-01T00:00:00Z","userid":"{userid}","data":{{}}}}"#
            );
            Envelope::decode(body.as_bytes()).unwrap().metadata()
        };
        assert_eq!(read(MAX_USER_ID).unwrap().user_id.unwrap().len(), MAX_USER_ID);
        assert!(read(MAX_USER_ID + 1).unwrap_err().to_string().contains("userid"));
    }

    #[test]
    fn what_is_not_an_event_is_refused_with_its_reason() {
        let refusal = |body: &str| Envelope::decode(body.as_bytes()).unwrap_err().to_string();
        assert!(refusal("hello").starts_with("not an event in JSON"));
        assert!(refusal("[]").starts_with("not an event in JSON"));
        assert_eq!(refusal("{}"), "no `specversion`");
        assert_eq!(refusal(r#"{"specversion":"1.0","type":"a.b","data":{}}"#), "no `id`");
        assert_eq!(refusal(r#"{"specversion":"1.0","id":"1","data":{}}"#), "no `type`");
        assert_eq!(refusal(r#"{"specversion":"1.0","id":"1","type":"a.b"}"#), "no `data`");
        assert_eq!(
            refusal(r#"{"specversion":"0.3","id":"1"}"#),
            "`specversion` is invalid: \"0.3\" is not 1.0"
        );
        assert_eq!(
            refusal(r#"{"specversion":"1.0","id":"1","type":"a.b","data":[]}"#),
            "`data` is invalid: not a JSON object"
        );
        assert_eq!(refusal(r#"{"event_type":"OrderPlaced"}"#), "no `id`");
    }

    #[test]
    fn numbers_may_be_written_as_strings() {
        let body = br#"{"specversion":"1.0","id":"1","type":"a.b","dataversion":"2","data":{}}"#;
        assert_eq!(Envelope::decode(body).unwrap().data_version(), Some(2));
    }
}
