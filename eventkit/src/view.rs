//! [`View`]: what a reader sees, folded in memory from the log, followed live, rebuilt at every start.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::Client;
use metrics::{counter, gauge};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use crate::follow::{Followed, FollowedMessage, Follower};
use crate::health::CheckHandle;
use crate::log::Stored;
use crate::subject::{EVENTS, of_type};
use crate::{Behind, EventSet, Recorded, StoreError};

/// How often a reader that waits for a position has the view look how far the log goes.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What a view knows. Named by what a reader sees: `OrderSummaries`.
pub trait Projection: Default + Send + Sync + 'static {
    /// The events that it follows.
    type Event: EventSet;

    /// Takes one event in. It happened: this cannot fail. Called in log order, each event once.
    fn apply(&mut self, event: &Recorded<Self::Event>);
}

/// A projection that is kept up to date by a task of its own. Cloning gives another handle on the same one.
///
/// It holds nothing that the log does not: losing it loses time, not facts.
#[derive(Debug)]
pub struct View<P> {
    inner: Arc<Inner<P>>,
    /// Where the view belongs to no service, its task ends with the last handle.
    task: Option<Arc<AbortOnDropHandle<()>>>,
}

#[derive(Debug)]
struct Inner<P> {
    projection: RwLock<P>,
    /// Up to where on the log the view is complete.
    watermark: watch::Sender<u64>,
    /// Whether the end of the log was reached once.
    caught_up: watch::Sender<bool>,
    /// Somebody waits for a position: look how far the log goes.
    wanted: Notify,
}

impl<P: Projection> View<P> {
    /// Follows the log from its beginning, for as long as a handle is kept. A service calls
    /// [`crate::Service::view`] instead, which ties it to readiness.
    pub fn follow(client: Client) -> Self {
        let (mut view, task) = Self::parts(client, CheckHandle::detached());
        view.task = Some(Arc::new(AbortOnDropHandle::new(tokio::spawn(task))));
        view
    }

    /// The view and the endless task that keeps it.
    pub(crate) fn parts(client: Client, check: CheckHandle) -> (Self, impl Future<Output = ()> + Send) {
        let inner = Arc::new(Inner {
            projection: RwLock::new(P::default()),
            watermark: watch::channel(0).0,
            caught_up: watch::channel(false).0,
            wanted: Notify::new(),
        });
        let task = keep(inner.clone(), client, check);
        (Self { inner, task: None }, task)
    }

    /// Reads the view as it is now. Keep `f` short: new events wait for it.
    pub fn read<T>(&self, f: impl FnOnce(&P) -> T) -> T {
        f(&self.inner.projection.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until everything up to `sequence` is in the view: a writer reads what it wrote.
    pub async fn at_least(&self, sequence: u64, wait: Duration) -> Result<(), Behind> {
        let mut watermark = self.inner.watermark.subscribe();
        let reached = async {
            loop {
                if *watermark.borrow_and_update() >= sequence {
                    return;
                }
                // Most often it is on its way. If not, it may be an event that this view does not follow.
                if tokio::time::timeout(LOOK_AGAIN, watermark.changed()).await.is_err() {
                    self.inner.wanted.notify_one();
                }
            }
        };
        let in_time = tokio::time::timeout(wait, reached).await;
        in_time.map_err(|_| Behind { wanted: sequence, at: self.watermark() })
    }

    /// The position on the log up to which the view is complete.
    pub fn watermark(&self) -> u64 {
        *self.inner.watermark.borrow()
    }

    /// Waits until the view has reached the end of the log for the first time.
    pub async fn caught_up(&self) {
        let mut caught_up = self.inner.caught_up.subscribe();
        let _closed = caught_up.wait_for(|caught_up| *caught_up).await;
    }
}

impl<P> Clone for View<P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), task: self.task.clone() }
    }
}

/// The name that metrics and logs know a projection by: its type's, without the path.
pub(crate) fn name_of<P>() -> &'static str {
    let path = std::any::type_name::<P>();
    path.rsplit("::").next().unwrap_or(path)
}

async fn keep<P: Projection>(inner: Arc<Inner<P>>, client: Client, check: CheckHandle) {
    let name = name_of::<P>();
    let filters = P::Event::TYPES.iter().copied().map(of_type).collect();
    let mut follower = Follower::new(client, EVENTS, filters, 1);
    let position = gauge!("eventkit_view_watermark", "view" => name);
    loop {
        follower.opened().await;
        let followed = tokio::select! {
            followed = follower.next() => followed,
            () = inner.wanted.notified() => {
                if let Some(sequence) = follower.scanned().await {
                    inner.advance(sequence);
                }
                continue;
            }
        };
        match followed {
            Followed::Message(message) => {
                let sequence = message.sequence;
                inner.apply(name, message);
                inner.advance(sequence);
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a gauge is a float; sequences stay below 2^53"
                )]
                position.set(sequence as f64);
            }
            Followed::CaughtUp => {
                if !inner.caught_up.send_replace(true) {
                    info!(view.name = name, view.watermark = *inner.watermark.borrow(), "view caught up");
                }
                check.set_ready(true, "caught up");
            }
        }
    }
}

impl<P: Projection> Inner<P> {
    /// An event that cannot be read is no reason to stop: it is counted, logged and left out.
    fn apply(&self, name: &'static str, message: FollowedMessage) {
        let FollowedMessage { message, sequence, .. } = message;
        let stored = Stored { subject: message.subject.to_string(), sequence, payload: message.payload };
        match stored.decode::<P::Event>() {
            Ok(event) => self.projection.write().unwrap_or_else(PoisonError::into_inner).apply(&event),
            Err(StoreError::Corrupt { subject, source, .. }) => {
                counter!("eventkit_view_undecodable_total", "view" => name).increment(1);
                error!(view.name = name, subject, sequence, error = %source, "an event was left out: it cannot be read");
            }
            Err(other) => error!(view.name = name, sequence, error = %other, "an event was left out"),
        }
    }

    fn advance(&self, to: u64) {
        self.watermark.send_if_modified(|at| {
            let moved = to > *at;
            *at = to.max(*at);
            moved
        });
    }
}
