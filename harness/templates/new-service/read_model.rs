//! What readers see of {{ plan.words }}: one by its id, and a list of all.

use common::{{ plan.entity }}::{{ plan.aggregate }}Event;
use jetkit::http::{Page, PageQuery};
use jetkit::projection::{Conditions, List, Order, OutOfTurn, Row, Tables, params, rusqlite};
use jetkit::{EntityId, EventSet, Projection, Recorded};

/// All of them, in the order of their first events.
#[derive(Debug)]
pub struct {{ plan.aggregate }}List;

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct {{ plan.aggregate }}Summary {
    /// Which one.
    pub {{ plan.entity }}_id: EntityId,
{%- for event in plan.events %}
    /// How many were {{ event.words }}.
    pub {{ event.name }}: u64,
{%- endfor %}
    /// How many events that is.
    pub version: u64,
}

const COLUMNS: &str = "{{ plan.entity }}_id, version{% for event in plan.events %}, total_{{ event.name }}{% endfor %}";

impl {{ plan.aggregate }}Summary {
    /// Returns the one of that id.
    pub fn find(tables: &Tables<'_>, {{ plan.entity }}_id: &EntityId) -> rusqlite::Result<Option<Self>> {
        let one = format!("SELECT {COLUMNS} FROM {{ plan.entity }}_list WHERE {{ plan.entity }}_id = ?1");
        tables.first(&one, [{{ plan.entity }}_id], Self::from_row)
    }

    /// Returns a page of all, oldest first.
    pub fn list(tables: &Tables<'_>, page: &PageQuery) -> rusqlite::Result<Page<Self>> {
        let (matching, order) = (Conditions::default(), Order::Ascending("place"));
        let list = List { columns: COLUMNS, from: "{{ plan.entity }}_list", matching, order };
        tables.page(list, page, Self::from_row)
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            {{ plan.entity }}_id: row.get("{{ plan.entity }}_id")?,
{%- for event in plan.events %}
            {{ event.name }}: row.get("total_{{ event.name }}")?,
{%- endfor %}
            version: row.get("version")?,
        })
    }
}

impl Projection for {{ plan.aggregate }}List {
    const NAME: &'static str = "{{ plan.entity }}_list";
    const SCHEMA: &'static str = "
        CREATE TABLE {{ plan.entity }}_list (
            place INTEGER PRIMARY KEY, -- of its first event on the log
            {{ plan.entity }}_id TEXT NOT NULL UNIQUE,
            version INTEGER NOT NULL{% for event in plan.events %},
            total_{{ event.name }} INTEGER NOT NULL DEFAULT 0{% endfor %}
        );
    ";
    type Event = Recorded<{{ plan.aggregate }}Event>;

    fn apply(tables: &Tables<'_>, event: &Recorded<{{ plan.aggregate }}Event>) -> anyhow::Result<()> {
        let (id, version) = (event.entity_id(), event.version);
        if version == 1 {
            tables.run(
                "INSERT INTO {{ plan.entity }}_list (place, {{ plan.entity }}_id, version) VALUES (?1, ?2, 0) ON CONFLICT DO NOTHING",
                params![event.sequence, id],
            )?;
        }
{%- if let Some(event) = plan.only() %}
        let {{ plan.aggregate }}Event::{{ event.variant }}(happened) = &event.event;
        let rows = tables.run(
            "UPDATE {{ plan.entity }}_list SET version = ?2, total_{{ event.name }} = total_{{ event.name }} + ?3
             WHERE {{ plan.entity }}_id = ?1 AND version = ?2 - 1",
            params![id, version, happened.quantity],
        )?;
{%- else %}
        let (total, quantity) = match &event.event {
{%- for event in plan.events %}
            {{ plan.aggregate }}Event::{{ event.variant }}(event) => ("total_{{ event.name }}", event.quantity),
{%- endfor %}
        };
        let update = format!(
            "UPDATE {{ plan.entity }}_list SET version = ?2, {total} = {total} + ?3
             WHERE {{ plan.entity }}_id = ?1 AND version = ?2 - 1"
        );
        let rows = tables.run(&update, params![id, version, quantity])?;
{%- endif %}
        // An event that does not follow on what is there is parked, and not applied to another state.
        Ok(OutOfTurn::unless_changed(rows, event)?)
    }
}

#[cfg(test)]
mod tests {
    use jetkit::testing::{Folded, recorded};

    use super::*;

    const FIRST: &str = include_str!("../../common/tests/golden/{{ plan.first().event_type }}.v1.json");

    fn first() -> Recorded<{{ plan.aggregate }}Event> {
        recorded::<common::{{ plan.entity }}::{{ plan.first().rust_type }}>(FIRST).map({{ plan.aggregate }}Event::from)
    }

    #[test]
    fn events_add_up() {
        let mut second = first();
        second.version = 2;
        let list = Folded::<{{ plan.aggregate }}List>::of([first(), second]);
        let summary = list.read(|tables| {{ plan.aggregate }}Summary::find(tables, first().entity_id())).unwrap();
        assert_eq!((summary.version, summary.{{ plan.first().name }}), (2, 10));
    }

    #[test]
    fn an_event_that_does_not_follow_on_what_is_there_changes_nothing() {
        let mut list = Folded::<{{ plan.aggregate }}List>::of([first()]);
        let mut third = first();
        third.version = 3;
        assert!(list.apply(&third).is_err() && list.apply(&first()).is_err());
        let summary = list.read(|tables| {{ plan.aggregate }}Summary::find(tables, first().entity_id())).unwrap();
        assert_eq!((summary.version, summary.{{ plan.first().name }}), (1, 5));
    }
}
