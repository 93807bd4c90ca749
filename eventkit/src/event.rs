//! An event, declared once, and what surrounds it when it is stored.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::ops::Deref;

use chrono::{DateTime, SubsecRound, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::envelope::{DecodeError, Envelope};
use crate::{Catalog, EntityId, EventId, TraceContext};

/// A fact that happened to one entity. Implement it once per event; its subject, filter, wire name and catalog
/// entry are computed from these.
pub trait Event: Serialize + DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static {
    /// The wire name, `<entity>.<event>`, in the past tense: `order.placed`. It is on disk for ever: renaming it
    /// makes a new event.
    const TYPE: &'static str;

    /// The steps from every old shape of the data to the next one, oldest first. A change that an old reader or an old
    /// event would not survive adds one at the end; none is ever taken away.
    const UPCASTERS: &'static [Upcaster] = &[];

    /// The version of the data's shape: one more than there are steps. It follows from [`Event::UPCASTERS`], so that no
    /// step can be missing; with another value no program that uses the event can be built (`cargo check` does not notice).
    const VERSION: u32 = version_after(Self::UPCASTERS);

    /// The entity that this happened to.
    fn entity_id(&self) -> &EntityId;
}

/// One step: data of one version, turned into data of the next.
pub type Upcaster = fn(Value) -> Result<Value, UpcastError>;

/// The version that a chain of steps leads to.
#[expect(clippy::cast_possible_truncation, reason = "nobody writes four thousand million functions")]
pub(crate) const fn version_after(upcasters: &[Upcaster]) -> u32 {
    upcasters.len() as u32 + 1
}

/// Data of an old version that could not be brought to today's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UpcastError(String);

impl UpcastError {
    /// What is wrong with the old data.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

/// Decodes the data of an `E`, through as many upcasts as its version needs.
pub(crate) fn decode_data<E: Event>(version: u32, data: &RawValue) -> Result<E, DecodeError> {
    const { assert!(E::VERSION == version_after(E::UPCASTERS), "VERSION follows from UPCASTERS") };
    let (event_type, known) = (E::TYPE, E::VERSION);
    if version > known || version == 0 {
        return Err(DecodeError::UnknownVersion { event_type: event_type.into(), version, known });
    }
    if version == known {
        return serde_json::from_str(data.get()).map_err(|source| DecodeError::Data {
            event_type,
            version,
            source,
        });
    }
    let wrong = |source| DecodeError::Data { event_type, version, source };
    let mut value: Value = serde_json::from_str(data.get()).map_err(wrong)?;
    for (from, upcast) in (1..).zip(E::UPCASTERS).skip_while(|(from, _)| *from < version) {
        value = upcast(value).map_err(|source| DecodeError::Upcast { event_type, from, source })?;
    }
    serde_json::from_value(value).map_err(wrong)
}

/// A closed set of events, as an enum: those of one aggregate, or those that a view follows. Made by [`events!`].
///
/// [`events!`]: crate::events
pub trait EventSet: Clone + fmt::Debug + Send + Sync + 'static {
    /// The wire names of the set.
    const TYPES: &'static [&'static str];

    /// The wire name and the version of this event.
    fn kind(&self) -> (&'static str, u32);

    /// The entity that it happened to.
    fn entity_id(&self) -> &EntityId;

    /// Decodes the event of an envelope.
    fn decode(envelope: &Envelope<'_>) -> Result<Self, DecodeError>;

    /// The set as data.
    fn catalog() -> Catalog;

    /// The message body: the event in its envelope.
    fn encode(&self, meta: &Metadata) -> Result<Vec<u8>, serde_json::Error>;
}

/// Declares an enum over events, which must be `PartialEq`, and implements [`EventSet`] and `From` for it.
///
/// ```
/// # use eventkit::{EntityId, Event};
/// # #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
/// # pub struct LampLit { lamp_id: EntityId }
/// # impl Event for LampLit { const TYPE: &'static str = "lamp.lit"; fn entity_id(&self) -> &EntityId { &self.lamp_id } }
/// eventkit::events! {
///     /// What can happen to a lamp.
///     pub enum LampEvent { Lit(LampLit) }
/// }
/// ```
#[macro_export]
macro_rules! events {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($variant:ident($event:ty)),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis enum $name {
            $(#[doc = concat!("`", stringify!($event), "` happened.")] $variant($event)),+
        }

        impl $crate::EventSet for $name {
            const TYPES: &'static [&'static str] = &[$(<$event as $crate::Event>::TYPE),+];

            fn kind(&self) -> (&'static str, u32) {
                match self {
                    $(Self::$variant(_) => (<$event as $crate::Event>::TYPE, <$event as $crate::Event>::VERSION)),+
                }
            }

            fn entity_id(&self) -> &$crate::EntityId {
                match self { $(Self::$variant(event) => $crate::Event::entity_id(event)),+ }
            }

            fn decode(envelope: &$crate::Envelope<'_>) -> Result<Self, $crate::DecodeError> {
                match envelope.event_type() {
                    $(<$event as $crate::Event>::TYPE => envelope.event::<$event>().map(Self::$variant),)+
                    other => Err($crate::DecodeError::UnknownType(other.to_owned())),
                }
            }

            fn catalog() -> $crate::Catalog {
                $crate::Catalog::new()$(.with::<$event>())+
            }

            fn encode(&self, meta: &$crate::Metadata) -> Result<Vec<u8>, $crate::serde_json::Error> {
                match self { $(Self::$variant(event) => $crate::Envelope::encode(meta, event)),+ }
            }
        }

        $(impl From<$event> for $name {
            fn from(event: $event) -> Self { Self::$variant(event) }
        })+
    };
}

/// What is known about an event besides its data: the CloudEvents context attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Metadata {
    /// `id`, unique over all events.
    pub id: EventId,
    /// `source`: who produced it, a URI reference such as `/order-service`.
    pub source: String,
    /// `type`: the wire name, such as `order.placed`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// `time`: when it happened, by its producer's clock.
    pub time: DateTime<Utc>,
    /// `dataversion`: the version of the data as stored.
    #[serde(rename = "dataversion")]
    pub data_version: u32,
    /// `correlationid`: shared by everything that one outside request led to.
    #[serde(rename = "correlationid")]
    pub correlation_id: EventId,
    /// `causationid`: the event or request that directly led to this one.
    #[serde(rename = "causationid")]
    pub causation_id: Option<EventId>,
    /// `userid`: on whose behalf.
    #[serde(rename = "userid")]
    pub user_id: Option<String>,
    /// `priority`, 0 to 9, for readers that sort by it; the system itself does not.
    pub priority: Option<u8>,
    /// The trace that it belongs to, in the headers of its message.
    #[serde(skip)]
    pub trace: Option<TraceContext>,
}

/// An event as it stands on the log. Dereferences to the event.
#[derive(Debug, Clone)]
pub struct Recorded<E> {
    /// The event.
    pub event: E,
    /// Its context.
    pub meta: Metadata,
    /// The entity's version after it, from 1; 0 if it came from outside and stands in no aggregate's history.
    pub version: u64,
    /// Its position on the log.
    pub sequence: u64,
}

impl<E> Recorded<E> {
    /// The cause of whatever is done because of this event.
    pub fn cause(&self) -> Cause {
        Cause::event(&self.meta)
    }

    /// The same record of another event.
    pub fn map<F>(self, f: impl FnOnce(E) -> F) -> Recorded<F> {
        Recorded { event: f(self.event), meta: self.meta, version: self.version, sequence: self.sequence }
    }
}

impl<E> Deref for Recorded<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.event
    }
}

/// Why something is done: a request or an event. Whatever is recorded because of it carries its correlation and
/// gets an id derived from it, so that doing the same thing twice for the same cause records it once.
#[derive(Debug, Clone)]
pub struct Cause {
    id: EventId,
    /// What events name as their cause: the id, unless that is not enough to tell the cause from others.
    recorded: EventId,
    correlation_id: EventId,
    user_id: Option<String>,
    /// Which of several things done for the same cause.
    step: String,
    /// Set for an event that is taken over from another producer: it keeps its id and its time.
    adopted: Option<(EventId, DateTime<Utc>)>,
    trace: Option<TraceContext>,
}

impl Cause {
    /// A request from outside, known by `id`: a fresh one, or one computed from the client's idempotency key.
    pub fn request(id: EventId) -> Self {
        Self {
            recorded: id.clone(),
            correlation_id: id.clone(),
            id,
            user_id: None,
            step: String::new(),
            adopted: None,
            trace: None,
        }
    }

    /// The same request, with the id that its events are to name as their cause. A repeat is known by its first id; that
    /// it is the same request in all else, by this one: where it differs from what is recorded, the command is refused
    /// ([`crate::StoreError::CauseReused`]).
    #[must_use]
    pub fn recorded_as(self, recorded: EventId) -> Self {
        Self { recorded, ..self }
    }

    /// A stored event.
    pub fn event(meta: &Metadata) -> Self {
        Self {
            id: meta.id.clone(),
            recorded: meta.id.clone(),
            correlation_id: meta.correlation_id.clone(),
            user_id: meta.user_id.clone(),
            step: String::new(),
            adopted: None,
            trace: meta.trace.clone(),
        }
    }

    /// Another producer's event that is recorded as it is, under its own id and time.
    pub fn adopting(meta: &Metadata) -> Self {
        Self { adopted: Some((meta.id.clone(), meta.time)), ..Self::event(meta) }
    }

    /// On whose behalf.
    #[must_use]
    pub fn by_user(self, user_id: impl Into<String>) -> Self {
        Self { user_id: Some(user_id.into()), ..self }
    }

    /// The same request as part of a trace, which whatever it leads to belongs to.
    #[must_use]
    pub fn traced(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }

    /// The same cause for one of several commands that it leads to on the same entity: without a step of its own the
    /// second would be taken for a repetition of the first.
    #[must_use]
    pub fn step(self, step: impl Into<String>) -> Self {
        Self { step: step.into(), ..self }
    }

    /// The id of the request or event.
    pub fn id(&self) -> &EventId {
        &self.id
    }

    /// The trace that it is part of.
    pub(crate) fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// The correlation id that everything led to by it carries.
    pub fn correlation_id(&self) -> &EventId {
        &self.correlation_id
    }

    /// An id for something done because of this, the same each time for the same `what`.
    ///
    /// It is a UUIDv7 (RFC 9562) with the cause's timestamp and a hash in place of the random bits; where the cause's
    /// id carries no timestamp, a UUIDv5.
    pub fn derive(&self, what: &str) -> EventId {
        self.derive_from(format_args!("{what}"))
    }

    fn derive_from(&self, what: fmt::Arguments<'_>) -> EventId {
        let mut name = String::with_capacity(4 * EventId::MAX_LEN);
        // A string takes whatever is written to it.
        let _ = write!(name, "{}\n{}\n{what}", self.id, self.step);
        let hash = Uuid::new_v5(&NAMESPACE, name.as_bytes());
        let timestamp = Uuid::try_parse(self.id.as_str()).ok().filter(|id| id.get_version_num() == 7);
        let Some(timestamp) = timestamp else { return hash.into() };
        let (mut bytes, time) = (*hash.as_bytes(), timestamp.as_bytes());
        bytes[..6].copy_from_slice(&time[..6]);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        Uuid::from_bytes(bytes).into()
    }

    /// The id of the `index`th event recorded in `scope` on `entity` because of this.
    pub(crate) fn event_id(&self, scope: &str, entity: &EntityId, index: usize) -> EventId {
        match &self.adopted {
            Some((id, _)) if index == 0 => id.clone(),
            _ => self.derive_from(format_args!("{scope} {entity} {index}")),
        }
    }

    /// What the event recorded under `id` because of this names as its cause.
    pub(crate) fn causation_of(&self, id: &EventId) -> Option<&EventId> {
        let adopted = self.adopted.as_ref().is_some_and(|(adopted, _)| adopted == id);
        (!adopted).then_some(&self.recorded)
    }

    /// The context of an event that `source` records under `id` because of this.
    pub(crate) fn metadata(&self, source: &str, kind: (&'static str, u32), id: EventId) -> Metadata {
        let (event_type, data_version) = kind;
        let time = match &self.adopted {
            Some((adopted, time)) if *adopted == id => *time,
            _ => Utc::now().trunc_subsecs(6),
        };
        let causation_id = self.causation_of(&id).cloned();
        Metadata {
            id,
            source: source.to_owned(),
            event_type: event_type.to_owned(),
            time,
            data_version,
            correlation_id: self.correlation_id.clone(),
            causation_id,
            user_id: self.user_id.clone(),
            priority: None,
            trace: self.trace.clone(),
        }
    }

    /// The `Nats-Msg-Id` for an event recorded because of this. It is the event's id, except for an adopted event:
    /// the original message holds that id in the stream's duplicate window already. Another entity's adopted event of the
    /// same id is another one: its producer alone answers for the id.
    pub(crate) fn message_id<'a>(&self, entity: &EntityId, id: &'a EventId) -> Cow<'a, str> {
        match &self.adopted {
            Some((adopted, _)) if adopted == id => format!("adopted:{entity}:{id}").into(),
            _ => id.as_str().into(),
        }
    }
}

/// Namespace of derived ids. Changing it makes every repeat after the change a new event.
const NAMESPACE: Uuid = Uuid::from_u128(0x7d1c_6c2e_54f1_4c0b_9a57_0f35_7be3_a1d4);

#[cfg(test)]
mod tests {
    use super::*;

    /// It had a name, then a first name, now a list of names.
    #[derive(Debug, Clone, PartialEq, serde::Deserialize, Serialize)]
    struct Named {
        id: EntityId,
        names: Vec<String>,
    }

    impl Event for Named {
        const TYPE: &'static str = "thing.named";
        const UPCASTERS: &'static [Upcaster] = &[
            |mut data| {
                data["first"] = data["name"].take();
                Ok(data)
            },
            |mut data| match data["first"].take() {
                Value::String(first) => {
                    data["names"] = vec![first].into();
                    Ok(data)
                }
                _ => Err(UpcastError::new("no first name")),
            },
        ];

        fn entity_id(&self) -> &EntityId {
            &self.id
        }
    }

    fn named(version: u32, data: &str) -> Result<Vec<String>, DecodeError> {
        let data: &RawValue = serde_json::from_str(data).unwrap();
        decode_data::<Named>(version, data).map(|named| named.names)
    }

    #[test]
    fn every_old_version_takes_all_the_steps_after_it() {
        assert_eq!(Named::VERSION, 3);
        assert_eq!(named(1, r#"{"id":"a","name":"Ann"}"#).unwrap(), ["Ann"]);
        assert_eq!(named(2, r#"{"id":"a","first":"Ann"}"#).unwrap(), ["Ann"]);
        assert_eq!(named(3, r#"{"id":"a","names":["Ann"]}"#).unwrap(), ["Ann"]);
    }

    #[test]
    fn a_step_that_fails_is_told_by_the_version_it_starts_from() {
        let failed = named(1, r#"{"id":"a"}"#);
        assert!(matches!(failed, Err(DecodeError::Upcast { from: 2, .. })), "{failed:?}");
        for version in [0, 4] {
            let unknown = named(version, r#"{"id":"a"}"#);
            assert!(matches!(unknown, Err(DecodeError::UnknownVersion { known: 3, .. })), "{unknown:?}");
        }
    }

    #[test]
    fn a_repeat_of_the_same_cause_derives_the_same_id() {
        let cause = Cause::request(EventId::generate());
        assert_eq!(cause.derive("a"), cause.derive("a"));
        assert_ne!(cause.derive("a"), cause.derive("b"));
        assert_ne!(cause.derive("a"), Cause::request(EventId::generate()).derive("a"));
    }

    #[test]
    fn a_derived_id_is_a_uuid_v7_of_the_causes_time() {
        let cause = Cause::request(EventId::generate());
        let parse = |id: &EventId| Uuid::try_parse(id.as_str()).unwrap();
        let derived = parse(&cause.derive("a"));
        assert_eq!(derived.get_version_num(), 7);
        assert_eq!(
            derived.get_timestamp().unwrap().to_unix().0,
            parse(cause.id()).get_timestamp().unwrap().to_unix().0
        );
        let foreign = Cause::request(EventId::new("evt-1").unwrap());
        assert_eq!(parse(&foreign.derive("a")).get_version_num(), 5);
    }
}
