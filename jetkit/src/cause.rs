//! Why something is done, and the ids of what is recorded because of it.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use chrono::{DateTime, SubsecRound, Utc};
use uuid::Uuid;

use crate::{EntityId, Event, EventId, Metadata, Recorded, TraceContext, id};

/// Why something is done: a request or an event. Whatever is recorded because of it carries its correlation and
/// gets an id derived from it, so that doing the same thing twice for the same cause records it once.
#[derive(Debug, Clone)]
pub struct Cause {
    id: EventId,
    /// What events name as their cause: the id, unless that is not enough to tell the cause from others.
    recorded: EventId,
    correlation_id: EventId,
    user_id: Option<String>,
    /// Which of several things done for the same cause.
    step: String,
    /// What tells an event of another producer from others that have its id.
    origin: Option<Origin>,
    /// Set for an event that is taken over from another producer: when it happened. It keeps its id, source and time.
    adopted: Option<DateTime<Utc>>,
    trace: Option<TraceContext>,
}

/// What tells events apart that share an id. `source` and `id` identify an event (CloudEvents); a producer that gives
/// one pair to events of two types or entities has not repeated itself either.
#[derive(Debug, Clone)]
struct Origin {
    event_type: String,
    entity: EntityId,
    source: String,
}

impl Origin {
    fn of<E: Event>(event: &Recorded<E>) -> Self {
        let Metadata { event_type, source, .. } = &event.meta;
        Self {
            event_type: event_type.clone(),
            entity: event.event.entity_id().clone(),
            source: source.clone(),
        }
    }
}

impl Cause {
    /// A request from outside, known by `id`: a fresh one, or one computed from the client's idempotency key.
    pub fn request(id: EventId) -> Self {
        Self {
            recorded: id.clone(),
            correlation_id: id.clone(),
            id,
            user_id: None,
            step: String::new(),
            origin: None,
            adopted: None,
            trace: None,
        }
    }

    /// The same request, with the id that its events are to name as their cause. A repeat is known by its first id; that
    /// it is the same request in all else, by this one: where it differs from what is recorded, the command is refused
    /// ([`crate::StoreError::CauseReused`]).
    #[must_use]
    pub fn recorded_as(self, recorded: EventId) -> Self {
        Self { recorded, ..self }
    }

    /// A stored event. What the kit has recorded because of something has an id that nothing else has. Any other event is
    /// known by its source, type and entity too.
    pub fn event<E: Event>(event: &Recorded<E>) -> Self {
        let meta = &event.meta;
        let own = id::is_made_here(meta.id.as_str(), meta.causation_id.is_some());
        Self {
            id: meta.id.clone(),
            recorded: meta.id.clone(),
            correlation_id: meta.correlation_id.clone(),
            user_id: meta.user_id.clone(),
            step: String::new(),
            origin: (!own).then(|| Origin::of(event)),
            adopted: None,
            trace: meta.trace.clone(),
        }
    }

    /// Another producer's event that is recorded as it is, under its own id, source and time.
    pub fn adopting<E: Event>(event: &Recorded<E>) -> Self {
        Self { origin: Some(Origin::of(event)), adopted: Some(event.meta.time), ..Self::event(event) }
    }

    /// On whose behalf.
    #[must_use]
    pub fn by_user(self, user_id: impl Into<String>) -> Self {
        Self { user_id: Some(user_id.into()), ..self }
    }

    /// The same request as part of a trace, which whatever it leads to belongs to.
    #[must_use]
    pub fn traced(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }

    /// The same cause for one of several commands that it leads to on the same entity: without a step of its own the
    /// second would be taken for a repetition of the first.
    #[must_use]
    pub fn step(self, step: impl Into<String>) -> Self {
        Self { step: step.into(), ..self }
    }

    /// The id of the request or event.
    pub fn id(&self) -> &EventId {
        &self.id
    }

    /// The trace that it is part of.
    pub(crate) fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// The correlation id that everything led to by it carries.
    pub fn correlation_id(&self) -> &EventId {
        &self.correlation_id
    }

    /// Returns an id for something done because of this, the same each time for the same `what`.
    ///
    /// It is a UUIDv7 (RFC 9562) with the cause's timestamp and a hash in place of the random bits; where the cause's
    /// id carries no timestamp, a UUIDv5.
    pub fn derive(&self, what: &str) -> EventId {
        self.derive_from(self.origin.as_ref(), format_args!("{what}"))
    }

    /// Returns the id that was derived from an event of another producer while only the event's id counted; none where
    /// nothing has changed. Other events under its id had the same: what is found under it must be compared.
    pub fn derive_by_id_alone(&self, what: &str) -> Option<EventId> {
        self.origin.as_ref().map(|_| self.derive_from(None, format_args!("{what}")))
    }

    fn derive_from(&self, origin: Option<&Origin>, what: fmt::Arguments<'_>) -> EventId {
        let mut name = String::with_capacity(4 * EventId::MAX_LEN);
        // A string takes whatever is written to it.
        let _ = write!(name, "{}\n{}\n{what}", self.id, self.step);
        if let Some(Origin { event_type, entity, source }) = origin {
            // The source is last: it may be any text.
            let _ = write!(name, "\n{event_type}\n{entity}\n{source}");
        }
        let hash = Uuid::new_v5(&NAMESPACE, name.as_bytes());
        let timestamp = Uuid::try_parse(self.id.as_str()).ok().filter(|id| id.get_version_num() == 7);
        let Some(timestamp) = timestamp else { return hash.into() };
        let (mut bytes, time) = (*hash.as_bytes(), timestamp.as_bytes());
        bytes[..6].copy_from_slice(&time[..6]);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        Uuid::from_bytes(bytes).into()
    }

    /// The id of the `index`th event recorded in `scope` on `entity` because of this.
    pub(crate) fn event_id(&self, scope: &str, entity: &EntityId, index: usize) -> EventId {
        if index == 0 && self.adopted.is_some() {
            return self.id.clone();
        }
        self.derive_from(self.origin.as_ref(), format_args!("{scope} {entity} {index}"))
    }

    /// The same as it was while only the event's id counted; none where nothing has changed.
    pub(crate) fn event_id_by_id_alone(
        &self,
        scope: &str,
        entity: &EntityId,
        index: usize,
    ) -> Option<EventId> {
        self.origin.as_ref()?;
        if index == 0 && self.adopted.is_some() {
            return None;
        }
        Some(self.derive_from(None, format_args!("{scope} {entity} {index}")))
    }

    /// Whether an event is taken over from another producer.
    pub(crate) fn is_adopting(&self) -> bool {
        self.adopted.is_some()
    }

    /// Whether the first event recorded because of this would have that source.
    pub(crate) fn is_of_source(&self, source: &str, own_source: &str) -> bool {
        self.source(own_source) == source
    }

    /// Whether the event that is taken over is of that type.
    pub(crate) fn is_of_type(&self, event_type: &str) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.event_type == event_type)
    }

    /// The source of an event that is taken over, as it is recorded: a first-generation event has none of its own.
    fn source<'a>(&'a self, own_source: &'a str) -> &'a str {
        match &self.origin {
            Some(Origin { source, .. }) if !source.is_empty() => source,
            _ => own_source,
        }
    }

    /// Whether the event recorded under `id` because of this is the one that is taken over.
    fn takes_over(&self, id: &EventId) -> bool {
        self.adopted.is_some() && self.id == *id
    }

    /// What the event recorded under `id` because of this names as its cause.
    pub(crate) fn causation_of(&self, id: &EventId) -> Option<&EventId> {
        (!self.takes_over(id)).then_some(&self.recorded)
    }

    /// The context of an event that `source` records under `id` because of this.
    pub(crate) fn metadata(&self, source: &str, kind: (&'static str, u32), id: EventId) -> Metadata {
        let (event_type, data_version) = kind;
        let (source, time) = match self.adopted {
            Some(time) if self.takes_over(&id) => (self.source(source), time),
            _ => (source, Utc::now().trunc_subsecs(6)),
        };
        let causation_id = self.causation_of(&id).cloned();
        Metadata {
            id,
            source: source.to_owned(),
            event_type: event_type.to_owned(),
            time,
            data_version,
            correlation_id: self.correlation_id.clone(),
            causation_id,
            user_id: self.user_id.clone(),
            priority: None,
            trace: self.trace.clone(),
        }
    }

    /// The `Nats-Msg-Id` for an event recorded in `scope` on `entity` because of this. It is the event's id, except for an
    /// adopted event: the original message may hold that id in the stream's duplicate window, and so may any other that
    /// a producer has published under it.
    pub(crate) fn message_id<'a>(&self, scope: &str, entity: &EntityId, id: &'a EventId) -> Cow<'a, str> {
        if self.takes_over(id) {
            let what = format_args!("adopted {scope} {entity}");
            return format!("adopted:{}", self.derive_from(self.origin.as_ref(), what)).into();
        }
        id.as_str().into()
    }
}

impl<E: Event> Recorded<E> {
    /// The cause of whatever is done because of this event.
    pub fn cause(&self) -> Cause {
        Cause::event(self)
    }
}

/// Namespace of derived ids. Changing it makes every repeat after the change a new event.
const NAMESPACE: Uuid = Uuid::from_u128(0x7d1c_6c2e_54f1_4c0b_9a57_0f35_7be3_a1d4);

#[cfg(test)]
mod tests {
    use super::*;

    /// Something happened to a thing.
    #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Happened {
        id: EntityId,
    }

    impl Event for Happened {
        const TYPE: &'static str = "thing.happened";

        fn entity_id(&self) -> &EntityId {
            &self.id
        }
    }

    fn entity(id: &str) -> EntityId {
        EntityId::new(id).unwrap()
    }

    fn happened(
        id: &str,
        causation: Option<&str>,
        (source, event_type, to): (&str, &str, &str),
    ) -> Recorded<Happened> {
        let (id, causation_id) = (EventId::new(id).unwrap(), causation.map(|id| EventId::new(id).unwrap()));
        let meta = Metadata {
            correlation_id: id.clone(),
            id,
            source: source.to_owned(),
            event_type: event_type.to_owned(),
            time: Utc::now(),
            data_version: 1,
            causation_id,
            user_id: None,
            priority: None,
            trace: None,
        };
        Recorded { event: Happened { id: entity(to) }, stored_at: meta.time, meta, version: 1, sequence: 1 }
    }

    const V7: &str = "0190a5c0-7d1c-7c2e-94f1-7c0b9a570f35";
    const V5: &str = "6fa459ea-ee8a-5ca4-894e-db77e160355e";
    const LAMP: (&str, &str, &str) = ("/shop", "thing.happened", "a");

    #[test]
    fn ids_derived_from_requests_and_own_events_are_what_they_always_were() {
        for (id, step, scope, to, index, derived) in [
            (V7, "", "stock", "main", 0, "0190a5c0-7d1c-7927-b7e2-d40c43f30c55"),
            (V7, "give back", "account", "acc-1", 0, "0190a5c0-7d1c-749f-b18b-aa90e4c69ed5"),
            (V7, "", "order", "o-1", 1, "0190a5c0-7d1c-7720-b15e-14ba6b4ffedd"),
            (V5, "", "payment", "o-1", 0, "61bd8c0d-d5c8-54d2-86e7-f7e339134e02"),
        ] {
            let request = Cause::request(EventId::new(id).unwrap()).step(step);
            let event = happened(id, Some(V7), LAMP).cause().step(step);
            for cause in [request, event] {
                assert_eq!(cause.event_id(scope, &entity(to), index).as_str(), derived);
                assert_eq!(cause.event_id_by_id_alone(scope, &entity(to), index), None);
            }
        }
        let own = happened(V7, Some("any-request"), LAMP).cause();
        assert_eq!(own.derive("mail").as_str(), "0190a5c0-7d1c-7aa6-9ab5-cb8943445e93");
        assert_eq!(own.derive_by_id_alone("mail"), None);
        let step = happened(V5, Some(V7), LAMP).cause().step("sent");
        assert_eq!(step.derive("mail").as_str(), "edc1878f-e6d2-5466-9b69-29b9c95f95b2");
    }

    #[test]
    fn what_earlier_releases_derived_from_a_foreign_event_is_known() {
        let foreign = happened("e-1", None, LAMP).cause();
        let before = foreign.derive_by_id_alone("mail").unwrap();
        assert_eq!(before.as_str(), "e3b3d2e4-0068-5854-bf7e-9153ba8e3963");
        let before = foreign.event_id_by_id_alone("stock", &entity("main"), 0).unwrap();
        assert_eq!(before.as_str(), "f120a284-5f72-5645-94c1-02273121cd95");
        assert_ne!(foreign.event_id("stock", &entity("main"), 0), before);
        // One that is taken over kept its id then, too.
        let adopting = Cause::adopting(&happened("e-1", None, LAMP));
        assert_eq!(adopting.event_id_by_id_alone("thing", &entity("a"), 0), None);
    }

    #[test]
    fn foreign_events_of_one_id_derive_apart_in_all_else() {
        let mut derived = std::collections::HashSet::new();
        // No cause, no id of ours, neither, and an id of ours without a cause.
        for (id, causation) in [("e-1", None), ("e-2", Some(V7)), (V7, None), (V5, None)] {
            for source in ["", "/one", "/two", "/two\na"] {
                for event_type in ["thing.happened", "thing.ended"] {
                    for to in ["a", "b"] {
                        let event = happened(id, causation, (source, event_type, to));
                        let (cause, again) = (event.cause(), event.clone().cause());
                        assert_eq!(cause.derive("x"), again.derive("x"), "a repeat");
                        assert!(derived.insert(cause.derive("x")), "{id} {source} {event_type} {to}");
                        let adopting = Cause::adopting(&event);
                        let message_id = |cause: &Cause| {
                            cause.message_id("thing", &entity(to), &event.meta.id).into_owned()
                        };
                        assert!(derived.insert(EventId::new(message_id(&adopting)).unwrap()));
                        assert_eq!(message_id(&cause), id, "only what is taken over has the original's id");
                    }
                }
            }
        }
        assert_eq!(derived.len(), 4 * 4 * 2 * 2 * 2);
    }

    #[test]
    fn an_adopted_event_keeps_its_id_source_and_time() {
        for (source, kept) in [("/elsewhere", "/elsewhere"), ("", "/here")] {
            let event = happened("e-1", None, (source, "thing.happened", "a"));
            let adopting = Cause::adopting(&event);
            let first = adopting.metadata("/here", (Happened::TYPE, 1), adopting.event_id("t", &event.id, 0));
            assert_eq!((first.id.as_str(), first.source.as_str()), ("e-1", kept));
            assert_eq!((first.time, first.causation_id), (event.meta.time, None));
            let second =
                adopting.metadata("/here", (Happened::TYPE, 1), adopting.event_id("t", &event.id, 1));
            assert_eq!((second.source.as_str(), second.causation_id), ("/here", Some(event.meta.id.clone())));
            assert_ne!(second.id, event.meta.id);
        }
    }

    #[test]
    fn a_repeat_of_the_same_cause_derives_the_same_id() {
        let cause = Cause::request(EventId::generate());
        assert_eq!(cause.derive("a"), cause.derive("a"));
        assert_ne!(cause.derive("a"), cause.derive("b"));
        assert_ne!(cause.derive("a"), Cause::request(EventId::generate()).derive("a"));
    }

    #[test]
    fn a_derived_id_is_a_uuid_v7_of_the_causes_time() {
        let cause = Cause::request(EventId::generate());
        let parse = |id: &EventId| Uuid::try_parse(id.as_str()).unwrap();
        let derived = parse(&cause.derive("a"));
        assert_eq!(derived.get_version_num(), 7);
        assert_eq!(
            derived.get_timestamp().unwrap().to_unix().0,
            parse(cause.id()).get_timestamp().unwrap().to_unix().0
        );
        let foreign = Cause::request(EventId::new("evt-1").unwrap());
        assert_eq!(parse(&foreign.derive("a")).get_version_num(), 5);
    }
}
