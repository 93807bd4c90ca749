//! What is compared with what, and what is aimed at.

use anyhow::Result;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::arena::Run;
use crate::measure::Sample;
use crate::{consume, execute, project, publish};

/// One line of the report: the same work by two sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// How many messages each run handles.
    pub(crate) messages: usize,
    /// The lowest ratio of the kit's rate to the other side's that is good enough; none where the number is for
    /// orientation.
    pub(crate) target: Option<f64>,
    /// The server syncs before it acknowledges (`sync_interval: always`), as the shipped configuration does.
    pub(crate) sync_always: bool,
    /// What must be on the log before the work starts.
    pub(crate) before: Before,
    pub(crate) kit: Side,
    pub(crate) raw: Side,
}

impl Scenario {
    /// How many pairs it takes. The ratios of single pairs spread by a fifth, so a target near 1 needs more of them.
    pub(crate) fn pairs(&self, quick: bool) -> usize {
        match self.target {
            _ if quick => 3,
            Some(target) if (0.8..1.0).contains(&target) => 15,
            _ => 5,
        }
    }
}

/// What is on the log before a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing: fresh streams for every run.
    Nothing,
    /// As many orders as are going to be consumed, the same for all runs: each has a durable of its own.
    Orders,
    /// Fresh streams with accounts that have a history.
    Accounts,
}

/// Does the work once.
pub(crate) type Side = fn(Run) -> BoxFuture<'static, Result<Sample>>;

/// Every scenario, in the order of the report.
pub(crate) fn all() -> Vec<Scenario> {
    [publishing(), consuming(), executing(), vec![PROJECT]].concat()
}

/// The simplest one. The others say what is different.
const PUBLISH_ONE: Scenario = Scenario {
    name: "publish-one",
    about: "publish with ack, one at a time, with ids",
    messages: 20_000,
    target: Some(0.95),
    sync_always: false,
    before: Before::Nothing,
    kit: |run| publish::kit(run, 1).boxed(),
    raw: |run| publish::raw(run, 1, true).boxed(),
};

/// The target is for 1,000,000 events: `--messages 1000000`.
const PROJECT: Scenario = Scenario {
    name: "project",
    about: "build a read model from the log | an ordered read of it",
    messages: 150_000,
    target: Some(0.5),
    before: Before::Orders,
    kit: |run| project::kit(run).boxed(),
    raw: |run| project::raw(run).boxed(),
    ..PUBLISH_ONE
};

fn publishing() -> Vec<Scenario> {
    let pipelined = Scenario {
        name: "publish-256",
        about: "publish with ack, 256 in flight, with ids",
        messages: 100_000,
        kit: |run| publish::kit(run, 256).boxed(),
        raw: |run| publish::raw(run, 256, true).boxed(),
        ..PUBLISH_ONE
    };
    vec![
        PUBLISH_ONE,
        pipelined,
        Scenario {
            name: "publish-256-no-ids",
            about: "256 in flight, with ids | the same without",
            target: None,
            raw: |run| publish::raw(run, 256, false).boxed(),
            ..pipelined
        },
    ]
}

fn consuming() -> Vec<Scenario> {
    let plain = Scenario {
        name: "consume",
        about: "decode, handle and ack, without an idempotency set",
        messages: 150_000,
        target: Some(0.9),
        before: Before::Orders,
        kit: |run| consume::kit(run, false).boxed(),
        raw: |run| consume::raw(run).boxed(),
        ..PUBLISH_ONE
    };
    let durable = Scenario {
        name: "consume-durable",
        about: "with the durable idempotency set | two key-value round trips a message",
        messages: 40_000,
        target: Some(3.0),
        kit: |run| consume::kit(run, true).boxed(),
        raw: |run| consume::raw_with_key_value(run).boxed(),
        ..plain
    };
    vec![
        plain,
        durable,
        Scenario {
            name: "consume-durable-sync",
            about: "the durable set | two round trips, with sync_interval: always",
            messages: 10_000,
            sync_always: true,
            ..durable
        },
        Scenario {
            name: "consume-durable-raw",
            about: "with the durable idempotency set | plain acks, no set",
            target: None,
            kit: |run| consume::kit(run, true).boxed(),
            ..plain
        },
    ]
}

fn executing() -> Vec<Scenario> {
    let warm = Scenario {
        name: "execute-warm",
        about: "a command to an aggregate in memory | publish with the expected sequence",
        messages: 50_000,
        target: Some(0.9),
        before: Before::Accounts,
        kit: |run| execute::kit(run, true).boxed(),
        raw: |run| execute::raw(run, true).boxed(),
        ..PUBLISH_ONE
    };
    vec![
        warm,
        Scenario {
            name: "execute-cold",
            about: "read ten events, decide, append | multi_last and publish by hand",
            messages: 10_000,
            target: None,
            kit: |run| execute::kit(run, false).boxed(),
            raw: |run| execute::raw(run, false).boxed(),
            ..warm
        },
    ]
}
