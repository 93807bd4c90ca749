//! An aggregate: rules without side effects.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::EventSet;

/// An entity whose state is the sum of its events. Both functions are pure: whatever a decision needs to know is looked
/// up before and put into the command.
///
/// The state is written down now and then ([snapshots](Aggregate::SNAPSHOT_EVERY)), so it must survive a round trip
/// through JSON.
pub trait Aggregate: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The entity's name, the first token of its subjects: `order`.
    const ENTITY: &'static str;

    /// The version of the state's shape and meaning. Raise it when a field of the state changes, or what
    /// [`Aggregate::apply`] makes of an event: snapshots of another version are not used, and cost the time of one
    /// read of the whole history.
    const STATE_VERSION: u32 = 1;

    /// After how many events a snapshot is written, 1 to 500. A cold load reads at most about so many events; of a state that
    /// is larger than so many kilobytes, one event for each kilobyte.
    const SNAPSHOT_EVERY: u64 = 50;

    /// What can happen to it, in the past tense.
    type Event: EventSet;

    /// What can be asked of it, in the imperative.
    type Command: Send + Sync;

    /// Why it can say no. A refusal is an answer, not a failure.
    type Rejection: std::error::Error + Send + Sync + 'static;

    /// Decides what a command leads to in this state: events, nothing ("already so"), or a refusal.
    ///
    /// Prefer one event per decision: it is one write. Several are one atomic batch, and cost about fifty times as much
    /// on a single-node file stream.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// Takes an event into the state. It happened: this cannot fail.
    fn apply(&mut self, event: &Self::Event);
}
