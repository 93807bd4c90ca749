//! The runtime of a consumer: one task owns every message that was pulled, buffered or running. It keeps the lanes in
//! order, extends deadlines, has marked what was handled, and passes on what was decided.

mod away;

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use async_nats::header::HeaderMap;
use async_nats::{Client, Message, Subject, connection};
use bytes::Bytes;
use chrono::Utc;
use foldhash::fast::RandomState;
use futures::StreamExt;
use metrics::Counter;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::time::DelayQueue;

use super::breaker::Switch;
use super::held::{Away, Held};
use super::pause::Pauses;
use super::pull::{Arrival, Pulled};
use super::settle::{Settlement, Verdict};
use super::workers::{Job, Processed, Workers};
use super::{Consumer, Delivery, Disposition, GivenUp, Limits, OrderingKey};
use crate::health::CheckHandle;
use crate::inbox::{Inbox, InboxError, Marks, Turn};
use crate::jitter::jittered;
use crate::subject::{self, EventSubject};
use crate::{DLQ, DeadLetter, Envelope, Original, StoreError, TraceContext};

/// How long storing a dead letter is put off after a failure.
const DEAD_LETTER_PAUSE: Duration = Duration::from_secs(1);

/// Names a message: its stream, and its sequence there.
pub(super) type Id = (&'static str, u64);

/// A message that was pulled and is not settled.
pub(super) struct Owned {
    /// Where it is settled.
    reply: Subject,
    headers: HeaderMap,
    /// How many more there were before it was a dead letter.
    headers_dropped: usize,
    stream: Cow<'static, str>,
    lane: u64,
    /// How much room it takes up, but for when it is away.
    bytes: usize,
    /// Its bytes are among those that are kept for a retry.
    kept_for_retry: bool,
    /// When the server was last told that it is being worked on.
    extended_at: Instant,
    /// It takes up room in the window; not while it waits for a retry, and not after.
    holds_room: bool,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    /// Waits for its turn or for its retry.
    Waiting(Delivery),
    /// Waits for its retry, and was let go of.
    Away(Away),
    /// With a worker or a task, which gives the delivery back, or handled and about to be marked.
    Running,
}

/// A message that was handled and is not marked.
struct Handled {
    id: Id,
    delivery: Delivery,
    marks: Marks,
}

/// What a task gives back.
enum Written {
    Marks(Vec<Handled>, Result<(), InboxError>),
    /// A dead letter; or none, because the consumer was stopped before.
    DeadLetter(Id, bool),
    /// A message that was away was read again.
    Fetched(Id, Box<(Away, Result<Option<Message>, StoreError>)>),
}

pub(super) struct Runtime {
    pub(super) consumer: Arc<Consumer>,
    inbox: Arc<dyn Inbox>,
    limits: Limits,
    lanes_by: OrderingKey,
    client: Client,
    room: Arc<Semaphore>,
    held: Arc<Held>,
    /// How many of the bytes that are held wait for a retry.
    kept_for_retry: usize,
    /// How many messages are being read again. Each has a handler's place already.
    fetching: usize,
    settlements: mpsc::UnboundedSender<Settlement>,
    pub(super) owned: HashMap<Id, Owned, RandomState>,
    /// Behind the message of each lane that runs or waits (for a slot, for its retry): the later ones, in order.
    lanes: HashMap<u64, VecDeque<Id>, RandomState>,
    /// What may run as soon as there is a slot.
    pub(super) ready: VecDeque<Id>,
    workers: Workers,
    /// What comes together while one write of marks is under way is marked by the next.
    to_mark: Vec<Handled>,
    marking: bool,
    pub(super) retries: DelayQueue<Id>,
    /// Opens when what handlers depend on is down.
    pub(super) switch: Switch,
    /// What writes marks and dead letters.
    writing: JoinSet<Written>,
    stopping: CancellationToken,
    /// Whether dead letters can be stored.
    storing: CheckHandle,
    handled: Counter,
    duplicate: Counter,
    dead: Counter,
}

impl Runtime {
    pub(super) fn new(
        consumer: Consumer,
        inbox: Arc<dyn Inbox>,
        client: Client,
        (room, held): (Arc<Semaphore>, Arc<Held>),
        settlements: mpsc::UnboundedSender<Settlement>,
        pauses: Pauses,
    ) -> Self {
        let consumer = Arc::new(consumer);
        let count = |verdict: &'static str| metrics::counter!("jetkit_events_total", "consumer" => consumer.name.clone(), "verdict" => verdict);
        let storing = consumer.health.beside("dead letters");
        storing.set_ready(true, "none waits to be stored");
        Self {
            storing,
            handled: count("handled"),
            duplicate: count("duplicate"),
            dead: count("dead_letter"),
            limits: consumer.limits.clone(),
            switch: Switch::new(&consumer, pauses),
            lanes_by: consumer.lanes,
            workers: Workers::new(Arc::clone(&consumer), Arc::clone(&inbox)),
            consumer,
            inbox,
            client,
            room,
            held,
            kept_for_retry: 0,
            fetching: 0,
            settlements,
            owned: HashMap::default(),
            lanes: HashMap::default(),
            ready: VecDeque::new(),
            retries: DelayQueue::new(),
            to_mark: Vec::new(),
            marking: false,
            writing: JoinSet::new(),
            stopping: CancellationToken::new(),
        }
    }

    pub(super) async fn run(
        mut self,
        mut arrived: mpsc::UnboundedReceiver<Pulled>,
        stop: CancellationToken,
        ended: CancellationToken,
    ) -> anyhow::Result<()> {
        let (mut arrivals, mut processed) = (Vec::new(), Vec::new());
        let mut extend = tokio::time::interval(self.limits.ack_wait / 6);
        while !stop.is_cancelled() {
            let probe_at = self.switch.circuit.next();
            tokio::select! {
                _ = arrived.recv_many(&mut arrivals, 256) => arrivals.drain(..).for_each(|pulled| self.hear(pulled)),
                ended = self.workers.processed(&mut processed) => {
                    ended?;
                    processed.drain(..).for_each(|processed| self.follow_up(processed));
                }
                Some(written) = self.writing.join_next() => self.finish(written?),
                Some(due) = self.retries.next() => self.due(due.into_inner()),
                Some(prober) = self.switch.answered.recv() => self.circuit_answered(prober),
                () = tokio::time::sleep_until(probe_at.unwrap_or_else(Instant::now)), if probe_at.is_some() => {
                    self.circuit_due();
                }
                _ = extend.tick() => self.extend().await,
                () = stop.cancelled() => {}
                () = ended.cancelled() => {
                    ensure!(stop.is_cancelled(), "consumer {}: one of its tasks has ended", self.consumer.name);
                }
            }
            self.start_ready();
            self.mark_handled();
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
                self.held.let_go(owned.bytes);
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
        Arrival { message, stream, sequence, stored_at, delivered }: Arrival,
        now: Instant,
    ) -> Option<(Id, Delivery, Owned)> {
        let (reply, bytes) = (message.reply?, message.length);
        let id = (stream, sequence);
        let turn = if delivered > 1 { Turn::Again } else { Turn::First };
        let (mut stream, mut headers) = (Cow::Borrowed(stream), message.headers.unwrap_or_default());
        let (subject, payload, mut headers_dropped) = (message.subject, message.payload, 0);
        let mut delivery = Delivery {
            subject,
            payload,
            trace: None,
            sequence,
            stored_at,
            turn,
            redrives: 0,
            first_failed_at: None,
        };
        if id.0 == DLQ
            && let Ok(letter) = DeadLetter::decode(&headers, delivery.payload.clone())
        {
            let Original { stream: from, sequence, subject, .. } = letter.original;
            (stream, headers) = (from.into(), letter.original.headers);
            headers_dropped = letter.original.headers_dropped;
            delivery = Delivery { subject: subject.into(), sequence, redrives: letter.redrives, ..delivery };
        }
        delivery.trace = TraceContext::of(Some(&headers));
        let owned = Owned {
            reply,
            headers,
            headers_dropped,
            stream,
            lane: self.lane_of(&delivery),
            bytes,
            kept_for_retry: false,
            extended_at: now,
            holds_room: true,
            stage: Stage::Running,
        };
        Some((id, delivery, owned))
    }

    fn lane_of(&self, delivery: &Delivery) -> u64 {
        let hasher = self.lanes.hasher();
        let due = delivery.subject.strip_prefix(&self.consumer.due_prefix);
        if self.lanes_by == OrderingKey::Correlation
            && let Ok(envelope) = Envelope::decode(&delivery.payload)
        {
            // What another producer published may wait for what is recorded of its other events.
            let is_adopted = due.is_none() && EventSubject::parse(&delivery.subject).is_none();
            return hasher.hash_one((is_adopted, envelope.correlation_id()));
        }
        hasher.hash_one(subject::entity_key(due.unwrap_or(&delivery.subject)))
    }

    /// Starts what may run, as far as concurrency and the circuit allow.
    fn start_ready(&mut self) {
        let most = self.switch.circuit.may_start().unwrap_or(usize::MAX).min(self.workers.free());
        let mut jobs = Vec::with_capacity(most.min(self.ready.len()));
        let now = Instant::now();
        while jobs.len() + self.fetching < most
            && let Some(id) = self.ready.pop_front()
        {
            let Some(owned) = self.owned.get_mut(&id) else { continue };
            let mut delivery = match std::mem::replace(&mut owned.stage, Stage::Running) {
                Stage::Waiting(delivery) => delivery,
                Stage::Away(away) => {
                    let busy =
                        self.workers.free() < self.limits.concurrency || self.fetching + jobs.len() > 0;
                    if busy && !self.held.fits(owned.bytes) {
                        // What runs makes room when it ends.
                        owned.stage = Stage::Away(away);
                        self.ready.push_front(id);
                        break;
                    }
                    self.fetch(id, away);
                    continue;
                }
                Stage::Running => continue,
            };
            if now.duration_since(owned.extended_at) + self.limits.handler_timeout > self.limits.ack_wait {
                // The server may think that we are gone, and have given it to somebody else.
                delivery.turn = if delivery.turn == Turn::First { Turn::Late } else { delivery.turn };
            }
            self.switch.circuit.started(id);
            jobs.push(Job { id, delivery });
        }
        self.workers.start(&mut jobs);
    }

    /// Does what was decided about a message.
    fn follow_up(&mut self, Processed { id, delivery, disposition }: Processed) {
        self.take_in(id, &disposition);
        match disposition {
            Disposition::Handled(marks) => self.to_mark.push(Handled { id, delivery, marks }),
            Disposition::Ack => {
                self.duplicate.increment(1);
                self.settle(id, Verdict::Ack);
            }
            Disposition::Retry { after, first_failed_at } => {
                self.retry(id, Delivery { first_failed_at, ..delivery }, after);
            }
            Disposition::Postponed { after, first_failed_at } => {
                self.switch.quiet_for(after);
                self.retry(id, Delivery { first_failed_at: Some(first_failed_at), ..delivery }, after);
            }
            Disposition::Unavailable { outage, first_failed_at } => {
                let first_failed_at = Some(first_failed_at);
                self.hold(id, Delivery { first_failed_at, turn: Turn::Again, ..delivery }, outage);
            }
            Disposition::DeadLetter(given_up) => self.store(id, &delivery, given_up),
        }
    }

    /// Takes back what a task has written.
    fn finish(&mut self, written: Written) {
        match written {
            Written::Marks(handled, Ok(())) => {
                self.marking = false;
                self.consumer.remembering.succeeded();
                for Handled { id, .. } in handled {
                    self.acknowledge(id);
                }
            }
            Written::Marks(handled, Err(error)) => {
                self.marking = false;
                tracing::warn!(%error, events = handled.len(), "handled, but not marked; trying again");
                self.consumer.remembering.failed(format_args!("events cannot be marked as handled: {error}"));
                for Handled { id, delivery, .. } in handled {
                    self.retry(id, delivery, jittered(self.limits.retry_min));
                }
            }
            Written::DeadLetter(id, true) => {
                self.dead.increment(1);
                self.settle(id, Verdict::Term);
            }
            Written::DeadLetter(id, false) => self.settle(id, Verdict::Nak(DEAD_LETTER_PAUSE)),
            Written::Fetched(id, fetched) => self.fetched(id, fetched.0, fetched.1),
        }
    }

    fn acknowledge(&mut self, id: Id) {
        self.handled.increment(1);
        self.settle(id, Verdict::Ack);
    }

    /// Tries a message again after a while. It takes up no room in the window until then, and a bounded share of the bytes.
    fn retry(&mut self, id: Id, delivery: Delivery, after: Duration) {
        let Some(owned) = self.owned.get_mut(&id) else { return };
        if self.kept_for_retry + owned.bytes <= self.held.for_retries() {
            self.kept_for_retry += owned.bytes;
            owned.kept_for_retry = true;
            // A copy, or it would keep all that was received together with it.
            let payload = Bytes::copy_from_slice(&delivery.payload);
            owned.stage = Stage::Waiting(Delivery { turn: Turn::Again, payload, ..delivery });
        } else {
            let Delivery { subject, stored_at, first_failed_at, .. } = delivery;
            owned.stage = Stage::Away(Away { subject, stored_at, first_failed_at });
            owned.headers = HeaderMap::new();
            self.held.let_go(owned.bytes);
        }
        if std::mem::take(&mut owned.holds_room) {
            self.room.add_permits(1);
        }
        self.retries.insert(id, after);
    }

    /// Has everything marked that was handled, unless marks are being written: then by the next write.
    fn mark_handled(&mut self) {
        if self.marking || self.to_mark.is_empty() {
            return;
        }
        self.marking = true;
        let (inbox, handled) = (Arc::clone(&self.inbox), std::mem::take(&mut self.to_mark));
        self.writing.spawn(async move {
            let keys: Vec<_> = handled.iter().flat_map(|handled| handled.marks.keys()).collect();
            let marked = inbox.done(&keys).await;
            Written::Marks(handled, marked)
        });
    }

    /// Stores a dead letter, for as long as it takes; the message is kept until then.
    fn store(&mut self, id: Id, delivery: &Delivery, given_up: GivenUp) {
        let Some(owned) = self.owned.get(&id) else { return };
        let GivenUp { marks, class, errors, attempts, first_failed_at } = given_up;
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
                headers_dropped: owned.headers_dropped,
                payload: delivery.payload.clone(),
            },
        };
        let (client, inbox, stopping) = (self.client.clone(), Arc::clone(&self.inbox), self.stopping.clone());
        // Ten seconds, where nobody says otherwise: a cluster that elects a leader is no news.
        let (storing, patience, since) = (self.storing.clone(), self.limits.ack_wait / 3, Instant::now());
        self.writing.spawn(async move {
            while let Err(error) = letter.store(&client).await {
                tracing::error!(error = %error, dead_letter.id = letter.id(), "the dead letter is not stored; trying again");
                if since.elapsed() >= patience {
                    storing.set_ready(false, format!("dead letters cannot be stored: {error}"));
                }
                if tokio::time::timeout(DEAD_LETTER_PAUSE, stopping.cancelled()).await.is_ok() {
                    return Written::DeadLetter(id, false);
                }
            }
            storing.set_ready(true, "the last one is stored");
            if let Some(marks) = marks
                && let Err(error) = inbox.done(&marks.keys().collect::<Vec<_>>()).await
            {
                tracing::debug!(%error, "a dead letter was not marked; it may be stored twice");
            }
            Written::DeadLetter(id, true)
        });
    }

    /// Lets go of a message, and lets the next of its lane come.
    fn settle(&mut self, id: Id, verdict: Verdict) {
        let Some(owned) = self.owned.remove(&id) else { return };
        self.consumer.progress.moved();
        if owned.holds_room {
            self.room.add_permits(1);
        }
        if !matches!(owned.stage, Stage::Away(_)) {
            self.held.let_go(owned.bytes);
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
        self.held.report();
        if self.switch.is_quiet() {
            self.consumer.progress.moved();
        }
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
        let mut given_back = self.give_back(Duration::ZERO);
        let running = self.owned.len();
        let mut processed = Vec::new();
        let mut pulling = true;
        while pulling || !self.owned.is_empty() {
            tokio::select! {
                // The pullers end by themselves, with what was on its way to them.
                pulled = arrived.recv(), if pulling => match pulled {
                    Some(pulled) => {
                        self.hear(pulled);
                        given_back += self.give_back(Duration::ZERO);
                    }
                    None => pulling = false,
                },
                ended = self.workers.processed(&mut processed) => {
                    ended?;
                    processed.drain(..).for_each(|processed| self.follow_up(processed));
                }
                Some(written) = self.writing.join_next() => self.finish(written?),
                _ = extend.tick() => self.extend().await,
                () = tokio::time::sleep_until(deadline) => break,
            }
            // What failed just now is another replica's to try again.
            self.give_back(self.limits.retry_min);
            self.mark_handled();
        }
        let abandoned = self.owned.len();
        self.workers.abandon().await;
        self.writing.shutdown().await;
        for owned in self.owned.values() {
            let verdict = Verdict::Nak(self.limits.retry_min);
            // The settler ends after us.
            let _ = self.settlements.send(Settlement { reply: owned.reply.clone(), verdict });
        }
        self.switch.stop().await;
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
        let waiting =
            self.owned.iter().filter(|(_, owned)| matches!(owned.stage, Stage::Waiting(_) | Stage::Away(_)));
        let waiting: Vec<_> = waiting.map(|(id, _)| *id).collect();
        for id in &waiting {
            self.settle(*id, Verdict::Nak(after));
        }
        waiting.len()
    }
}
