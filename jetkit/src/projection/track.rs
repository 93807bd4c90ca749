//! One file on its way: a follower that reads and decodes, the thread that writes, and how far they have come.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use async_nats::Client;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::file::{Files, Mark, Position, identity};
use super::model::Served;
use super::writer::{Item, Work, Writer, WriterEnd};
use super::{FromStream, Projection};
use crate::direct;
use crate::failure::causes;
use crate::follow::{Followed, FollowedMessage, Follower};

/// The most that one transaction takes in.
const MAX_BATCH: usize = 1_000;
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// After how many failures in a row, some five seconds, it is told that the stream cannot be followed.
const STUCK: u32 = 8;

/// How long to wait before a server that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How far a file has come, for whoever wants to know.
pub(crate) struct Progress {
    served: Arc<Served>,
    /// Whether readers read this file.
    serving: AtomicBool,
    position: watch::Sender<u64>,
    caught_up: watch::Sender<bool>,
    parked: AtomicU64,
    received: AtomicU64,
    applied: AtomicU64,
    /// How many messages the server had left after the last one received.
    pending: AtomicU64,
    trouble: Mutex<Option<String>>,
    /// How often following the stream has failed in a row.
    failures: Arc<AtomicU32>,
}

impl Progress {
    fn new(served: Arc<Served>, position: Position, serving: bool) -> Self {
        let progress = Self {
            served,
            serving: AtomicBool::new(false),
            position: watch::channel(position.last.sequence).0,
            caught_up: watch::channel(false).0,
            parked: AtomicU64::new(position.parked),
            received: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            trouble: Mutex::default(),
            failures: Arc::default(),
        };
        if serving {
            progress.serve();
        }
        progress
    }

    /// Readers read this file from now on.
    pub(crate) fn serve(&self) {
        self.serving.store(true, Ordering::SeqCst);
        self.served.position.send_modify(|at| *at = self.position());
        if *self.caught_up.borrow() {
            self.served.caught_up();
        }
    }

    pub(crate) fn applied(&self, count: usize, position: Position) {
        self.applied.fetch_add(count as u64, Ordering::Relaxed);
        self.parked.store(position.parked, Ordering::Relaxed);
        self.advance(position.last.sequence);
    }

    /// Everything up to there is in the file, or is not for it.
    pub(crate) fn advance(&self, to: u64) {
        let forward = |at: &mut u64| {
            let moved = to > *at;
            *at = to.max(*at);
            moved
        };
        self.position.send_if_modified(forward);
        if self.serving.load(Ordering::SeqCst) {
            self.served.position.send_if_modified(forward);
        }
    }

    pub(crate) fn caught_up(&self) {
        self.caught_up.send_replace(true);
        if self.serving.load(Ordering::SeqCst) {
            self.served.caught_up();
        }
    }

    /// Waits until everything that there is has been taken in, once.
    pub(crate) async fn wait_for_the_end(&self) {
        let mut caught_up = self.caught_up.subscribe();
        let _closed = caught_up.wait_for(|caught_up| *caught_up).await;
    }

    pub(crate) fn trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(crate) fn what_is_wrong(&self) -> Option<String> {
        let failures = self.failures.load(Ordering::Relaxed);
        let stuck = (failures >= STUCK).then(|| {
            format!("its stream could not be followed, {failures} times in a row; the log says why")
        });
        stuck.or_else(|| self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    pub(crate) fn position(&self) -> u64 {
        *self.position.borrow()
    }

    pub(crate) fn parked(&self) -> u64 {
        self.parked.load(Ordering::Relaxed)
    }

    pub(crate) fn has_applied(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }

    /// How many events are known to come.
    pub(crate) fn lag(&self) -> u64 {
        let applied = self.applied.load(Ordering::Relaxed);
        let received = self.received.load(Ordering::Relaxed);
        self.pending.load(Ordering::Relaxed) + received.saturating_sub(applied)
    }

    fn received(&self, pending: u64) {
        self.received.fetch_add(1, Ordering::Relaxed);
        self.pending.store(pending, Ordering::Relaxed);
    }
}

/// Why a file is not kept up to date any more.
#[derive(Debug)]
pub(crate) enum TrackEnd {
    /// The stream does not hold what the file has taken in: it is another one, or was set back.
    LogReplaced,
    /// The file is damaged.
    Damaged(rusqlite::Error),
    /// Something else, that will not pass.
    Failed(anyhow::Error),
}

/// A file that is kept up to date.
pub(crate) struct Track<P: Projection> {
    path: PathBuf,
    opened: Option<(u64, u64)>,
    pub(crate) progress: Arc<Progress>,
    work: mpsc::Sender<Work<P::Event>>,
    follower: AbortOnDropHandle<Option<TrackEnd>>,
    writer: oneshot::Receiver<WriterEnd>,
}

impl<P: Projection> Track<P> {
    /// Takes the file on from where it is.
    pub(crate) fn start(
        files: &Files,
        client: &Client,
        (connection, path, position): (Connection, PathBuf, Position),
        served: &Arc<Served>,
        serving: bool,
    ) -> anyhow::Result<Self> {
        let progress = Arc::new(Progress::new(served.clone(), position, serving));
        // One batch is written while the next one is read; a third waits for neither.
        let (sender, work) = mpsc::channel(1);
        let opened = identity(&path);
        let writer = Writer::<P> {
            connection,
            path: path.clone(),
            position,
            files: files.clone(),
            progress: progress.clone(),
            work,
        };
        let writer = writer.start()?;
        let follow = Follow::<P> {
            client: client.clone(),
            last: position.last,
            served: served.clone(),
            progress: progress.clone(),
            work: sender.clone(),
        };
        let follower = AbortOnDropHandle::new(tokio::spawn(follow.run()));
        Ok(Self { path, opened, progress, work: sender, follower, writer })
    }

    /// Waits for its end, for ever if all is well. May be dropped and called again.
    pub(crate) async fn ended(&mut self) -> TrackEnd {
        let end = tokio::select! {
            end = &mut self.follower => match end {
                Ok(Some(end)) => return end,
                // It cannot give its work to the thread, which says why.
                Ok(None) => (&mut self.writer).await,
                Err(panicked) => return TrackEnd::Failed(panicked.into()),
            },
            end = &mut self.writer => end,
        };
        match end {
            Ok(WriterEnd::Damaged(error)) => TrackEnd::Damaged(error),
            Ok(WriterEnd::Failed(error)) => TrackEnd::Failed(error),
            Ok(WriterEnd::Idle) | Err(_) => {
                TrackEnd::Failed(anyhow::anyhow!("the thread that writes {} has ended", P::NAME))
            }
        }
    }

    /// Waits until it has come at least this far.
    pub(crate) async fn reach(&mut self, sequence: u64) -> Result<(), TrackEnd> {
        let mut position = self.progress.position.subscribe();
        loop {
            if *position.borrow_and_update() >= sequence {
                return Ok(());
            }
            self.progress.served.wanted.notify_waiters();
            tokio::select! {
                end = self.ended() => return Err(end),
                _ = position.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
    }

    /// Stops, and waits until the file is closed.
    pub(crate) async fn stop(self) {
        let Self { work, follower, writer, .. } = self;
        drop((work, follower));
        if !writer.is_terminated() {
            drop(writer.await);
        }
    }

    /// Moves a built file to its final place.
    pub(crate) async fn settle(&mut self, to: &Path) -> anyhow::Result<()> {
        let (done, settled) = oneshot::channel();
        self.work.send(Work::Settle(to.to_owned(), done)).await.ok().context("the writer has ended")?;
        settled.await.context("the writer has ended")??;
        to.clone_into(&mut self.path);
        self.opened = identity(to);
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file still stands where it was opened.
    pub(crate) fn is_there(&self) -> bool {
        self.opened.is_some() && identity(&self.path) == self.opened
    }
}

/// What reads the stream for a track.
struct Follow<P: Projection> {
    client: Client,
    /// The last message that was given to the thread, or that the file has.
    last: Mark,
    served: Arc<Served>,
    progress: Arc<Progress>,
    work: mpsc::Sender<Work<P::Event>>,
}

impl<P: Projection> Follow<P> {
    /// Reads and decodes while the thread writes what came before; gives it all that has arrived whenever it is free.
    /// Ends with [`None`] when the thread has ended.
    async fn run(mut self) -> Option<TrackEnd> {
        let stream = <P::Event as FromStream>::STREAM;
        let mut follower =
            Follower::new(self.client.clone(), stream, P::Event::filters(), self.last.sequence + 1)
                .counting_failures(Arc::clone(&self.progress.failures));
        let (mut batch, mut bytes, mut opened) = (Vec::new(), 0, 0);
        loop {
            if batch.is_empty() {
                follower.opened().await;
            }
            let room = batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES;
            let followed = tokio::select! {
                biased;
                followed = follower.next(), if room => followed,
                permit = self.work.reserve(), if !batch.is_empty() => {
                    permit.ok()?.send(Work::Apply(std::mem::take(&mut batch)));
                    bytes = 0;
                    continue;
                }
                () = self.served.wanted.notified(), if batch.is_empty() => {
                    self.pass(&mut follower).await?;
                    continue;
                }
            };
            if opened != follower.times_opened() {
                if !self.is_same_log().await {
                    return Some(TrackEnd::LogReplaced);
                }
                opened = follower.times_opened();
            }
            match followed {
                Followed::Message(message) => {
                    bytes += message.message.payload.len();
                    batch.push(self.read(message));
                }
                Followed::CaughtUp => {
                    if !batch.is_empty() {
                        self.work.send(Work::Apply(std::mem::take(&mut batch))).await.ok()?;
                        bytes = 0;
                    }
                    self.work.send(Work::CaughtUp).await.ok()?;
                    self.pass(&mut follower).await?;
                }
            }
        }
    }

    fn read(&mut self, message: FollowedMessage) -> Item<P::Event> {
        self.progress.received(message.pending);
        let stored_at = message.time.timestamp_nanos_opt().unwrap_or_default();
        self.last = Mark { sequence: message.sequence, stored_at };
        let subject = message.message.subject.clone();
        let event = P::Event::from_stream(message).map_err(|error| causes(&error).join(": "));
        Item { mark: self.last, subject, event }
    }

    /// Tells the thread how far the stream holds nothing for this projection, if that can be said now.
    async fn pass(&self, follower: &mut Follower) -> Option<()> {
        match follower.scanned().await {
            Some(sequence) => self.work.send(Work::Passed(sequence)).await.ok(),
            None => Some(()),
        }
    }

    /// Whether the stream holds the last message that was taken in, where it was. Asks for as long as nobody answers.
    async fn is_same_log(&self) -> bool {
        if self.last.sequence == 0 {
            return true;
        }
        loop {
            match direct::at(&self.client, <P::Event as FromStream>::STREAM, self.last.sequence).await {
                Ok(found) => {
                    let stored_at = found.and_then(|found| found.stored_at());
                    let stored_at = stored_at.map(|time| time.timestamp_nanos_opt().unwrap_or_default());
                    return stored_at == Some(self.last.stored_at);
                }
                Err(error) => debug!(projection.name = P::NAME, %error, "asking again"),
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}
