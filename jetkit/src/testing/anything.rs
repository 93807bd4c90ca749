//! [`Anything`]: another service's entity, for tests of who reads its events.

use std::convert::Infallible;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use crate::{Aggregate, EventSet};

/// An aggregate without rules: its commands are events, and whatever a test says happened, happened.
///
/// For the events of an entity whose rules are another service's; [`super::Harness::happens`] puts them on the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Anything<S>(PhantomData<fn() -> S>);

impl<S> Default for Anything<S> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<S: EventSet> Aggregate for Anything<S> {
    const ENTITY: &'static str = entity_of(S::TYPES[0]);
    type Event = S;
    type Command = S;
    type Rejection = Infallible;

    fn decide(&self, happened: &S) -> Result<Vec<S>, Infallible> {
        Ok(vec![happened.clone()])
    }

    fn apply(&mut self, _: &S) {}
}

/// The first token of an event's wire name.
const fn entity_of(event_type: &'static str) -> &'static str {
    let mut end = 0;
    while event_type.as_bytes()[end] != b'.' {
        end += 1;
    }
    event_type.split_at(end).0
}
