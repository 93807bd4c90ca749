//! The log itself: readable, in place, without gaps and without doubles.

use std::collections::{BTreeMap, HashSet};

use common::ShopEvent;
use jetkit::subject::EventSubject;
use jetkit::{EventSet, Recorded};

use super::{Check, Ledger};
use crate::demo::Content;

pub(super) fn check(ledger: &Ledger) -> Check {
    let mut check = Check::new("log");
    let (mut ids, mut versions) = (HashSet::new(), BTreeMap::<(&str, &str), u64>::new());
    let (mut foreign, mut last) = (0, 0);
    for logged in &ledger.log {
        let (subject, sequence) = (&logged.subject, logged.sequence);
        check.holds(sequence > last, || format!("{subject} is at {sequence}, after {last}"));
        last = sequence;
        let event = match &logged.content {
            Content::Event(event) => event,
            Content::Foreign => {
                foreign += 1;
                continue;
            }
            Content::Unreadable(why) => {
                check.wrong.push(format!("{subject} ({sequence}) cannot be read: {why}"));
                continue;
            }
        };
        check.holds(ids.insert(&event.meta.id), || format!("{subject} ({sequence}) repeats an event id"));
        let Some(place) = EventSubject::parse(subject) else { continue };
        check.holds(is_at(event, &place), || format!("{subject} ({sequence}) holds another entity's event"));
        let version = versions.entry((place.entity, place.id)).or_default();
        check.holds(place.version == *version + 1, || {
            format!("{subject} ({sequence}) comes after version {version} of its entity")
        });
        *version = place.version;
    }
    let (events, entities) = (ledger.log.len() - foreign, versions.len());
    check.seen =
        format!("{events} events of {entities} entities, each version once; {foreign} from other producers");
    check
}

fn is_at(event: &Recorded<ShopEvent>, place: &EventSubject<'_>) -> bool {
    event.kind().0 == place.event_type && event.entity_id().as_str() == place.id
}
