//! An aggregate's tests as its specification: given what happened, when this is asked, then this happens.

use std::fmt::Debug;

use crate::Aggregate;

/// An aggregate to which these events have happened.
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let mut state = A::default();
    for event in events {
        state.apply(&event);
    }
    Given { state }
}

/// A state to give a command to. Made by [`given`].
#[derive(Debug)]
pub struct Given<A> {
    state: A,
}

impl<A: Aggregate> Given<A> {
    /// Gives the command.
    #[must_use]
    pub fn when(self, command: &A::Command) -> When<A> {
        When { decision: self.state.decide(command) }
    }
}

/// A decision to look at. Made by [`Given::when`].
#[derive(Debug)]
pub struct When<A: Aggregate> {
    decision: Result<Vec<A::Event>, A::Rejection>,
}

impl<A: Aggregate> When<A>
where
    A::Event: PartialEq,
    A::Rejection: PartialEq,
{
    /// Expects exactly these events.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = A::Event>) {
        assert_eq!(
            self.decision,
            Ok(expected.into_iter().collect()),
            "what was decided (left), what was expected (right)"
        );
    }

    /// Expects that nothing happens, because it is already so.
    #[track_caller]
    pub fn then_nothing(self) {
        self.then([]);
    }

    /// Expects this refusal.
    #[track_caller]
    pub fn then_rejected(self, expected: A::Rejection)
    where
        A::Rejection: Debug,
    {
        assert_eq!(self.decision, Err(expected), "what was decided (left), what was expected (right)");
    }
}
