//! An aggregate: rules without side effects.

use crate::EventSet;

/// An entity whose state is the sum of its events. Both functions are pure: whatever a decision needs to know is looked
/// up before and put into the command.
pub trait Aggregate: Default + Clone + Send + Sync + 'static {
    /// The entity's name, the first token of its subjects: `order`.
    const ENTITY: &'static str;

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
