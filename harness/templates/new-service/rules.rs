//! The rules of {{ plan.words }}, without I/O. Read [`{{ plan.aggregate }}`] first.

use common::{{ plan.entity }}::{ {{ plan.aggregate }}Event, {% for event in plan.events %}{{ event.rust_type }}, {% endfor %} };
use jetkit::{Aggregate, EntityId};
use serde::{Deserialize, Serialize};

/// The most that one command records.
pub const MAX_QUANTITY: u32 = 1_000_000;

/// The most that all commands of one kind record: far below what a counter holds.
pub const MAX_TOTAL: u64 = 1_000_000_000_000;

/// Adds up what happened. Snapshots keep it: a change of its fields raises `STATE_VERSION`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct {{ plan.aggregate }} {
{%- for event in plan.events %}
    /// How many were {{ event.words }}.
    pub {{ event.name }}: u64,
{%- endfor %}
}

/// Asks to record what happened.
#[derive(Debug, Clone)]
pub enum Record{{ plan.aggregate }} {
{%- for event in plan.events %}
    /// Records `{{ event.event_type }}`.
    {{ event.variant }} {
        /// In whose history.
        {{ plan.entity }}_id: EntityId,
        /// How many, from 1 to [`MAX_QUANTITY`].
        quantity: u32,
    },
{%- endfor %}
}

/// Says why nothing is recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum {{ plan.aggregate }}Rejection {
    /// None, or too many at once.
    #[error("the quantity must be 1 to {MAX_QUANTITY}")]
    Quantity,
    /// Too many, with those of before.
    #[error("no more than {MAX_TOTAL} can be recorded in all")]
    Total,
}

impl Aggregate for {{ plan.aggregate }} {
    const ENTITY: &'static str = "{{ plan.entity }}";
    type Event = {{ plan.aggregate }}Event;
    type Command = Record{{ plan.aggregate }};
    type Rejection = {{ plan.aggregate }}Rejection;

    fn decide(&self, command: &Record{{ plan.aggregate }}) -> Result<Vec<{{ plan.aggregate }}Event>, {{ plan.aggregate }}Rejection> {
{%- if let Some(event) = plan.only() %}
        let Record{{ plan.aggregate }}::{{ event.variant }} { {{ plan.entity }}_id, quantity } = command.clone();
        check(self.{{ event.name }}, quantity)?;
        Ok(vec![{{ event.rust_type }} { {{ plan.entity }}_id, quantity }.into()])
{%- else %}
        Ok(vec![match command.clone() {
{%- for event in plan.events %}
            Record{{ plan.aggregate }}::{{ event.variant }} { {{ plan.entity }}_id, quantity } => {
                check(self.{{ event.name }}, quantity)?;
                {{ event.rust_type }} { {{ plan.entity }}_id, quantity }.into()
            }
{%- endfor %}
        }])
{%- endif %}
    }

    fn apply(&mut self, event: &{{ plan.aggregate }}Event) {
{%- if let Some(event) = plan.only() %}
        let {{ plan.aggregate }}Event::{{ event.variant }}(event) = event;
        add(&mut self.{{ event.name }}, event.quantity);
{%- else %}
        match event {
{%- for event in plan.events %}
            {{ plan.aggregate }}Event::{{ event.variant }}(event) => add(&mut self.{{ event.name }}, event.quantity),
{%- endfor %}
        }
{%- endif %}
    }
}

/// Judges a quantity that comes to a total.
fn check(total: u64, quantity: u32) -> Result<(), {{ plan.aggregate }}Rejection> {
    if !(1..=MAX_QUANTITY).contains(&quantity) {
        return Err({{ plan.aggregate }}Rejection::Quantity);
    }
    if total.saturating_add(quantity.into()) > MAX_TOTAL {
        return Err({{ plan.aggregate }}Rejection::Total);
    }
    Ok(())
}

/// Adds without a limit: what is on the log happened.
fn add(total: &mut u64, quantity: u32) {
    *total = total.saturating_add(quantity.into());
}

#[cfg(test)]
mod tests {
    use jetkit::testing::{aggregate_laws, given};

    use super::*;

    fn id() -> EntityId {
        EntityId::new("{{ plan.path }}-1").unwrap()
    }
{% for event in plan.events %}
    fn record_{{ event.name }}(quantity: u32) -> Record{{ plan.aggregate }} {
        Record{{ plan.aggregate }}::{{ event.variant }} { {{ plan.entity }}_id: id(), quantity }
    }

    fn {{ event.name }}(quantity: u32) -> {{ plan.aggregate }}Event {
        {{ event.rust_type }} { {{ plan.entity }}_id: id(), quantity }.into()
    }

    #[test]
    fn {{ event.name }}_is_recorded_with_its_quantity() {
        given::<{{ plan.aggregate }}>([]).when(&record_{{ event.name }}(5)).then([{{ event.name }}(5)]);
        given::<{{ plan.aggregate }}>([{{ event.name }}(5)]).when(&record_{{ event.name }}(1)).then([{{ event.name }}(1)]);
    }

    #[test]
    fn none_and_too_many_{{ event.name }}_at_once_are_refused() {
        for quantity in [0, MAX_QUANTITY + 1] {
            let refused = given::<{{ plan.aggregate }}>([]).when(&record_{{ event.name }}(quantity));
            refused.then_rejected({{ plan.aggregate }}Rejection::Quantity);
        }
        given::<{{ plan.aggregate }}>([]).when(&record_{{ event.name }}(MAX_QUANTITY)).then([{{ event.name }}(MAX_QUANTITY)]);
    }

    #[test]
    fn no_more_are_{{ event.name }}_than_the_total_allows() {
        let almost = {{ plan.aggregate }} { {{ event.name }}: MAX_TOTAL - 1{% if plan.only().is_none() %}, ..{{ plan.aggregate }}::default(){% endif %} };
        assert_eq!(almost.decide(&record_{{ event.name }}(1)), Ok(vec![{{ event.name }}(1)]));
        assert_eq!(almost.decide(&record_{{ event.name }}(2)), Err({{ plan.aggregate }}Rejection::Total));
    }
{% endfor %}
    #[test]
    fn the_state_is_the_sum_of_the_events() {
        let commands = [{% for event in plan.events %}record_{{ event.name }}(3), record_{{ event.name }}(0), record_{{ event.name }}(4), {% endfor %}];
        let (state, events) = aggregate_laws(commands, |_: &{{ plan.aggregate }}| {});
        assert_eq!(state, {{ plan.aggregate }} { {% for event in plan.events %}{{ event.name }}: 7, {% endfor %} });
        assert_eq!(events, [{% for event in plan.events %}{{ event.name }}(3), {{ event.name }}(4){% if !loop.last %}, {% endif %}{% endfor %}]);
    }
}
