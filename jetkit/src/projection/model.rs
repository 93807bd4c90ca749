//! [`ReadModel`]: what a service reads from; how long a read waits for what it must see.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use super::keeper::keep;
use super::pool::Pool;
use super::{FromStream, Projection, Tables};
use crate::EventLog;
use crate::health::CheckHandle;
use crate::log::Written;
use crate::page::CursorError;

/// How long a read waits for the position that its client asks for.
const MIN_SEQUENCE_WITHIN: Duration = Duration::from_secs(5);

/// How long a read waits for what this process itself has written, before it answers with what there is.
const OWN_WRITES_WITHIN: Duration = Duration::from_secs(1);

/// How long a read waits for a read model that is being built.
const START_WITHIN: Duration = Duration::from_secs(5);

/// How often a reader that waits for a position has the follower look how far the stream goes.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A projection that is kept up to date in a file, to be read. Cloning gives another handle on the same one.
///
/// It holds nothing that the stream does not: losing it loses time, not facts.
pub struct ReadModel<P> {
    served: Arc<Served>,
    written: Arc<Written>,
    /// Where it belongs to no service, its task ends with the last handle.
    task: Option<Arc<AbortOnDropHandle<()>>>,
    projection: PhantomData<fn() -> P>,
}

/// What readers and the keeper share.
pub(crate) struct Served {
    name: &'static str,
    pub(crate) pool: Arc<Pool>,
    /// Up to where on the stream the file that is read is complete.
    pub(crate) position: watch::Sender<u64>,
    /// Whether the end of the stream was reached once.
    pub(crate) caught_up: watch::Sender<bool>,
    /// Somebody waits for a position: look how far the stream goes.
    pub(crate) wanted: Notify,
    /// What this process has written, which its reads include.
    pub(crate) written: Arc<Written>,
}

impl Served {
    pub(crate) fn caught_up(&self) {
        if !self.caught_up.send_replace(true) {
            let watermark = *self.position.borrow();
            info!(projection.name = self.name, projection.watermark = watermark, "read model caught up");
        }
    }

    pub(crate) fn is_caught_up(&self) -> bool {
        *self.caught_up.borrow()
    }
}

/// What was read, and up to where on the stream it is complete. As an HTTP answer: the value's, with the position as
/// `Event-Sequence`. A [`crate::http::Page`] is an answer by itself; anything else goes into an [`axum::Json`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    /// What was read.
    pub value: T,
    /// The position. It may be further by now, never less far.
    pub sequence: u64,
}

impl<T> Seen<T> {
    /// The same moment, seen in another way.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Seen<U> {
        Seen { value: f(self.value), sequence: self.sequence }
    }
}

impl<T> Seen<Option<T>> {
    /// What was looked for, if it was there.
    pub fn found(self) -> Option<Seen<T>> {
        let Self { value, sequence } = self;
        value.map(|value| Seen { value, sequence })
    }
}

/// A read model that has not reached a position in time. An HTTP 503: the client may try again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the read model is at {at}, {wanted} is wanted")]
pub struct Behind {
    /// The position on the stream that was asked for.
    pub wanted: u64,
    /// The position that it has reached.
    pub at: u64,
}

/// A read that brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The read model is being built, or will be at once because its file is damaged, and there is no older one. Try again
    /// later.
    #[error("the read model is being built")]
    Starting,
    /// Too many others read, for too long. Try again.
    #[error("no connection to the read model became free in time")]
    Busy,
    /// The query took too long and was interrupted. A mistake in the program: it needs an index or a limit.
    #[error("the query took too long")]
    TooSlow,
    /// The cursor is not one of the list that was read. The client's mistake.
    #[error(transparent)]
    Cursor(CursorError),
    /// The query is wrong, or the machine fails.
    #[error("the read model cannot be read: {0:#}")]
    Failed(anyhow::Error),
}

impl<P: Projection> ReadModel<P> {
    /// Keeps a read model in a directory, for as long as a handle is kept. A service calls [`crate::Service::read_model`]
    /// instead, which ties it to readiness.
    pub fn follow(log: &EventLog, directory: impl Into<PathBuf>) -> Self {
        Self::follow_reporting(log, directory, CheckHandle::detached())
    }

    /// The same, and says there how far it is and what is wrong with it.
    pub fn follow_reporting(log: &EventLog, directory: impl Into<PathBuf>, check: CheckHandle) -> Self {
        let (mut model, task) = Self::parts(log, directory.into(), check);
        let task = async {
            if let Err(error) = task.await {
                error!(
                    projection.name = P::NAME,
                    error = format!("{error:#}"),
                    "a read model is not kept any more"
                );
            }
        };
        model.task = Some(Arc::new(AbortOnDropHandle::new(tokio::spawn(task))));
        model
    }

    /// The read model, and the endless task that keeps it.
    pub(crate) fn parts(
        log: &EventLog,
        directory: PathBuf,
        check: CheckHandle,
    ) -> (Self, impl Future<Output = anyhow::Result<()>> + Send + use<P>) {
        const {
            assert!(is_name(P::NAME), "a projection's NAME is 1 to 64 of a-z 0-9 _");
            assert!(
                P::VERSION >= 1 && P::SAME_TABLES_SINCE <= P::VERSION,
                "VERSION is 1 or more, and SAME_TABLES_SINCE not after it"
            );
        }
        let served = Arc::new(Served {
            name: P::NAME,
            pool: Arc::new(Pool::new()),
            position: watch::channel(0).0,
            caught_up: watch::channel(false).0,
            wanted: Notify::new(),
            written: log.written().clone(),
        });
        let task = keep::<P>(served.clone(), log.client().clone(), directory, check);
        let written = log.written().clone();
        (Self { served, written, task: None, projection: PhantomData }, task)
    }

    /// Waits until a read sees what it must: the position that the client asks for, if any, within five seconds, and what this
    /// process has written itself. (The latter for at most a second: an answer that is a moment old beats none.)
    ///
    /// `orders.at(min_sequence).await?.read(|tables| …).await?`
    pub async fn at(&self, min_sequence: impl Into<Option<u64>>) -> Result<&Self, Behind> {
        let min_sequence = min_sequence.into();
        let own = self.written.last_of(<P::Event as FromStream>::TYPES);
        let _a_moment_old = self.at_least(own, OWN_WRITES_WITHIN).await;
        if let Some(sequence) = min_sequence {
            self.at_least(sequence, MIN_SEQUENCE_WITHIN).await?;
        }
        Ok(self)
    }

    /// Waits until everything up to `sequence` is there to be read.
    pub async fn at_least(&self, sequence: u64, wait: Duration) -> Result<(), Behind> {
        let mut position = self.served.position.subscribe();
        let reached = async {
            loop {
                if *position.borrow_and_update() >= sequence {
                    return;
                }
                // Most often it is on its way. If not, it may be an event that this projection does not follow.
                if tokio::time::timeout(LOOK_AGAIN, position.changed()).await.is_err() {
                    self.served.wanted.notify_waiters();
                }
            }
        };
        let in_time = tokio::time::timeout(wait, reached).await;
        in_time.map_err(|_| Behind { wanted: sequence, at: self.watermark() })
    }

    /// Reads, in one transaction: everything that `read` asks is of one moment. It runs on a thread that may block, and is
    /// interrupted after five seconds.
    pub async fn read<T, F>(&self, read: F) -> Result<Seen<T>, ReadError>
    where
        T: Send + 'static,
        F: FnOnce(&Tables<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        if !self.served.is_caught_up() {
            let started = tokio::time::timeout(START_WITHIN, self.caught_up()).await;
            started.map_err(|_| ReadError::Starting)?;
        }
        // The file does not know of what was passed over; this position is in what is read now.
        let passed = self.watermark();
        let (value, sequence) = self.served.pool.read(read).await?;
        Ok(Seen { value, sequence: sequence.max(passed) })
    }

    /// The position on the stream up to which everything is there.
    pub fn watermark(&self) -> u64 {
        *self.served.position.borrow()
    }

    /// Waits until the end of the stream was reached for the first time.
    pub async fn caught_up(&self) {
        let mut caught_up = self.served.caught_up.subscribe();
        let _closed = caught_up.wait_for(|caught_up| *caught_up).await;
    }
}

impl<P> Clone for ReadModel<P> {
    fn clone(&self) -> Self {
        let (served, written) = (self.served.clone(), self.written.clone());
        Self { served, written, task: self.task.clone(), projection: PhantomData }
    }
}

impl<P: Projection> fmt::Debug for ReadModel<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadModel")
            .field("name", &P::NAME)
            .field("watermark", &self.watermark())
            .finish_non_exhaustive()
    }
}

const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if !matches!(bytes[i], b'a'..=b'z' | b'0'..=b'9' | b'_') {
            return false;
        }
        i += 1;
    }
    i > 0 && i <= 64
}
