//! What must hold of every aggregate, whatever it is about.

use std::fmt::Debug;

use crate::{Aggregate, Cause, EntityId, Envelope, EventId, EventSet};

/// Gives an aggregate one command after the other, `holds` after every event what must always hold of its state, and
/// returns the final state and all events. For property tests over random commands. It fails the test unless
///
/// - the same command in the same state is always decided alike;
/// - what is read back from the log adds up to the state that the events were decided in;
/// - a snapshot of any version and the events after it add up to the same.
#[track_caller]
pub fn aggregate_laws<A>(
    commands: impl IntoIterator<Item = A::Command>,
    holds: impl Fn(&A),
) -> (A, Vec<A::Event>)
where
    A: Aggregate + PartialEq + Debug,
    A::Event: PartialEq,
{
    let (mut live, mut events, mut snapshots) = (A::default(), Vec::new(), Vec::new());
    holds(&live);
    for command in commands {
        let decision = live.decide(&command).ok();
        assert_eq!(decision, live.decide(&command).ok(), "one command in one state, decided twice");
        for event in decision.into_iter().flatten() {
            snapshots.push(serde_json::to_vec(&live).expect("a state that can be written as JSON"));
            live.apply(&event);
            holds(&live);
            events.push(event);
        }
    }
    let stored: Vec<_> = events.iter().map(stored).collect();
    assert_eq!(stored, events, "what is read back (left), what was written (right)");
    for (version, snapshot) in snapshots.iter().enumerate() {
        let mut state: A = serde_json::from_slice(snapshot).expect("a state that can be read from JSON");
        stored[version..].iter().for_each(|event| state.apply(event));
        assert_eq!(state, live, "the snapshot of version {version} and what came after (left), live (right)");
    }
    (live, events)
}

/// An event after its way through the log.
fn stored<E: EventSet>(event: &E) -> E {
    let cause = Cause::request(EventId::generate());
    let entity: &EntityId = event.entity_id();
    let meta = cause.metadata("/test", event.kind(), cause.event_id("laws", entity, 0));
    let body = event.encode(&meta).expect("an event that can be written as JSON");
    let envelope = Envelope::decode(&body).expect("a document that can be read");
    E::decode(&envelope).expect("an event that can be read")
}
