//! An event, declared once, and what surrounds it when it is stored.

use std::fmt;
use std::ops::Deref;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::envelope::{DecodeError, Envelope};
use crate::{Catalog, Cause, EntityId, EventId, TraceContext};

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
pub trait EventSet: Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
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
/// # use jetkit::{EntityId, Event};
/// # #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
/// # pub struct LampLit { lamp_id: EntityId }
/// # impl Event for LampLit { const TYPE: &'static str = "lamp.lit"; fn entity_id(&self) -> &EntityId { &self.lamp_id } }
/// jetkit::events! {
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
    /// `id`: with `source` it identifies the event.
    pub id: EventId,
    /// `source`: who produced it, a URI reference such as `/order-service`. An adopted event keeps its producer's.
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
    /// When the server stored it; of a redriven one, its redrive. Two events are compared by this or by their sequences, and
    /// never by [`Metadata::time`], which comes from the clocks of their producers.
    pub stored_at: DateTime<Utc>,
}

impl<E> Recorded<E> {
    /// The same record of another event.
    pub fn map<F>(self, f: impl FnOnce(E) -> F) -> Recorded<F> {
        let Self { event, meta, version, sequence, stored_at } = self;
        Recorded { event: f(event), meta, version, sequence, stored_at }
    }
}

impl<E: Event> Recorded<E> {
    /// The cause of whatever is done because of this event.
    pub fn cause(&self) -> Cause {
        Cause::event(self)
    }
}

impl<E> Deref for Recorded<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.event
    }
}

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
    fn a_failing_step_is_named_by_the_version_it_starts_from() {
        let failed = named(1, r#"{"id":"a"}"#);
        assert!(matches!(failed, Err(DecodeError::Upcast { from: 2, .. })), "{failed:?}");
        for version in [0, 4] {
            let unknown = named(version, r#"{"id":"a"}"#);
            assert!(matches!(unknown, Err(DecodeError::UnknownVersion { known: 3, .. })), "{unknown:?}");
        }
    }
}
