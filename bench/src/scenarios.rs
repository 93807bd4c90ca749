//! The list of comparisons: what is compared with what, and what is aimed at.

use futures::FutureExt;

use crate::scenario::{Before, Scenario};
use crate::{consume, execute, project, publish};

/// Returns every scenario, in the order of the report.
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
