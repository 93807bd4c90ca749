//! A durable and its configuration: created, compared, updated with the cursor kept, or refused with a difference.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use async_nats::jetstream::{Context, ErrorCode};

/// A durable of a consumer: which stream it reads, and what.
#[derive(Debug, Clone)]
pub(super) struct Durable {
    pub(super) stream: &'static str,
    pub(super) name: String,
    pub(super) filters: Vec<String>,
    pub(super) ack_wait: Duration,
    pub(super) max_ack_pending: usize,
}

impl Durable {
    fn config(&self, deliver_policy: DeliverPolicy) -> Config {
        Config {
            durable_name: Some(self.name.clone()),
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

    /// Binds to the durable. One that does not exist is created and starts at `start`: the beginning of the stream, or
    /// where a deleted one had been. One that differs is updated, with its cursor kept, or refused.
    pub(super) async fn bind(&self, js: &Context, start: DeliverPolicy) -> anyhow::Result<PullConsumer> {
        let Self { stream, name, .. } = self;
        let existing = match js.get_consumer_from_stream::<Config, _, _>(name, stream).await {
            Ok(existing) => existing,
            Err(error) if is_not_found(&error) => {
                let created = js.create_consumer_on_stream(self.config(start), *stream).await;
                return created.with_context(|| format!("creating durable {name} on stream {stream}"));
            }
            Err(error) => {
                return Err(error).with_context(|| format!("looking up durable {name} on stream {stream}"));
            }
        };
        let info = existing.cached_info();
        let Differences { updatable, fixed } = self.differences(&info.config);
        if !fixed.is_empty() {
            bail!(
                "durable {name} on stream {stream} cannot be changed to what this program needs: {}; \
                 delete it to start again from the beginning of the stream, or take another name",
                fixed.join("; ")
            );
        }
        if updatable.is_empty() {
            return Ok(existing);
        }
        tracing::warn!(
            consumer.name = name,
            changes = updatable.join("; "),
            "the durable's configuration is updated"
        );
        let wanted = self.config(info.config.deliver_policy);
        let updated = js.update_consumer_on_stream(wanted, *stream).await;
        updated
            .with_context(|| format!("updating durable {name} on stream {stream}: {}", updatable.join("; ")))
    }

    /// What stands differently on the server: what an update can change, and what it cannot.
    fn differences(&self, is: &async_nats::jetstream::consumer::Config) -> Differences {
        let wanted = self.config(DeliverPolicy::All);
        let mut differences = Differences::default();
        let single = (!is.filter_subject.is_empty()).then_some(&is.filter_subject);
        let filters: BTreeSet<_> = is.filter_subjects.iter().chain(single).collect();
        differences.compare(true, "filters", &filters, &self.filters.iter().collect());
        differences.compare(true, "ack_wait", &is.ack_wait, &wanted.ack_wait);
        differences.compare(true, "max_ack_pending", &is.max_ack_pending, &wanted.max_ack_pending);
        differences.compare(true, "max_deliver", &is.max_deliver, &wanted.max_deliver);
        differences.compare(true, "backoff", &is.backoff, &wanted.backoff);
        differences.compare(false, "ack_policy", &is.ack_policy, &wanted.ack_policy);
        differences.compare(false, "deliver_subject", &is.deliver_subject, &None);
        differences
    }
}

#[derive(Default)]
struct Differences {
    updatable: Vec<String>,
    fixed: Vec<String>,
}

impl Differences {
    fn compare<T: PartialEq + std::fmt::Debug>(&mut self, updatable: bool, field: &str, is: &T, wanted: &T) {
        if is != wanted {
            let list = if updatable { &mut self.updatable } else { &mut self.fixed };
            list.push(format!("{field} is {is:?}, wanted {wanted:?}"));
        }
    }
}

fn is_not_found(error: &ConsumerError) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(error) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
}
