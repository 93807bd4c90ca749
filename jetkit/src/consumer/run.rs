//! Running a consumer: what it binds, loads and starts before the first message comes, and in which order it ends.

use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use async_nats::Client;
use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::context::RequestError;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::durable::Durable;
use super::held::Held;
use super::lag::Lag;
use super::pause::Pauses;
use super::pull::{Puller, pause_after};
use super::runtime::Runtime;
use super::settle::settle_all;
use super::{Consumer, Limits};
use crate::dead_letter::redrive_subject;
use crate::drift::Moment;
use crate::health::{CheckHandle, Operation};
use crate::inbox::jetstream::{stream_name, watched};
use crate::inbox::{Inbox, InboxSettings, JetStreamInbox};
use crate::provision::{ProvisionError, is_passing};
use crate::subject::EVENTS;
use crate::{DLQ, TIMERS};

impl Consumer {
    /// Runs until `stop`: loads its idempotency set, binds its durables, then pulls, handles and settles. Returns after what
    /// was running has ended or its time is up.
    ///
    /// While JetStream is not available when it starts (a cluster that elects a leader), it logs that, is not ready, and
    /// tries again until `stop`. An error means that it may not start as it is configured, or that one of its tasks has
    /// ended although it should run: the process should end then too.
    pub async fn run(mut self, client: Client, stop: CancellationToken) -> anyhow::Result<()> {
        self.limits.check().with_context(|| format!("consumer {}", self.name))?;
        ensure!(
            !(self.filters().is_empty() && self.timers.is_empty()),
            "consumer {} handles nothing",
            self.name
        );
        if let Some(event_type) = self.twice {
            bail!("consumer {} has two handlers for {event_type}, of which only one could run", self.name);
        }
        let js = jetstream::new(client.clone());
        // Cancelled when a task has ended that never should: the consumer ends then, and does not look healthy.
        let mut ended = CancellationToken::new();
        let inbox: Arc<dyn Inbox> = if let Some(inbox) = self.inbox.take() {
            inbox
        } else {
            let settings = InboxSettings {
                lease: self.limits.claim_lease,
                replicas: self.inbox_replicas,
                max_bytes: self.sizes.of(&stream_name(&self.name)),
                ..InboxSettings::default()
            };
            let open = || JetStreamInbox::open(client.clone(), &self.name, settings.clone());
            let Some(inbox) = self.once_available(&stop, open).await? else { return Ok(()) };
            ended = inbox.ended();
            Arc::new(inbox)
        };
        // All before anything runs, so that a refusal ends the program and leaves nothing behind.
        for durable in self.durables() {
            let bind = || durable.bind(&js, DeliverPolicy::All, Moment::Start);
            let Some(()) = self.once_available(&stop, bind).await? else { return Ok(()) };
        }
        let (pulled, arrived) = mpsc::unbounded_channel();
        // One place each for redrives and timers.
        let room = Arc::new(Semaphore::new(self.limits.window + 2));
        let held = Held::new(&self.name, self.limits.max_bytes);
        let (mut pullers, mut asking) = (Vec::new(), Vec::new());
        for durable in self.durables() {
            let Limits { window, concurrency, .. } = self.limits;
            let for_events = durable.stream == EVENTS;
            let check = self.check_of(durable.stream);
            let lag = Lag::new(&self, js.clone(), durable.clone(), check.beside("backlog"), stop.clone());
            asking.push(watched(&ended, lag.run()));
            let at_least = if for_events { (window / 4).min(window - concurrency).max(1) } else { 1 };
            let (at_most, share) =
                held.shares(if for_events { window } else { 1 }, at_least, client.server_info().max_payload);
            let puller = Puller {
                client: client.clone(),
                js: js.clone(),
                durable,
                room: Arc::clone(&room),
                held: Arc::clone(&held),
                at_least,
                at_most,
                share,
                pulled: pulled.clone(),
                pulling: Operation::starting(check, "pulling"),
                stop: stop.clone(),
            };
            pullers.push(watched(&ended, puller.run()));
        }
        drop(pulled);
        tracing::info!(consumer.name = self.name, filters = self.filters().join(" "), "consuming");
        let (settlements, to_settle) = mpsc::unbounded_channel();
        let settling = Operation::new(self.health.beside("acknowledgements"), "sent");
        let settler = watched(&ended, settle_all(client.clone(), self.name.clone(), settling, to_settle));
        // Outlasts the time between two probes by far.
        let pause = (self.limits.breaker.longest_delay + self.limits.handler_timeout) * 2;
        let pauses = Pauses::new(&client, &self.durables(), pause);
        let runtime = Runtime::new(self, inbox, client, (room, held), settlements, pauses);
        runtime.run(arrived, stop, ended).await?;
        for task in pullers.into_iter().chain(asking) {
            task.await?;
        }
        Ok(settler.await?)
    }

    /// Takes a step that the start needs, again and again while JetStream is not available; [`None`] if `stop` came first.
    async fn once_available<T, Step>(
        &self,
        stop: &CancellationToken,
        mut step: impl FnMut() -> Step,
    ) -> anyhow::Result<Option<T>>
    where
        Step: Future<Output = anyhow::Result<T>>,
    {
        let mut failures = 0;
        loop {
            // Boxed, or every running consumer would carry the room for it along.
            let step = Box::pin(step());
            let Some(outcome) = stop.run_until_cancelled(step).await else { return Ok(None) };
            match outcome {
                Err(error) if is_unavailable(&error) => {
                    failures += 1;
                    let error = format!("{error:#}");
                    tracing::warn!(
                        consumer.name = self.name,
                        error,
                        failures,
                        "JetStream is not available, the consumer cannot start yet; trying again"
                    );
                    self.health.set_ready(false, error);
                }
                outcome => return outcome.map(Some),
            }
            stop.run_until_cancelled(tokio::time::sleep(pause_after(failures))).await;
        }
    }

    /// Where a durable reports: the events' on the consumer's own line, the others on theirs.
    fn check_of(&self, stream: &str) -> CheckHandle {
        let has_events = !self.filters().is_empty();
        match stream {
            TIMERS if has_events => self.health.beside("timers"),
            DLQ => self.health.beside("redrives"),
            _ => self.health.clone(),
        }
    }

    /// What it reads: events, what it is asked to try again, and timers.
    fn durables(&self) -> Vec<Durable> {
        let durable = |stream, filters| Durable {
            stream,
            name: self.name.clone(),
            filters,
            ack_wait: self.limits.ack_wait,
            max_ack_pending: self.limits.max_ack_pending,
        };
        let mut durables = vec![durable(DLQ, vec![redrive_subject(&self.name)])];
        if !self.filters().is_empty() {
            durables.push(durable(EVENTS, self.filters()));
        }
        if !self.timers.is_empty() {
            durables.push(durable(TIMERS, vec![format!("{}>", self.due_prefix)]));
        }
        durables
    }
}

/// Whether JetStream did not answer, or said that it cannot now: then it may in a while.
fn is_unavailable(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let refused = cause.downcast_ref::<jetstream::Error>();
        let provisioned = cause.downcast_ref::<ProvisionError>();
        cause.is::<RequestError>()
            || refused.is_some_and(is_passing)
            || provisioned.is_some_and(ProvisionError::may_pass)
    })
}

impl Limits {
    fn check(&self) -> anyhow::Result<()> {
        let Self { handler_timeout, claim_lease, ack_wait, .. } = self;
        ensure!(
            handler_timeout < claim_lease && claim_lease < ack_wait && *handler_timeout <= *ack_wait * 2 / 3,
            "its limits are out of order: handler_timeout {handler_timeout:?} < claim_lease {claim_lease:?} < ack_wait \
             {ack_wait:?}, and handler_timeout at most two thirds of ack_wait",
        );
        Ok(())
    }
}
