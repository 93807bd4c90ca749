//! An event, declared once: its wire name, its entity, and the steps from its old shapes to the newest one.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::EntityId;

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
