//! The tasks that run handlers: as many as handlers may run at once, made when they are first needed. A message costs no
//! task of its own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::runtime::Id;
use super::{Consumer, Delivery, Disposition};
use crate::inbox::Inbox;

/// How many results are taken at once.
const RESULTS: usize = 256;

/// How many workers are woken when there is work. Each wakes another as long as there is more; two, so that one whose
/// handler blocks its thread does not keep the next from being seen by another thread.
const WOKEN: usize = 2;

/// A delivery on its way to its handler.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: Id,
    pub(super) delivery: Delivery,
}

/// A delivery that comes back from its handler.
#[derive(Debug)]
pub(super) struct Processed {
    pub(super) id: Id,
    pub(super) delivery: Delivery,
    pub(super) disposition: Disposition,
}

/// Runs deliveries through [`Consumer::process`].
pub(super) struct Workers {
    worker: Arc<Worker>,
    processed: mpsc::UnboundedReceiver<Processed>,
    /// They never end by themselves.
    tasks: JoinSet<Infallible>,
    /// How many deliveries they have been given and not given back.
    busy: usize,
    at_most: usize,
}

struct Worker {
    consumer: Arc<Consumer>,
    inbox: Arc<dyn Inbox>,
    /// Never more than there are workers without work.
    queue: Mutex<VecDeque<Job>>,
    /// Something is in the queue.
    more: Notify,
    processed: mpsc::UnboundedSender<Processed>,
}

impl Workers {
    pub(super) fn new(consumer: Arc<Consumer>, inbox: Arc<dyn Inbox>) -> Self {
        let at_most = consumer.limits.concurrency;
        let (sender, processed) = mpsc::unbounded_channel();
        let worker =
            Worker { consumer, inbox, queue: Mutex::default(), more: Notify::new(), processed: sender };
        Self { worker: Arc::new(worker), processed, tasks: JoinSet::new(), busy: 0, at_most }
    }

    /// How many more deliveries can be started now.
    pub(super) fn free(&self) -> usize {
        self.at_most - self.busy
    }

    /// Starts deliveries: no more than are [`free`](Self::free).
    pub(super) fn start(&mut self, jobs: &mut Vec<Job>) {
        self.busy += jobs.len();
        while self.tasks.len() < self.busy.min(self.at_most) {
            self.tasks.spawn(Arc::clone(&self.worker).work());
        }
        let started = jobs.len();
        self.worker.queue().extend(jobs.drain(..));
        for _ in 0..started.min(WOKEN) {
            self.worker.more.notify_one();
        }
    }

    /// Waits for deliveries that come back. An error means that a worker has ended.
    pub(super) async fn processed(&mut self, results: &mut Vec<Processed>) -> anyhow::Result<()> {
        tokio::select! {
            count = self.processed.recv_many(results, RESULTS) => {
                self.busy -= count;
                Ok(())
            }
            Some(ended) = self.tasks.join_next() => match ended.context("a worker has ended")? {},
        }
    }

    /// Aborts running handlers at their next `.await`.
    pub(super) async fn abandon(&mut self) {
        self.tasks.shutdown().await;
    }
}

impl Worker {
    async fn work(self: Arc<Self>) -> Infallible {
        loop {
            let Job { id, delivery } = self.next().await;
            let disposition = self.consumer.process(&*self.inbox, &delivery).await;
            // Without a receiver the consumer has stopped: the server will deliver it again.
            let _ = self.processed.send(Processed { id, delivery, disposition });
        }
    }

    async fn next(&self) -> Job {
        loop {
            if let Some(job) = self.take() {
                return job;
            }
            self.more.notified().await;
        }
    }

    fn take(&self) -> Option<Job> {
        let mut queue = self.queue();
        let job = queue.pop_front();
        if !queue.is_empty() {
            self.more.notify_one();
        }
        job
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
