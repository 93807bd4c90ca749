//! One comparison: its sides, and what is aimed at.

use anyhow::Result;
use async_nats::Client;
use futures::future::BoxFuture;

use crate::measure::Sample;

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

/// A connection of a side's own, and how much there is to do.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) client: Client,
    pub(crate) server: u32,
    pub(crate) messages: usize,
}

/// Does the work once.
pub(crate) type Side = fn(Run) -> BoxFuture<'static, Result<Sample>>;
