//! A closed set of events, as an enum.

use std::fmt;

use crate::{Catalog, DecodeError, EntityId, Envelope, Metadata};

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
