//! The catalog: every event type that a deployment knows, as data.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::envelope::DecodeError;
use crate::event::version_after;
use crate::subject::{self, is_event_type};
use crate::{Envelope, Event};

/// Every event type, in the order of declaration. The subjects of the stream are computed from it, code is written from it
/// (`new-consumer`), and a mended dead letter is checked against it.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    events: Vec<EventSpec>,
}

/// One event type.
#[derive(Debug, Clone, Copy)]
pub struct EventSpec {
    /// The wire name, such as `order.placed`.
    pub event_type: &'static str,
    /// Today's version of its data.
    pub version: u32,
    /// The path of its Rust type, such as `common::order::OrderPlaced`: for tools that write code. Never stored.
    pub rust_type: &'static str,
    read: fn(&Envelope<'_>) -> Result<Value, DecodeError>,
}

impl EventSpec {
    /// The data of an event of this type, checked and in today's version.
    pub fn read(&self, envelope: &Envelope<'_>) -> Result<Value, DecodeError> {
        (self.read)(envelope)
    }
}

impl Catalog {
    /// A catalog of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event type. Adding one twice changes nothing.
    #[must_use]
    pub fn with<E: Event>(mut self) -> Self {
        const { assert!(is_event_type(E::TYPE), "an event type is <entity>.<event>, each of a-z 0-9 _ -") };
        const { assert!(E::VERSION == version_after(E::UPCASTERS), "VERSION follows from UPCASTERS") };
        let read = |envelope: &Envelope<'_>| -> Result<Value, DecodeError> {
            let event = envelope.event::<E>()?;
            serde_json::to_value(event).map_err(DecodeError::NotAnEvent)
        };
        if self.get(E::TYPE).is_none() {
            let rust_type = std::any::type_name::<E>();
            self.events.push(EventSpec { event_type: E::TYPE, version: E::VERSION, rust_type, read });
        }
        self
    }

    /// Every event type.
    pub fn events(&self) -> &[EventSpec] {
        &self.events
    }

    /// The event type of that wire name.
    pub fn get(&self, event_type: &str) -> Option<&EventSpec> {
        self.events.iter().find(|event| event.event_type == event_type)
    }

    /// Every entity, sorted: `account`, `order`.
    pub fn entities(&self) -> BTreeSet<&'static str> {
        self.events.iter().map(|event| subject::entity_of(event.event_type)).collect()
    }

    /// The subjects of the stream that holds them all: `order.*.>` for the stored events and those that other producers
    /// publish with an id, `order.placed` for those that they publish without. (Not `order.>`: the stream would
    /// also capture, and answer, requests such as `order.get`.)
    pub fn subjects(&self) -> Vec<String> {
        let stored = self.entities().into_iter().map(|entity| format!("{entity}.*.>"));
        stored.chain(self.events.iter().map(|event| event.event_type.to_owned())).collect()
    }
}
