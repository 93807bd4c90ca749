//! Does what the [`Circuit`] decides: tells the server, starts probes, and says what the state is.

use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics::Gauge;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::circuit::{Answer, Circuit, Step};
use super::pause::{Pauses, Prober};
use super::runtime::{Id, Runtime, Stage};
use super::{Consumer, Delivery, Disposition, Outage};
use crate::FailureClass;
use crate::health::CheckHandle;

/// The circuit of a running consumer, and who is told of it.
pub(super) struct Switch {
    pub(super) circuit: Circuit,
    /// What is down, while it is open.
    outage: Option<(Outage, DateTime<Utc>)>,
    pauses: Pauses,
    /// The last task that talks to the server: each waits for the one before.
    telling: Option<JoinHandle<()>>,
    answers: mpsc::UnboundedSender<Prober>,
    pub(super) answered: mpsc::UnboundedReceiver<Prober>,
    check: CheckHandle,
    open: Gauge,
    /// Until when an event waits by itself: a consumer that has nothing else to do does not stand still.
    quiet_until: Option<Instant>,
}

impl Switch {
    pub(super) fn new(consumer: &Consumer, pauses: Pauses) -> Self {
        let (answers, answered) = mpsc::unbounded_channel();
        let check = consumer.health.beside("circuit");
        check.set_ready(true, "closed");
        let open = metrics::gauge!("jetkit_circuit_open", "consumer" => consumer.name.clone());
        open.set(0.0);
        let circuit = Circuit::new(consumer.limits.breaker.clone());
        Self {
            circuit,
            outage: None,
            pauses,
            telling: None,
            answers,
            answered,
            check,
            open,
            quiet_until: None,
        }
    }

    /// An event waits by itself for so long.
    pub(super) fn quiet_for(&mut self, wait: Duration) {
        self.quiet_until = self.quiet_until.max(Some(Instant::now() + wait));
    }

    /// Whether an event waits by itself.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet_until.is_some_and(|until| Instant::now() < until)
    }

    /// Asks the server to pause the durables, and who probes.
    fn ask(&mut self) {
        let Some((Outage { dependency, reason }, since)) = self.outage.clone() else { return };
        let (pauses, before, answers) = (self.pauses.clone(), self.telling.take(), self.answers.clone());
        let follows = self.circuit.follows();
        self.telling = Some(tokio::spawn(async move {
            wait_for(before).await;
            let held = pauses.hold(dependency, &reason, since, follows).await;
            let prober = held.unwrap_or_else(|error| {
                let error = format!("{error:#}");
                tracing::warn!(
                    error,
                    "a circuit is open and the durable cannot be paused; only this process waits"
                );
                Prober::Ours
            });
            // Without a receiver the consumer has stopped.
            let _ = answers.send(prober);
        }));
    }

    /// Has the server end the pauses.
    fn release(&mut self) {
        let (pauses, before) = (self.pauses.clone(), self.telling.take());
        self.telling = Some(tokio::spawn(async move {
            wait_for(before).await;
            if let Err(error) = pauses.release().await {
                let error = format!("{error:#}");
                tracing::warn!(
                    error,
                    "a circuit is closed and the durable stays paused until its pause runs out"
                );
            }
        }));
    }

    /// Ends what this process has paused, when the consumer stops: others see for themselves.
    pub(super) async fn stop(mut self) {
        if !self.circuit.is_closed() && !self.circuit.follows() {
            self.release();
        }
        wait_for(self.telling).await;
    }

    /// Tells operators what the state is. An open circuit makes no service unready: another replica depends on the same.
    fn show(&self) {
        let Some((Outage { dependency, reason }, _)) = &self.outage else {
            self.open.set(0.0);
            return self.check.set_ready(true, "closed");
        };
        let next = if self.circuit.follows() {
            "another replica probes".to_owned()
        } else if let Some(next) = self.circuit.next() {
            format!("next probe in {:.0?}", next.saturating_duration_since(Instant::now()))
        } else {
            "probing".to_owned()
        };
        self.open.set(1.0);
        self.check.set_ready(true, format!("circuit open: {dependency}: {reason}; {next}"));
    }
}

async fn wait_for(task: Option<JoinHandle<()>>) {
    if let Some(task) = task {
        // It ends by itself: each of its requests has a limit.
        let _ = task.await;
    }
}

impl Runtime {
    /// Keeps an event that has found its dependency down: in its lane, with its lease.
    pub(super) fn hold(&mut self, id: Id, delivery: Delivery, outage: Outage) {
        let Some(owned) = self.owned.get_mut(&id) else { return };
        owned.stage = Stage::Waiting(delivery);
        let was_closed = self.switch.circuit.is_closed();
        let step = self.switch.circuit.hear(id, Answer::Down, Instant::now());
        if !self.switch.circuit.is_closed() {
            if was_closed {
                self.opened(&outage);
            }
            let since = self.switch.outage.take().map_or_else(Utc::now, |(_, since)| since);
            self.switch.outage = Some((outage, since));
        }
        self.carry_out(step);
    }

    fn opened(&self, Outage { dependency, reason }: &Outage) {
        let consumer = self.consumer.name.clone();
        tracing::warn!(
            consumer.name = consumer,
            dependency,
            reason,
            "the circuit is open: no event is handled until one gets through; no attempt is used up"
        );
        metrics::counter!("jetkit_circuit_opened_total", "consumer" => consumer, "dependency" => *dependency)
            .increment(1);
    }

    /// Takes in what another outcome says about the dependency.
    pub(super) fn take_in(&mut self, id: Id, disposition: &Disposition) {
        let answer = match disposition {
            Disposition::Handled(_) | Disposition::Postponed { .. } => Answer::Reached,
            Disposition::DeadLetter(given_up) if given_up.class == FailureClass::Rejected => Answer::Reached,
            Disposition::Unavailable { .. } => return,
            _ => Answer::Unknown,
        };
        let was_closed = self.switch.circuit.is_closed();
        let step = self.switch.circuit.hear(id, answer, Instant::now());
        if !was_closed {
            self.carry_out(step);
        }
    }

    pub(super) fn circuit_due(&mut self) {
        let step = self.switch.circuit.due();
        self.carry_out(step);
    }

    pub(super) fn circuit_answered(&mut self, prober: Prober) {
        let step = self.switch.circuit.asked(prober, Instant::now());
        self.carry_out(step);
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Ask => self.switch.ask(),
            Step::Probe(id) => self.ready.push_front(id),
            Step::TryAnother => self.switch.release(),
            Step::Close { ours, waiting } => {
                if ours {
                    self.switch.release();
                }
                waiting.into_iter().rev().for_each(|id| self.ready.push_front(id));
                self.closed();
            }
            Step::SetAside { waiting, after } => {
                self.switch.quiet_for(after);
                for id in waiting {
                    self.retries.insert(id, after);
                }
                self.closed();
            }
        }
        self.switch.show();
    }

    fn closed(&mut self) {
        if let Some((Outage { dependency, .. }, since)) = self.switch.outage.take() {
            tracing::info!(consumer.name = self.consumer.name, dependency, %since, "the circuit is closed");
        }
    }
}
