//! The circuit of a consumer: closed while what its handlers depend on answers, open while it is down.
//!
//! [`Circuit`] decides and does nothing else: it is told what came of each event and of the time, and says what to do next.
//! `consumer/breaker.rs` does it.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::pause::Prober;
use super::runtime::Id;
use crate::delivered::HEARTBEAT;
use crate::jitter::jittered;

/// A durable whose pause is ended delivers to an open request with its next sign of life, and not at once. One that has not
/// been tried is waited for at least so long.
const RESUMED_WITHIN: Duration = HEARTBEAT.saturating_mul(2);

/// How a consumer's circuit is closed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// The delay before the first probe; doubled for each further one, and shortened at random by up to half.
    pub first_delay: Duration,
    /// The longest delay between two probes.
    pub longest_delay: Duration,
    /// After so many probes in a row that failed, one by another event is asked for: perhaps it is down for some events only.
    pub doubt_after: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { first_delay: Duration::from_secs(1), longest_delay: Duration::from_secs(30), doubt_after: 5 }
    }
}

/// What came of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The dependency is down.
    Down,
    /// The event was handled, or refused by what it depends on.
    Reached,
    /// It failed for another reason.
    Unknown,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Ask the server for the pause, then say [`Circuit::asked`].
    Ask,
    /// Start this event before all others, then say [`Circuit::started`].
    Probe(Id),
    /// End the pause, and run one event that has not been tried.
    TryAnother,
    /// End the pause, if it is ours, and run these.
    Close {
        ours: bool,
        waiting: Vec<Id>,
    },
    /// End the pause and run all but these, which wait for so long.
    SetAside {
        waiting: Vec<Id>,
        after: Duration,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// The server is asked, and may take its time.
    Asking {
        then_probe: bool,
    },
    Waiting {
        until: Instant,
    },
    /// A witness is to be started as soon as a handler may run.
    Starting,
    /// One that has not been tried may run; by `until`, or a witness runs.
    Trying {
        until: Instant,
    },
    Probing {
        id: Id,
        is_another: bool,
    },
}

#[derive(Debug)]
pub(super) struct Circuit {
    settings: Breaker,
    state: State,
    /// The events that have noticed that it is down, in the order in which they probe.
    witnesses: VecDeque<Id>,
    /// Those that say so although others get through. Each waits by itself, and is not believed alone.
    doubted: HashSet<Id>,
    /// How many probes in a row have failed.
    failures: u32,
    /// When the failures ended without a probe by a witness.
    doubted_at: Option<Instant>,
    /// Another replica probes.
    follows: bool,
}

impl Circuit {
    pub(super) fn new(settings: Breaker) -> Self {
        Self {
            settings,
            state: State::Closed,
            witnesses: VecDeque::new(),
            doubted: HashSet::new(),
            failures: 0,
            doubted_at: None,
            follows: false,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether another replica probes.
    pub(super) fn follows(&self) -> bool {
        self.follows
    }

    /// How many events of those that wait to be started may be: as many as there are, one, or none.
    pub(super) fn may_start(&self) -> Option<usize> {
        match self.state {
            State::Closed => None,
            State::Starting | State::Trying { .. } => Some(1),
            State::Asking { .. } | State::Waiting { .. } | State::Probing { .. } => Some(0),
        }
    }

    /// An event was started; while it is open, it is the probe.
    pub(super) fn started(&mut self, id: Id) {
        match self.state {
            State::Starting => self.state = State::Probing { id, is_another: false },
            State::Trying { .. } => self.state = State::Probing { id, is_another: true },
            _ => {}
        }
    }

    /// When [`Circuit::due`] has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } | State::Trying { until } => Some(until),
            _ => None,
        }
    }

    pub(super) fn due(&mut self) -> Step {
        self.state = State::Asking { then_probe: true };
        Step::Ask
    }

    /// What an event that ran tells.
    pub(super) fn hear(&mut self, id: Id, answer: Answer, now: Instant) -> Step {
        let probe = match self.state {
            State::Probing { id: probe, is_another } if probe == id => Some(is_another),
            _ => None,
        };
        match (answer, probe) {
            (Answer::Down, None) => self.down(id, now),
            (Answer::Down, Some(_)) => {
                self.witnesses.push_back(id);
                self.failures = self.failures.saturating_add(1);
                self.wait(now)
            }
            (_, None) => {
                if !self.doubted.is_empty() {
                    self.doubted.remove(&id);
                }
                Step::Nothing
            }
            (Answer::Reached, Some(false)) => self.close(),
            (Answer::Reached, Some(true)) => self.doubt(now),
            (Answer::Unknown, Some(_)) if self.witnesses.is_empty() => self.close(),
            (Answer::Unknown, Some(_)) => self.wait(now),
        }
    }

    fn down(&mut self, id: Id, now: Instant) -> Step {
        if self.state != State::Closed {
            self.witnesses.push_back(id);
            return Step::Nothing;
        }
        if self.doubted.contains(&id) {
            return Step::SetAside { waiting: vec![id], after: jittered(self.settings.longest_delay) };
        }
        // One that is opened again soon after doubt has been open all the time.
        let recently = self.settings.longest_delay * 2;
        if self.doubted_at.take().is_none_or(|at| now.duration_since(at) > recently) {
            self.failures = 0;
        }
        self.witnesses.push_back(id);
        self.state = State::Asking { then_probe: false };
        Step::Ask
    }

    /// The server has answered who probes. (One that cannot be asked keeps no replica from probing.)
    pub(super) fn asked(&mut self, prober: Prober, now: Instant) -> Step {
        let State::Asking { then_probe } = self.state else { return Step::Nothing };
        self.follows = prober == Prober::Theirs;
        match prober {
            Prober::Nobody => self.close(),
            Prober::Theirs => {
                self.state = State::Waiting { until: now + jittered(self.settings.first_delay) };
                Step::Nothing
            }
            Prober::Ours if !then_probe => self.wait(now),
            Prober::Ours => self.probe(now),
        }
    }

    fn probe(&mut self, now: Instant) -> Step {
        let every = self.settings.doubt_after.saturating_add(1);
        if self.failures % every == self.settings.doubt_after {
            // Counts as a probe, whether one comes or not.
            self.failures = self.failures.saturating_add(1);
            self.state = State::Trying { until: now + self.delay().max(RESUMED_WITHIN) };
            return Step::TryAnother;
        }
        let Some(id) = self.witnesses.pop_front() else { return self.close() };
        self.state = State::Starting;
        Step::Probe(id)
    }

    fn wait(&mut self, now: Instant) -> Step {
        self.state = State::Waiting { until: now + self.delay() };
        Step::Nothing
    }

    /// Exponential, capped, shortened at random by up to half.
    pub(super) fn delay(&self) -> Duration {
        let Breaker { first_delay, longest_delay, .. } = self.settings;
        jittered(first_delay.saturating_mul(1 << self.failures.min(20)).min(longest_delay))
    }

    fn close(&mut self) -> Step {
        (self.state, self.failures) = (State::Closed, 0);
        self.doubted.clear();
        let ours = !std::mem::take(&mut self.follows);
        Step::Close { ours, waiting: self.witnesses.drain(..).collect() }
    }

    /// Another event got through: it is not down for all.
    fn doubt(&mut self, now: Instant) -> Step {
        self.state = State::Closed;
        self.doubted_at = Some(now);
        self.doubted.extend(&self.witnesses);
        let waiting = self.witnesses.drain(..).collect();
        Step::SetAside { waiting, after: jittered(self.settings.longest_delay) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Id = ("EVENTS", 1);
    const B: Id = ("EVENTS", 2);
    const C: Id = ("EVENTS", 3);

    fn circuit() -> Circuit {
        let seconds = Duration::from_secs;
        Circuit::new(Breaker { first_delay: seconds(1), longest_delay: seconds(8), doubt_after: 3 })
    }

    /// Opens it by these events, and has it probe next.
    fn opened(by: &[Id], now: Instant) -> Circuit {
        let mut circuit = circuit();
        for (n, id) in by.iter().enumerate() {
            let step = if n == 0 { Step::Ask } else { Step::Nothing };
            assert_eq!(circuit.hear(*id, Answer::Down, now), step);
        }
        assert_eq!(circuit.asked(Prober::Ours, now), Step::Nothing);
        circuit
    }

    fn probe(circuit: &mut Circuit, now: Instant) -> Step {
        assert!(circuit.next().is_some());
        assert_eq!(circuit.due(), Step::Ask);
        let step = circuit.asked(Prober::Ours, now);
        if let Step::Probe(id) = step {
            assert_eq!(circuit.may_start(), Some(1));
            circuit.started(id);
        }
        step
    }

    #[test]
    fn one_event_opens_it_and_one_probe_that_gets_through_closes_it() {
        let now = Instant::now();
        let mut circuit = opened(&[A, B], now);
        assert_eq!(circuit.may_start(), Some(0));
        assert_eq!(probe(&mut circuit, now), Step::Probe(A));
        assert_eq!(circuit.hear(A, Answer::Down, now), Step::Nothing);
        assert_eq!(probe(&mut circuit, now), Step::Probe(B), "they take turns");
        assert_eq!(circuit.hear(C, Answer::Reached, now), Step::Nothing, "it ran before");
        let closed = Step::Close { ours: true, waiting: vec![A] };
        assert_eq!(circuit.hear(B, Answer::Reached, now), closed);
        assert!(circuit.is_closed() && circuit.may_start().is_none());
    }

    #[test]
    fn probes_become_rarer_up_to_a_limit() {
        let now = Instant::now();
        let mut circuit = opened(&[A], now);
        for (failures, longest) in [(0, 1), (1, 2), (2, 4), (3, 8), (9, 8), (u32::MAX, 8)] {
            circuit.failures = failures;
            let (delay, longest) = (circuit.delay(), Duration::from_secs(longest));
            assert!(delay <= longest && delay >= longest / 2, "{failures}: {delay:?}");
        }
    }

    #[test]
    fn a_probe_that_fails_for_another_reason_proves_nothing() {
        let now = Instant::now();
        let mut circuit = opened(&[A, B], now);
        assert_eq!(probe(&mut circuit, now), Step::Probe(A));
        assert_eq!(circuit.hear(A, Answer::Unknown, now), Step::Nothing);
        assert_eq!(probe(&mut circuit, now), Step::Probe(B));
        let closed = Step::Close { ours: true, waiting: vec![] };
        assert_eq!(circuit.hear(B, Answer::Unknown, now), closed, "nobody says any more that it is down");
    }

    #[test]
    fn another_replica_that_probes_is_followed_until_it_closes_or_is_gone() {
        let now = Instant::now();
        for (then, step) in [
            (Prober::Nobody, Step::Close { ours: true, waiting: vec![A] }),
            (Prober::Ours, Step::Probe(A)),
            (Prober::Theirs, Step::Nothing),
        ] {
            let mut circuit = circuit();
            assert_eq!(circuit.hear(A, Answer::Down, now), Step::Ask);
            assert_eq!(circuit.asked(Prober::Theirs, now), Step::Nothing);
            assert!(circuit.follows());
            assert_eq!(circuit.due(), Step::Ask);
            assert_eq!(circuit.asked(then, now), step);
        }
    }

    #[test]
    fn an_event_that_alone_says_so_stops_the_others_for_a_while_only() {
        let now = Instant::now();
        let mut circuit = opened(&[A], now);
        for _ in 0..3 {
            assert_eq!(probe(&mut circuit, now), Step::Probe(A));
            assert_eq!(circuit.hear(A, Answer::Down, now), Step::Nothing);
        }
        assert_eq!(probe(&mut circuit, now), Step::TryAnother);
        assert_eq!(circuit.may_start(), Some(1));
        circuit.started(B);
        assert_eq!(circuit.may_start(), Some(0), "one, and not more");
        let Step::SetAside { waiting, .. } = circuit.hear(B, Answer::Reached, now) else { panic!() };
        assert_eq!(waiting, [A]);
        assert!(circuit.is_closed());
        let Step::SetAside { waiting, .. } = circuit.hear(A, Answer::Down, now) else { panic!() };
        assert_eq!(waiting, [A], "it is not believed alone");
        assert!(circuit.is_closed());
        let failures = circuit.failures;
        assert_eq!(circuit.hear(C, Answer::Down, now), Step::Ask, "another one is");
        assert_eq!(circuit.failures, failures, "it has been down all the time");
    }

    #[test]
    fn an_outage_that_another_event_confirms_goes_on() {
        let now = Instant::now();
        let mut circuit = opened(&[A], now);
        for _ in 0..3 {
            probe(&mut circuit, now);
            circuit.hear(A, Answer::Down, now);
        }
        assert_eq!(probe(&mut circuit, now), Step::TryAnother);
        circuit.started(B);
        assert_eq!(circuit.hear(B, Answer::Down, now), Step::Nothing);
        assert_eq!(probe(&mut circuit, now), Step::Probe(A));
        let closed = Step::Close { ours: true, waiting: vec![B] };
        assert_eq!(circuit.hear(A, Answer::Reached, now), closed);
    }

    #[test]
    fn where_no_other_event_comes_the_witness_probes_again() {
        let now = Instant::now();
        let mut circuit = opened(&[A], now);
        for _ in 0..3 {
            probe(&mut circuit, now);
            circuit.hear(A, Answer::Down, now);
        }
        assert_eq!(probe(&mut circuit, now), Step::TryAnother);
        assert_eq!(probe(&mut circuit, now), Step::Probe(A));
    }
}
