//! A durable and its configuration: created, compared field by field, put right with the cursor kept, or refused with a
//! difference.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::jetstream::consumer::{AckPolicy, Config, DeliverPolicy};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{Context, ErrorCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::drift::{Moment, Owners, Wanted, differences, owners};

/// A durable of a consumer: which stream it reads, and what.
#[derive(Debug, Clone)]
pub(super) struct Durable {
    pub(super) stream: &'static str,
    pub(super) name: String,
    pub(super) filters: Vec<String>,
    pub(super) ack_wait: Duration,
    pub(super) max_ack_pending: usize,
}

/// A durable as the server has it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Found {
    pub(super) config: Value,
    /// How many messages of the stream it has still to deliver.
    pub(super) num_pending: u64,
    /// How many are delivered and not settled.
    pub(super) num_ack_pending: u64,
    /// How many of those were delivered more than once.
    pub(super) num_redelivered: u64,
    /// Up to where everything is settled.
    pub(super) ack_floor: Sequences,
    #[serde(default)]
    pub(super) paused: bool,
    /// For how much longer, in nanoseconds.
    #[serde(default)]
    pub(super) pause_remaining: u64,
}

/// A place, counted by the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Sequences {
    stream_seq: u64,
}

/// Whose each field of a durable is. `docs/operations.md` lists those that are the operator's.
const OWNERS: Owners = owners! {
    deliver_subject: Fixed,
    durable_name: Fixed,
    name: Fixed,
    description: Operators,
    deliver_group: Fixed,
    // It decides only where a new durable begins.
    deliver_policy: Operators,
    ack_policy: Fixed,
    ack_wait: OursByRelease,
    max_deliver: Ours,
    filter_subject: OursByRelease,
    filter_subjects: OursByRelease,
    replay_policy: Fixed,
    rate_limit as "rate_limit_bps": Ours,
    sample_frequency as "sample_freq": Operators,
    max_waiting: Operators,
    max_ack_pending: OursByRelease,
    headers_only: Ours,
    flow_control: Fixed,
    idle_heartbeat: Fixed,
    max_batch: Ours,
    max_bytes: Ours,
    max_expires: Ours,
    inactive_threshold: Ours,
    num_replicas: Operators,
    memory_storage as "mem_storage": Fixed,
    metadata: Operators,
    backoff: Ours,
    priority_policy: Ours,
    priority_groups: Ours,
    priority_timeout: Ours,
    // Paused by an operator: kept, and reported by `lag.rs`. An open circuit writes it, and its reason into the metadata.
    pause_until: Operators,
};

impl Durable {
    fn config(&self, deliver_policy: DeliverPolicy) -> Config {
        Config {
            durable_name: Some(self.name.clone()),
            name: Some(self.name.clone()),
            deliver_policy,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            // No cap: the server silently skips a message that reaches it. Attempts are counted in the inbox.
            max_deliver: -1,
            // No steps: they would replace ack_wait.
            backoff: Vec::new(),
            filter_subjects: self.filters.clone(),
            max_ack_pending: i64::try_from(self.max_ack_pending).unwrap_or(i64::MAX),
            ..Config::default()
        }
    }

    fn wanted(&self, start: DeliverPolicy) -> Wanted {
        Wanted::new(serde_json::to_value(self.config(start)).unwrap_or_default(), OWNERS)
    }

    /// Binds to the durable. One that does not exist is created and starts at `start`: the beginning of the stream, or
    /// where a deleted one had been. One that differs is put right, with its cursor kept, or refused.
    pub(super) async fn bind(
        &self,
        js: &Context,
        start: DeliverPolicy,
        moment: Moment,
    ) -> anyhow::Result<()> {
        let Self { stream, name, .. } = self;
        let found = match self.look(js, moment).await? {
            Some(found) => found,
            None => self
                .write(js, "", &self.wanted(start).config)
                .await
                .with_context(|| format!("creating durable {name} on stream {stream}"))?,
        };
        self.check(&found, Moment::Start)
    }

    /// Looks at the durable, and puts right what differs; [`None`] if there is none.
    pub(super) async fn look(&self, js: &Context, moment: Moment) -> anyhow::Result<Option<Found>> {
        let Self { stream, name, .. } = self;
        let found = self.find(js).await;
        let found = found.with_context(|| format!("looking up durable {name} on stream {stream}"))?;
        let Some(found) = found else { return Ok(None) };
        let next = self.wanted(DeliverPolicy::All).merged_into(&found.config, moment);
        if next == found.config {
            return Ok(Some(found));
        }
        let changes = differences(&found.config, &next).join("; ");
        tracing::warn!(
            consumer.name = name,
            stream.name = stream,
            changes,
            "the durable's configuration is put right"
        );
        let written = self.write(js, "update", &next).await;
        written.map(Some).with_context(|| format!("updating durable {name} on stream {stream}: {changes}"))
    }

    /// Refuses a durable that is not as it must be, and is not put right at such a moment.
    pub(super) fn check(&self, found: &Found, moment: Moment) -> anyhow::Result<()> {
        let Self { stream, name, .. } = self;
        let wanted = self.wanted(DeliverPolicy::All);
        let never = wanted.refused(&found.config, Moment::Start);
        ensure!(
            never.is_empty(),
            "durable {name} on stream {stream} cannot be changed to what this program needs: {}; \
             delete it to start again from the beginning of the stream, or take another name",
            never.join("; ")
        );
        let by_release = wanted.refused(&found.config, moment);
        ensure!(
            by_release.is_empty(),
            "durable {name} on stream {stream} was changed by another release of this program, or by somebody: {}; \
             restart this service to put it back",
            by_release.join("; ")
        );
        Ok(())
    }

    async fn find(&self, js: &Context) -> anyhow::Result<Option<Found>> {
        let Self { stream, name, .. } = self;
        match js.request(format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await? {
            Response::Ok(found) => Ok(Some(found)),
            Response::Err { error } if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND => Ok(None),
            Response::Err { error } => Err(error.into()),
        }
    }

    async fn write(&self, js: &Context, action: &str, config: &Value) -> anyhow::Result<Found> {
        let Self { stream, name, .. } = self;
        let request = json!({ "stream_name": stream, "config": config, "action": action });
        match js.request(format!("CONSUMER.CREATE.{stream}.{name}"), &request).await? {
            Response::Ok(found) => Ok(found),
            Response::Err { error } => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
