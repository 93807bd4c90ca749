//! A command that was carried out before, for the same cause, is answered as at first.

use super::history::{Decision, History};
use super::hot::Hot;
use super::{Answer, EventStore, ExecuteError, Executed};
use crate::StoreError;
use crate::{Aggregate, Cause, EventId, EventSet};

/// A command, the id of the first event that it leads to, and what it leads to in the state of now.
pub(super) struct Asked<'a, A: Aggregate> {
    pub(super) command: &'a A::Command,
    pub(super) cause: &'a Cause,
    pub(super) first_id: &'a EventId,
    pub(super) decided_now: &'a [A::Event],
}

/// A decision that was carried out before for the same cause.
pub(super) struct Before<E> {
    events: Vec<E>,
    /// The version of its last event.
    last: u64,
    /// Where the log holds that one.
    sequence: u64,
}

/// What a decision that was found under a command's id is to the command.
enum Relation {
    /// It is the command's.
    Same,
    /// It has nothing to do with it: another event led to it.
    Other,
    /// It is another command's for the same cause.
    Reused,
}

impl<A: Aggregate> EventStore<A> {
    /// What a command led to that was carried out before, if one of the entity's events is its first.
    pub(super) async fn answer_again(
        &self,
        history: History<'_>,
        hot: &Hot<A>,
        asked: &Asked<'_, A>,
    ) -> Result<Option<Before<A::Event>>, StoreError> {
        let (cause, id) = (asked.cause, history.id);
        let by_id_alone = cause.event_id_by_id_alone(A::ENTITY, id, 0);
        for first_id in [Some(asked.first_id), by_id_alone.as_ref()].into_iter().flatten() {
            for version in hot.perhaps_at(first_id) {
                let is_part = |place: usize, found: &EventId| match place {
                    0 => found == first_id,
                    _ => {
                        *found == cause.event_id(A::ENTITY, id, place)
                            || Some(found) == cause.event_id_by_id_alone(A::ENTITY, id, place).as_ref()
                    }
                };
                let Some(decision) = history.decision_at(version, is_part).await? else { continue };
                match self.relation(history, version, &decision, asked).await? {
                    Relation::Other => {}
                    Relation::Reused => {
                        return Err(StoreError::CauseReused { entity: A::ENTITY, id: id.clone() });
                    }
                    Relation::Same => {
                        let Decision { events, sequence, .. } = decision;
                        let last = version + events.len() as u64 - 1;
                        return Ok(Some(Before { events, last, sequence }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Answers a repeated command as at first.
    pub(super) async fn first_answer(
        &self,
        history: History<'_>,
        Before { events, last, sequence }: Before<A::Event>,
        answer: Answer,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        let state = match answer {
            Answer::WithState => self.fold_to(history, last).await?.state,
            Answer::Done => A::default(),
        };
        Ok(Executed { state, version: last, sequence, events, repeated: true })
    }

    /// Whether the events at `version` are what the command led to. An id that is derived from all that the cause is says
    /// so. Others may have the id of an event that is taken over, and the ids that were derived from its id alone: there
    /// the events must be the very ones that the command leads to.
    async fn relation(
        &self,
        history: History<'_>,
        version: u64,
        Decision { events, first, .. }: &Decision<A::Event>,
        asked: &Asked<'_, A>,
    ) -> Result<Relation, StoreError> {
        let cause = asked.cause;
        let same_cause = first.causation_id.as_ref() == cause.causation_of(asked.first_id);
        let derived_alone = first.id != *asked.first_id;
        if derived_alone {
            let same = same_cause && self.led_to(history, version, asked, |then| then == events).await?;
            return Ok(if same { Relation::Same } else { Relation::Other });
        }
        if !cause.is_adopting() {
            // Where it leads to nothing now, there is nothing to be lost.
            let same = same_cause
                && (asked.decided_now.is_empty()
                    || self.led_to(history, version, asked, |then| same_kind(then, events)).await?);
            return Ok(if same { Relation::Same } else { Relation::Reused });
        }
        let own_source = self.log.source();
        let same_source = cause.is_of_source(&first.source, own_source);
        // What was taken over before sources were kept, and what has none of its own, stands under this service's.
        if same_cause
            && (same_source || first.source == own_source)
            && self.led_to(history, version, asked, |then| then == events).await?
        {
            return Ok(Relation::Same);
        }
        let same_event = same_source && (!same_cause || cause.is_of_type(&first.event_type));
        Ok(if same_event { Relation::Reused } else { Relation::Other })
    }

    /// Whether the command leads to such events now, or would have led to them in the state before `version`.
    async fn led_to(
        &self,
        history: History<'_>,
        version: u64,
        Asked { command, decided_now, .. }: &Asked<'_, A>,
        such: impl Fn(&[A::Event]) -> bool,
    ) -> Result<bool, StoreError> {
        if such(decided_now) {
            return Ok(true);
        }
        let before = self.fold_to(history, version - 1).await?.state;
        Ok(before.decide(command).is_ok_and(|then| such(&then)))
    }
}

/// Whether two decisions begin with the same type of event.
fn same_kind<E: EventSet>(one: &[E], other: &[E]) -> bool {
    match (one.first(), other.first()) {
        (Some(one), Some(other)) => one.kind() == other.kind(),
        _ => false,
    }
}
