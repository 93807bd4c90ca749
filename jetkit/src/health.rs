//! Whether the process is well: a registry of named checks, behind `/health/live` and `/health/ready`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// What the parts of a process report about themselves. Cloning gives another handle on the same registry.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    checks: BTreeMap<String, Check>,
    /// Why the process is on its way out.
    ending: Option<Ending>,
}

#[derive(Debug, Clone)]
struct Ending {
    reason: String,
    failed: bool,
}

/// One line of `/health/ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Whether this part can do its work now.
    pub ready: bool,
    /// What it is doing, or what is wrong. Safe to show: no secrets, no client's data.
    pub detail: String,
}

/// The whole of `/health/ready`: ready when every check is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    /// Whether every check is ready and the process is not stopping.
    pub ready: bool,
    /// Each part by name.
    pub checks: BTreeMap<String, Check>,
}

impl Health {
    /// A registry without checks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a part. It counts as not ready until it says otherwise.
    pub fn check(&self, name: impl Into<String>) -> CheckHandle {
        let name = name.into();
        self.state().checks.insert(name.clone(), Check { ready: false, detail: "starting".into() });
        CheckHandle(Some((self.clone(), name.into())))
    }

    /// What `/health/ready` answers.
    pub fn report(&self) -> HealthReport {
        let state = self.state();
        let mut checks = state.checks.clone();
        if let Some(ending) = &state.ending {
            checks.insert("process".into(), Check { ready: false, detail: ending.reason.clone() });
        }
        HealthReport { ready: checks.values().all(|check| check.ready), checks }
    }

    /// Whether everything that should run does: `/health/live`. A process that stops in good order is alive.
    pub fn is_live(&self) -> bool {
        !self.state().ending.as_ref().is_some_and(|ending| ending.failed)
    }

    /// The process stops from here on and is not ready any more.
    pub(crate) fn ending(&self, reason: impl Into<String>, failed: bool) {
        self.state().ending = Some(Ending { reason: reason.into(), failed });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One part's line in the registry. A [`CheckHandle::detached`] one goes nowhere, for use without a service.
#[derive(Clone, Default)]
pub struct CheckHandle(Option<(Health, Arc<str>)>);

impl CheckHandle {
    /// A handle that reports to nobody.
    pub fn detached() -> Self {
        Self::default()
    }

    /// Another check, named after this one. It counts as not ready until it says otherwise.
    pub(crate) fn beside(&self, part: &str) -> Self {
        self.0.as_ref().map_or_else(Self::detached, |(health, name)| health.check(format!("{name}: {part}")))
    }

    /// Reports whether the part is ready, and what it is doing or what is wrong with it.
    pub fn set_ready(&self, ready: bool, detail: impl Into<String>) {
        if let Some((health, name)) = &self.0
            && let Some(check) = health.state().checks.get_mut(&**name)
        {
            *check = Check { ready, detail: detail.into() };
        }
    }
}

/// How long one kind of operation may fail, without a success between, before its part is not ready: a cluster that
/// elects a leader is no news.
const GRACE: Duration = Duration::from_secs(5);

/// One kind of operation that a part of the process does again and again, and whether it works. Clones share one state.
///
/// The part is not ready once the operation has failed for [`GRACE`] without a success between, or was refused for
/// good; and ready again with the next success.
#[derive(Debug, Clone)]
pub(crate) struct Operation(Arc<OperationState>);

#[derive(Debug)]
struct OperationState {
    check: CheckHandle,
    /// What is reported while it works.
    well: &'static str,
    /// Whether the next success is news. (So that a success costs no lock.)
    is_news: AtomicBool,
    failing: Mutex<Failing>,
}

#[derive(Debug, Default)]
struct Failing {
    /// When it failed first, without a success since.
    since: Option<Instant>,
    latest: Option<Instant>,
    reported: bool,
}

impl Operation {
    /// Counts as working until it fails.
    pub(crate) fn new(check: CheckHandle, well: &'static str) -> Self {
        check.set_ready(true, well);
        Self::starting(check, well).not_news()
    }

    /// Counts as not ready until its first success.
    pub(crate) fn starting(check: CheckHandle, well: &'static str) -> Self {
        Self(Arc::new(OperationState {
            check,
            well,
            is_news: AtomicBool::new(true),
            failing: Mutex::default(),
        }))
    }

    fn not_news(self) -> Self {
        self.0.is_news.store(false, Ordering::Relaxed);
        self
    }

    pub(crate) fn detached() -> Self {
        Self::new(CheckHandle::detached(), "")
    }

    pub(crate) fn succeeded(&self) {
        let Self(state) = self;
        if state.is_news.load(Ordering::Relaxed) {
            let mut failing = state.failing();
            *failing = Failing::default();
            state.is_news.store(false, Ordering::Relaxed);
            state.check.set_ready(true, state.well);
        }
    }

    /// It failed, and may work the next time.
    pub(crate) fn failed(&self, reason: impl fmt::Display) {
        let Self(state) = self;
        let mut failing = state.failing();
        let since = failing.failed_now();
        state.is_news.store(true, Ordering::Relaxed);
        if failing.reported || since.elapsed() >= GRACE {
            failing.reported = true;
            state.check.set_ready(false, one_line(reason));
        }
    }

    /// It was refused: trying again will not help by itself.
    pub(crate) fn refused(&self, reason: impl fmt::Display) {
        let Self(state) = self;
        let mut failing = state.failing();
        failing.failed_now();
        failing.reported = true;
        state.is_news.store(true, Ordering::Relaxed);
        state.check.set_ready(false, one_line(reason));
    }

    /// Whether its part is not ready because of it, although it has not failed for so long.
    pub(crate) fn is_quiet_for(&self, quiet: Duration) -> bool {
        let failing = self.0.failing();
        failing.reported && failing.latest.is_some_and(|latest| latest.elapsed() >= quiet)
    }
}

impl Failing {
    /// Answers since when it fails.
    fn failed_now(&mut self) -> Instant {
        let now = Instant::now();
        self.latest = Some(now);
        *self.since.get_or_insert(now)
    }
}

impl OperationState {
    fn failing(&self) -> MutexGuard<'_, Failing> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one_line(reason: impl fmt::Display) -> String {
    reason.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Debug for CheckHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CheckHandle").field(&self.0.as_ref().map(|(_, name)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_every_part_is() {
        let health = Health::new();
        assert!(health.report().ready);
        let (nats, view) = (health.check("nats"), health.check("view"));
        assert!(!health.report().ready, "a part that has said nothing is not ready");
        nats.set_ready(true, "connected");
        view.set_ready(true, "caught up");
        assert!(health.report().ready);
        nats.set_ready(false, "disconnected");
        assert_eq!(health.report().checks["nats"].detail, "disconnected");
        assert!(!health.report().ready);
    }

    #[test]
    fn a_failure_is_reported_when_it_lasts_and_gone_with_the_next_success() {
        let health = Health::new();
        let operation = Operation::new(health.check("marks"), "written");
        let lasts = || operation.0.failing().since = Instant::now().checked_sub(GRACE);
        operation.failed("no answer");
        assert!(health.report().ready, "one failure is no news");
        lasts();
        operation.succeeded();
        operation.failed("no answer");
        assert!(health.report().ready, "there was a success between");
        lasts();
        operation.failed("no\n answer");
        assert_eq!(health.report().checks["marks"], Check { ready: false, detail: "no answer".into() });
        operation.succeeded();
        assert_eq!(health.report().checks["marks"], Check { ready: true, detail: "written".into() });
        operation.refused("the stream is full");
        assert!(!health.report().ready, "a refusal is reported at once");
        operation.succeeded();
        assert!(health.report().ready);
    }

    #[test]
    fn a_stopping_process_is_alive_but_not_ready_and_a_failed_one_is_neither() {
        let health = Health::new();
        health.ending("stopping: SIGTERM", false);
        assert!(health.is_live() && !health.report().ready);
        health.ending("consumer ended", true);
        assert!(!health.is_live());
    }
}
