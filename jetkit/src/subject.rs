//! Subjects: where an event is stored, and which subjects a reader asks for.
//!
//! An event's subject is `<entity>.<event>.<id>.<version>`, for example `order.placed.o-17.1`. The version counts
//! the events of that entity from 1; an event that belongs to no aggregate's history has version 0.
//! Other producers may publish on `<entity>.<event>` and `<entity>.<event>.<id>`; the owning service adopts those.

use crate::EntityId;
pub use crate::streams::EVENTS;

/// The subject of one event.
pub fn event(event_type: &str, id: &EntityId, version: u64) -> String {
    format!("{event_type}.{id}.{version}")
}

/// Every stored event of one type: `order.placed.*.*`.
pub fn of_type(event_type: &str) -> String {
    format!("{event_type}.*.*")
}

/// Every stored event of one entity: `order.*.<id>.*`.
pub fn of_entity(entity: &str, id: &EntityId) -> String {
    format!("{entity}.*.{id}.*")
}

/// Whatever event holds one version of one entity: `order.*.<id>.<version>`.
///
/// Every append expects this subject to be empty. A clustered stream's guard for appends in flight compares the
/// string, so every writer must use exactly this one.
pub fn of_version(entity: &str, id: &EntityId, version: u64) -> String {
    format!("{entity}.*.{id}.{version}")
}

/// What other producers publish for an entity, and nothing that the system itself writes.
pub fn foreign(entity: &str) -> [String; 2] {
    [format!("{entity}.*"), format!("{entity}.*.*")]
}

/// A stored event's subject, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventSubject<'a> {
    /// `order.placed`
    pub event_type: &'a str,
    /// `order`
    pub entity: &'a str,
    /// The entity's id.
    pub id: &'a str,
    /// The entity's version after this event; 0 for an event outside any aggregate.
    pub version: u64,
}

impl<'a> EventSubject<'a> {
    /// Takes a subject apart; `None` if it has not the form of a stored event's.
    pub fn parse(subject: &'a str) -> Option<Self> {
        let (rest, version) = subject.rsplit_once('.')?;
        let (event_type, id) = rest.rsplit_once('.')?;
        let (entity, event) = event_type.split_once('.')?;
        if event.contains('.') {
            return None;
        }
        Some(Self { event_type, entity, id, version: version_of(version)? })
    }
}

/// The last version that there is. Anybody can write a larger number on a subject; no history comes near it, SQLite has
/// a place for this one, and the version after it can be computed.
pub(crate) const MAX_VERSION: u64 = i64::MAX.unsigned_abs();

/// A version as it is written: `7`, never `07` or `+7`, which would be further subjects for the same version.
fn version_of(token: &str) -> Option<u64> {
    let canonical = token == "0" || token.bytes().next().is_some_and(|first| matches!(first, b'1'..=b'9'));
    token.parse().ok().filter(|version| canonical && *version <= MAX_VERSION)
}

/// Whether an event of that type and entity may stand on `subject`: `<type>`, `<type>.<id>`, or `<type>.<id>.<version>`.
///
/// Anybody with a client can write any document on any subject. Whoever reads one believes neither alone.
pub fn holds(subject: &str, event_type: &str, id: &EntityId) -> bool {
    let Some(rest) = subject.strip_prefix(event_type) else { return false };
    match rest.strip_prefix('.').map(|rest| rest.split_once('.').unwrap_or((rest, "0"))) {
        Some((found, version)) => found == id.as_str() && version_of(version).is_some(),
        None => rest.is_empty(),
    }
}

/// What decides which events wait for one another: the entity (`order` and `o-17`), or the whole subject where
/// there is no id.
pub(crate) fn entity_key(subject: &str) -> (&str, &str) {
    let mut tokens = subject.splitn(4, '.');
    match (tokens.next(), tokens.next(), tokens.next()) {
        (Some(entity), Some(_), Some(id)) => (entity, id),
        _ => (subject, ""),
    }
}

/// Whether `event_type` is `<entity>.<event>`, each of `a-z 0-9 _ -`. Checked when the program is compiled.
pub const fn is_event_type(event_type: &str) -> bool {
    let bytes = event_type.as_bytes();
    let (mut i, mut dots, mut token) = (0, 0, 0);
    while i < bytes.len() {
        match bytes[i] {
            b'.' if token > 0 => (dots, token) = (dots + 1, 0),
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => token += 1,
            _ => return false,
        }
        i += 1;
    }
    dots == 1 && token > 0
}

/// Whether each of these event types is one of that entity. Checked when the program is compiled.
pub(crate) const fn are_of(event_types: &[&str], entity: &str) -> bool {
    let mut n = 0;
    while n < event_types.len() {
        let (event_type, entity) = (event_types[n].as_bytes(), entity.as_bytes());
        if event_type.len() <= entity.len() || event_type[entity.len()] != b'.' {
            return false;
        }
        let mut i = 0;
        while i < entity.len() {
            if event_type[i] != entity[i] {
                return false;
            }
            i += 1;
        }
        n += 1;
    }
    true
}

/// The entity of an event type: `order` of `order.placed`.
pub fn entity_of(event_type: &str) -> &str {
    event_type.split_once('.').map_or(event_type, |(entity, _)| entity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_round_trips() {
        let subject = event("order.placed", &EntityId::new("o-1").unwrap(), 7);
        assert_eq!(
            EventSubject::parse(&subject),
            Some(EventSubject { event_type: "order.placed", entity: "order", id: "o-1", version: 7 })
        );
    }

    #[test]
    fn foreign_subjects_are_not_stored_events() {
        for subject in ["order.placed", "order.placed.o-1", "order.placed.o-1.x", "a.b.c.d.1"] {
            assert_eq!(EventSubject::parse(subject), None, "{subject}");
        }
    }

    #[test]
    fn a_version_is_written_in_one_way_only() {
        for version in ["", "07", "00", "+7", "-1", "7 "] {
            assert_eq!(EventSubject::parse(&format!("order.placed.o-1.{version}")), None, "{version}");
        }
    }

    #[test]
    fn a_number_that_no_history_reaches_is_no_version() {
        let id = EntityId::new("o-1").unwrap();
        let last = event("order.placed", &id, MAX_VERSION);
        assert_eq!(EventSubject::parse(&last).unwrap().version, MAX_VERSION);
        assert!(holds(&last, "order.placed", &id));
        for version in ["9223372036854775808", "18446744073709551615", "18446744073709551616"] {
            let subject = format!("order.placed.o-1.{version}");
            assert_eq!(EventSubject::parse(&subject), None, "{version}");
            assert!(!holds(&subject, "order.placed", &id), "{version}");
        }
    }

    #[test]
    fn a_subject_holds_events_of_its_own_type_and_entity() {
        let id = EntityId::new("o-1").unwrap();
        for subject in ["order.placed", "order.placed.o-1", "order.placed.o-1.0", "order.placed.o-1.12"] {
            assert!(holds(subject, "order.placed", &id), "{subject}");
        }
        for subject in [
            "order.placed.o-2",
            "order.placed.o-2.1",
            "order.placed.o-11.1",
            "order.shipped.o-1.1",
            "order.placed_twice.o-1.1",
            "order.placed.o-1.1.1",
            "order.placed.",
            "order",
        ] {
            assert!(!holds(subject, "order.placed", &id), "{subject}");
        }
    }

    #[test]
    fn an_entitys_event_types_begin_with_its_name() {
        assert!(are_of(&["order.placed", "order.shipped"], "order") && are_of(&[], "order"));
        for bad in ["orders.placed", "orde.placed", "order", "orderplaced", "card.placed"] {
            assert!(!are_of(&["order.placed", bad], "order"), "{bad}");
        }
    }

    #[test]
    fn event_types_have_two_tokens() {
        assert!(is_event_type("order.placed") && is_event_type("user.status_changed"));
        for bad in ["order", "order.", ".placed", "order.placed.x", "Order.placed", "order.*", ""] {
            assert!(!is_event_type(bad), "{bad}");
        }
    }
}
