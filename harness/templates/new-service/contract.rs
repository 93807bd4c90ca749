//! What happens to {{ plan.words }}.

use jetkit::{EntityId, Event};
use serde::{Deserialize, Serialize};
{% for event in plan.events %}
/// Says what happened: {{ plan.words }} {{ event.words }}.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct {{ event.rust_type }} {
    /// Whose history it belongs to.
    pub {{ plan.entity }}_id: EntityId,
    /// How many, at least one.
    pub quantity: u32,
}

impl Event for {{ event.rust_type }} {
    const TYPE: &'static str = "{{ event.event_type }}";

    fn entity_id(&self) -> &EntityId {
        &self.{{ plan.entity }}_id
    }
}
{% endfor %}
jetkit::events! {
    /// What can happen to {{ plan.words }}.
    pub enum {{ plan.aggregate }}Event {
{%- for event in plan.events %}
        {{ event.variant }}({{ event.rust_type }}),
{%- endfor %}
    }
}
