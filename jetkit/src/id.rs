//! The two kinds of identifier: of an entity (a subject token) and of an event (a CloudEvents `id`).

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};
use uuid::Uuid;

/// The identity of one entity: an order, an account, a warehouse.
///
/// It is one NATS subject token: 1 to 64 of `A-Z a-z 0-9 _ -`. Anything else is refused where it enters the
/// system, because a dot or a wildcard in it would change which subject an event is stored under.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId(Arc<str>);

impl EntityId {
    /// The longest identifier, in bytes.
    pub const MAX_LEN: usize = 64;

    /// Checks and takes `id`.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidId> {
        let id = id.as_ref();
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if id.is_empty() || id.len() > Self::MAX_LEN || !id.bytes().all(legal) {
            return Err(InvalidId::entity(id));
        }
        Ok(Self(id.into()))
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The CloudEvents `id` of an event, and the `Nats-Msg-Id` of its message.
///
/// Ours are UUIDv7, or derived from the event that caused them ([`crate::Cause::derive`]), and unique. Those of other
/// producers are taken as they come, 1 to 128 visible ASCII characters; they identify an event together with its `source`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Arc<str>);

impl EventId {
    /// The longest identifier, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Checks and takes `id`.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidId> {
        let id = id.as_ref();
        if id.is_empty() || id.len() > Self::MAX_LEN || !id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidId::event(id));
        }
        Ok(Self(id.into()))
    }

    /// A new, time-ordered identifier (UUIDv7).
    pub fn generate() -> Self {
        Uuid::now_v7().into()
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Uuid> for EventId {
    fn from(id: Uuid) -> Self {
        Self(text_of(id))
    }
}

/// Reads an id that is a UUID in its canonical form. Only that: two ids that differ in writing are two ids.
pub(crate) fn canonical_uuid(id: &str) -> Option<Uuid> {
    let uuid = (id.len() == 36).then(|| Uuid::try_parse(id).ok()).flatten();
    uuid.filter(|_| !id.bytes().any(|b| b.is_ascii_uppercase()))
}

/// Whether an event of that id is one that the kit recorded because of something, and not another producer's: such an
/// event names its cause, and its id is derived ([`crate::Cause::derive`]), which nothing else has.
pub(crate) fn is_made_here(id: &str, is_caused: bool) -> bool {
    is_caused && canonical_uuid(id).is_some_and(|id| matches!(id.get_version_num(), 5 | 7))
}

fn text_of(id: Uuid) -> Arc<str> {
    let mut text = Uuid::encode_buffer();
    (&*id.hyphenated().encode_lower(&mut text)).into()
}

/// A text that cannot be an identifier. Its message is safe to show to a client.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{shown:?} is not {kind}: it must be {rule}")]
pub struct InvalidId {
    shown: String,
    kind: &'static str,
    rule: &'static str,
}

impl InvalidId {
    fn entity(id: &str) -> Self {
        Self::shown(id, "an identifier", "1 to 64 of A-Z a-z 0-9 _ -")
    }

    fn event(id: &str) -> Self {
        Self::shown(id, "an event id", "1 to 128 visible ASCII characters")
    }

    fn shown(id: &str, kind: &'static str, rule: &'static str) -> Self {
        let mut shown: String = id.chars().take(80).collect();
        if shown.len() < id.len() {
            shown.push('…');
        }
        Self { shown, kind, rule }
    }
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(id: &str) -> Result<Self, InvalidId> {
                Self::new(id)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an identifier as a string")
                    }

                    fn visit_str<E: de::Error>(self, id: &str) -> Result<$name, E> {
                        $name::new(id).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

text!(EntityId);
text!(EventId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_id_is_one_subject_token() {
        for good in ["a", "acc-001", "A_b-9", &"x".repeat(64)] {
            assert_eq!(EntityId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a.b", "a b", "*", ">", "é", "a\n", &"x".repeat(65)] {
            assert!(EntityId::new(bad).is_err(), "{bad:?} was taken");
            assert!(serde_json::from_value::<EntityId>(bad.into()).is_err(), "{bad:?} was decoded");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_a_long_input() {
        let refusal = EntityId::new("x".repeat(10_000)).unwrap_err().to_string();
        assert!(refusal.len() < 200, "{refusal}");
    }
}
