//! The runtime of a consumer: one task owns every message that was pulled, buffered or running. It keeps the lanes in
//! order, extends deadlines, and passes on what was decided.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::header::HeaderMap;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::{Client, Subject, connection};
use chrono::Utc;
use futures::StreamExt;
use metrics::Counter;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::time::DelayQueue;

use super::durable::Durable;
use super::pull::{Arrival, Pulled, Puller};
use super::settle::{Settlement, Verdict, settle_all};
use super::{Consumer, Delivery, Disposition, GivenUp, Limits, OrderBy};
use crate::dead_letter::redrive_subject;
use crate::health::CheckHandle;
use crate::inbox::jetstream::watched;
use crate::inbox::{Inbox, InboxSettings, JetStreamInbox, Turn};
use crate::subject::{self, EVENTS};
use crate::{DLQ, DeadLetter, Envelope, Original, TIMERS};

/// How long storing a dead letter is put off after a failure.
const DEAD_LETTER_PAUSE: Duration = Duration::from_secs(1);

impl Consumer {
    /// Runs until `stop`: binds its durables, loads its idempotency set, then pulls, handles and settles. Returns after what
    /// was running has ended or its time is up. An error means that it could not start, or that one of its tasks has ended
    /// although it should run: the process should end then too.
    pub async fn run(mut self, client: Client, stop: CancellationToken) -> anyhow::Result<()> {
        self.limits.check().with_context(|| format!("consumer {}", self.name))?;
        ensure!(
            !(self.filters().is_empty() && self.timers.is_empty()),
            "consumer {} handles nothing",
            self.name
        );
        let js = async_nats::jetstream::new(client.clone());
        // Cancelled when a task has ended that never should: the consumer ends then, and does not look healthy.
        let mut ended = CancellationToken::new();
        let inbox: Arc<dyn Inbox> = if let Some(inbox) = self.inbox.take() {
            inbox
        } else {
            let settings = InboxSettings {
                lease: self.limits.claim_lease,
                replicas: self.inbox_replicas,
                ..InboxSettings::default()
            };
            let inbox = JetStreamInbox::open(client.clone(), &self.name, settings).await?;
            ended = inbox.ended();
            Arc::new(inbox)
        };
        let (pulled, arrived) = mpsc::unbounded_channel();
        // One place each for redrives and timers.
        let room = Arc::new(Semaphore::new(self.limits.window + 2));
        let mut pullers = Vec::new();
        for durable in self.durables() {
            // Once before anything runs, so that a refusal ends the program.
            durable.bind(&js, DeliverPolicy::All).await?;
            let Limits { window, concurrency, .. } = self.limits;
            let for_events = durable.stream == EVENTS;
            let speaks = for_events || (durable.stream == TIMERS && self.filters().is_empty());
            let health = if speaks { self.health.clone() } else { CheckHandle::detached() };
            let pending = metrics::gauge!(
                "eventkit_pending", "consumer" => self.name.clone(), "stream" => durable.stream
            );
            let puller = Puller {
                client: client.clone(),
                js: js.clone(),
                durable,
                room: Arc::clone(&room),
                at_least: if for_events { (window / 4).min(window - concurrency).max(1) } else { 1 },
                at_most: if for_events { window } else { 1 },
                pulled: pulled.clone(),
                health,
                pending,
                stop: stop.clone(),
            };
            pullers.push(watched(&ended, puller.run()));
        }
        drop(pulled);
        tracing::info!(consumer.name = self.name, filters = self.filters().join(" "), "consuming");
        let (settlements, to_settle) = mpsc::unbounded_channel();
        let settler = watched(&ended, settle_all(client.clone(), self.name.clone(), to_settle));
        let runtime = Runtime::new(self, inbox, client, room, settlements);
        runtime.run(arrived, stop, ended).await?;
        for task in pullers {
            task.await?;
        }
        Ok(settler.await?)
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

/// Names a message: its stream, and its sequence there.
type Id = (&'static str, u64);

/// A message that was pulled and is not settled.
struct Owned {
    /// Where it is settled.
    reply: Subject,
    headers: HeaderMap,
    stream: Cow<'static, str>,
    lane: u64,
    /// When the server was last told that it is being worked on.
    extended_at: Instant,
    /// It takes up room in the window; not while it waits for a retry, and not after.
    holds_room: bool,
    stage: Stage,
}

enum Stage {
    /// Waits for its turn or for its retry.
    Waiting(Delivery),
    /// With a task, which gives the delivery back.
    Running,
}

/// What a task gives back.
struct Finished {
    id: Id,
    delivery: Delivery,
    outcome: Outcome,
}

enum Outcome {
    Decided(Disposition),
    DeadLettered,
    /// The dead letter could not be stored before the consumer was stopped.
    NotStored,
}

struct Runtime {
    consumer: Arc<Consumer>,
    inbox: Arc<dyn Inbox>,
    limits: Limits,
    lanes_by: OrderBy,
    client: Client,
    room: Arc<Semaphore>,
    settlements: mpsc::UnboundedSender<Settlement>,
    owned: HashMap<Id, Owned>,
    /// Behind the message of each lane that runs or waits (for a slot, for its retry): the later ones, in order.
    lanes: HashMap<u64, VecDeque<Id>>,
    /// What may run as soon as there is a slot.
    ready: VecDeque<Id>,
    /// As many as handlers may run at once.
    slots: Arc<Semaphore>,
    retries: DelayQueue<Id>,
    tasks: JoinSet<Finished>,
    stopping: CancellationToken,
    handled: Counter,
    dead: Counter,
}

impl Runtime {
    fn new(
        consumer: Consumer,
        inbox: Arc<dyn Inbox>,
        client: Client,
        room: Arc<Semaphore>,
        settlements: mpsc::UnboundedSender<Settlement>,
    ) -> Self {
        let count = |verdict: &'static str| metrics::counter!("eventkit_events_total", "consumer" => consumer.name.clone(), "verdict" => verdict);
        Self {
            handled: count("handled"),
            dead: count("dead_letter"),
            slots: Arc::new(Semaphore::new(consumer.limits.concurrency)),
            limits: consumer.limits.clone(),
            lanes_by: consumer.lanes,
            consumer: Arc::new(consumer),
            inbox,
            client,
            room,
            settlements,
            owned: HashMap::new(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            retries: DelayQueue::new(),
            tasks: JoinSet::new(),
            stopping: CancellationToken::new(),
        }
    }

    async fn run(
        mut self,
        mut arrived: mpsc::UnboundedReceiver<Pulled>,
        stop: CancellationToken,
        ended: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut arrivals = Vec::new();
        let mut extend = tokio::time::interval(self.limits.ack_wait / 6);
        while !stop.is_cancelled() {
            tokio::select! {
                _ = arrived.recv_many(&mut arrivals, 256) => arrivals.drain(..).for_each(|pulled| self.hear(pulled)),
                Some(finished) = self.tasks.join_next() => self.finish(finished?),
                // A slot is free: it is taken below.
                _ = Arc::clone(&self.slots).acquire_owned(), if !self.ready.is_empty() => {}
                Some(due) = self.retries.next() => self.ready.push_back(due.into_inner()),
                _ = extend.tick() => self.extend().await,
                () = stop.cancelled() => {}
                () = ended.cancelled() => {
                    ensure!(stop.is_cancelled(), "consumer {}: one of its tasks has ended", self.consumer.name);
                }
            }
            while let Some(finished) = self.tasks.try_join_next() {
                self.finish(finished?);
            }
            self.start_ready();
        }
        self.drain(arrived, extend).await
    }

    fn hear(&mut self, pulled: Pulled) {
        match pulled {
            Pulled::Messages(arrivals) => {
                let now = Instant::now();
                for arrival in arrivals {
                    self.admit(arrival, now);
                }
            }
            Pulled::Oldest(stream, answer) => {
                let of_stream = self.owned.keys().filter(|(of, _)| *of == stream);
                // A puller that does not wait any more has been stopped.
                let _ = answer.send(of_stream.map(|(_, sequence)| *sequence).min());
            }
        }
    }

    /// Takes over a message.
    fn admit(&mut self, arrival: Arrival, now: Instant) {
        let Some((id, delivery, owned)) = self.read(arrival, now) else { return };
        match self.owned.entry(id) {
            Entry::Occupied(mut same) => {
                // Delivered again although it is here: it is settled by its latest name, and not run twice.
                same.get_mut().reply = owned.reply;
                same.get_mut().extended_at = owned.extended_at;
                self.room.add_permits(1);
            }
            Entry::Vacant(free) => {
                match self.lanes.entry(owned.lane) {
                    Entry::Occupied(mut behind) => behind.get_mut().push_back(id),
                    Entry::Vacant(free) => {
                        free.insert(VecDeque::new());
                        self.ready.push_back(id);
                    }
                }
                free.insert(Owned { stage: Stage::Waiting(delivery), ..owned });
            }
        }
    }

    /// Looks at a message's names. (A message of a stream always has a reply subject.)
    fn read(
        &self,
        Arrival { message, stream, sequence, delivered }: Arrival,
        now: Instant,
    ) -> Option<(Id, Delivery, Owned)> {
        let reply = message.reply?;
        let id = (stream, sequence);
        let turn = if delivered > 1 { Turn::Again } else { Turn::First };
        let (mut stream, mut headers) = (Cow::Borrowed(stream), message.headers.unwrap_or_default());
        let (subject, payload) = (message.subject, message.payload);
        let mut delivery = Delivery { subject, payload, sequence, turn, redrives: 0, first_failed_at: None };
        if id.0 == DLQ
            && let Ok(letter) = DeadLetter::decode(&headers, delivery.payload.clone())
        {
            let Original { stream: from, sequence, subject, headers: original, .. } = letter.original;
            (stream, headers) = (from.into(), original);
            delivery = Delivery { subject: subject.into(), sequence, redrives: letter.redrives, ..delivery };
        }
        let owned = Owned {
            reply,
            headers,
            stream,
            lane: self.lane_of(&delivery),
            extended_at: now,
            holds_room: true,
            stage: Stage::Running,
        };
        Some((id, delivery, owned))
    }

    fn lane_of(&self, delivery: &Delivery) -> u64 {
        let mut hasher = DefaultHasher::new();
        let envelope = match self.lanes_by {
            OrderBy::Entity => None,
            OrderBy::Correlation => Envelope::decode(&delivery.payload).ok(),
        };
        if let Some(envelope) = envelope {
            envelope.correlation_id().hash(&mut hasher);
        } else {
            let due = delivery.subject.strip_prefix(&self.consumer.due_prefix);
            subject::entity_key(due.unwrap_or(&delivery.subject)).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Starts what may run, as far as concurrency allows.
    fn start_ready(&mut self) {
        let now = Instant::now();
        while !self.ready.is_empty()
            && let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned()
        {
            let Some(id) = self.ready.pop_front() else { return };
            let Some(owned) = self.owned.get_mut(&id) else { continue };
            let Stage::Waiting(mut delivery) = std::mem::replace(&mut owned.stage, Stage::Running) else {
                continue;
            };
            if now.duration_since(owned.extended_at) + self.limits.handler_timeout > self.limits.ack_wait {
                // The server may think that we are gone, and have given it to somebody else.
                delivery.turn = Turn::Again;
            }
            let (consumer, inbox) = (Arc::clone(&self.consumer), Arc::clone(&self.inbox));
            self.tasks.spawn(async move {
                let disposition = consumer.process(&*inbox, &delivery, slot).await;
                Finished { id, delivery, outcome: Outcome::Decided(disposition) }
            });
        }
    }

    /// Takes back a message from its task.
    fn finish(&mut self, Finished { id, mut delivery, outcome }: Finished) {
        match outcome {
            Outcome::Decided(Disposition::Ack) => {
                self.handled.increment(1);
                self.settle(id, Verdict::Ack);
            }
            Outcome::DeadLettered => {
                self.dead.increment(1);
                self.settle(id, Verdict::Term);
            }
            Outcome::NotStored => self.settle(id, Verdict::Nak(DEAD_LETTER_PAUSE)),
            Outcome::Decided(Disposition::Retry { after, first_failed_at }) => {
                delivery.turn = Turn::Again;
                delivery.first_failed_at = first_failed_at;
                if let Some(owned) = self.owned.get_mut(&id) {
                    owned.stage = Stage::Waiting(delivery);
                    if std::mem::take(&mut owned.holds_room) {
                        self.room.add_permits(1);
                    }
                    self.retries.insert(id, after);
                }
            }
            Outcome::Decided(Disposition::DeadLetter(given_up)) => self.store(id, delivery, given_up),
        }
    }

    /// Stores a dead letter, for as long as it takes; the message is kept until then.
    fn store(&mut self, id: Id, delivery: Delivery, given_up: GivenUp) {
        let Some(owned) = self.owned.get(&id) else { return };
        let GivenUp { key, class, errors, attempts, first_failed_at } = given_up;
        let letter = DeadLetter {
            consumer: self.consumer.name.clone(),
            class,
            errors,
            attempts,
            first_failed_at,
            last_failed_at: Utc::now(),
            service_version: self.consumer.service_version.clone(),
            redrives: delivery.redrives,
            original: Original {
                stream: owned.stream.clone().into_owned(),
                sequence: delivery.sequence,
                subject: delivery.subject.to_string(),
                headers: owned.headers.clone(),
                payload: delivery.payload.clone(),
            },
        };
        let (client, inbox, stopping) = (self.client.clone(), Arc::clone(&self.inbox), self.stopping.clone());
        self.tasks.spawn(async move {
            while let Err(error) = letter.store(&client).await {
                tracing::error!(error = %error, dead_letter.id = letter.id(), "the dead letter is not stored; trying again");
                if tokio::time::timeout(DEAD_LETTER_PAUSE, stopping.cancelled()).await.is_ok() {
                    return Finished { id, delivery, outcome: Outcome::NotStored };
                }
            }
            if let Some(key) = key
                && let Err(error) = inbox.done(key).await
            {
                tracing::debug!(%error, "a dead letter was not marked; it may be stored twice");
            }
            Finished { id, delivery, outcome: Outcome::DeadLettered }
        });
    }

    /// Lets go of a message, and lets the next of its lane come.
    fn settle(&mut self, id: Id, verdict: Verdict) {
        let Some(owned) = self.owned.remove(&id) else { return };
        if owned.holds_room {
            self.room.add_permits(1);
        }
        // Once it is to stop, nothing new is started.
        if !self.stopping.is_cancelled()
            && let Entry::Occupied(mut behind) = self.lanes.entry(owned.lane)
        {
            match behind.get_mut().pop_front() {
                Some(next) => self.ready.push_back(next),
                None => drop(behind.remove()),
            }
        }
        // The settler ends after us.
        let _ = self.settlements.send(Settlement { reply: owned.reply, verdict });
    }

    /// Tells the server that everything here is being worked on, where it was last told a third of `ack_wait` ago.
    async fn extend(&mut self) {
        if self.client.connection_state() != connection::State::Connected {
            return;
        }
        let due = self.limits.ack_wait / 3;
        for owned in self.owned.values_mut().filter(|owned| owned.extended_at.elapsed() >= due) {
            let sent = self.client.publish(owned.reply.clone(), "+WPI".into());
            match tokio::time::timeout(Duration::from_millis(100), sent).await {
                Ok(Ok(())) => owned.extended_at = Instant::now(),
                _ => return,
            }
        }
    }

    /// Stops: gives back at once what only waits, lets what runs end, for as long as it may.
    async fn drain(
        mut self,
        mut arrived: mpsc::UnboundedReceiver<Pulled>,
        mut extend: tokio::time::Interval,
    ) -> anyhow::Result<()> {
        self.stopping.cancel();
        self.ready.clear();
        let deadline = Instant::now() + self.limits.drain;
        let running = self.tasks.len();
        let mut given_back = self.give_back(Duration::ZERO);
        let mut pulling = true;
        while pulling || !self.tasks.is_empty() {
            tokio::select! {
                // The pullers end by themselves, with what was on its way to them.
                pulled = arrived.recv(), if pulling => match pulled {
                    Some(pulled) => {
                        self.hear(pulled);
                        given_back += self.give_back(Duration::ZERO);
                    }
                    None => pulling = false,
                },
                Some(finished) = self.tasks.join_next() => {
                    self.finish(finished?);
                    // What failed just now is another replica's to try again.
                    self.give_back(self.limits.retry_min);
                }
                _ = extend.tick() => self.extend().await,
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        let abandoned = self.tasks.len();
        self.tasks.shutdown().await;
        for owned in self.owned.values() {
            let verdict = Verdict::Nak(self.limits.retry_min);
            // The settler ends after us.
            let _ = self.settlements.send(Settlement { reply: owned.reply.clone(), verdict });
        }
        let name = &self.consumer.name;
        tracing::info!(
            consumer.name = name,
            given_back,
            finished = running - abandoned,
            abandoned,
            "stopped"
        );
        Ok(())
    }

    /// Gives back whatever does not run, and tells how many that were.
    fn give_back(&mut self, after: Duration) -> usize {
        let waiting = self.owned.iter().filter(|(_, owned)| matches!(owned.stage, Stage::Waiting(_)));
        let waiting: Vec<_> = waiting.map(|(id, _)| *id).collect();
        for id in &waiting {
            self.settle(*id, Verdict::Nak(after));
        }
        waiting.len()
    }
}
