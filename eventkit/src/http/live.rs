//! Histories as an answer: a list, or a live stream of events (`Accept: text/event-stream`) that goes on as they happen.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::{BoxStream, unfold};
use metrics::gauge;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::history::HistoryEntry;
use super::problem::Problem;
use super::write::version_of;
use crate::subject::{self, EventSubject};
use crate::{Aggregate, EntityId, EventStore, StoreError};

/// How many live streams one process serves at a time. Each is a connection and a subscription.
const MAX_STREAMS: usize = 256;

/// How often a stream looks by itself, for what no message told of: the server was away.
const LOOK_BY_ITSELF: Duration = Duration::from_secs(10);

/// A message may be heard of before it is stored. How long to wait between looks, until it is there or was refused.
const LOOK_AGAIN: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(500)];

/// How many events a stream reads at once: a client may take them slowly, or not at all.
const AT_ONCE: u64 = 32;

/// How often an idle stream sends a comment, so that what is in between does not take it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The live streams of a process: how many more there may be, and when they end. [`super::complete`] hands it to requests.
#[derive(Debug, Clone)]
pub(super) struct LiveStreams {
    free: Arc<Semaphore>,
    stop: CancellationToken,
}

impl LiveStreams {
    pub(super) fn until(stop: CancellationToken) -> Self {
        Self { free: Arc::new(Semaphore::new(MAX_STREAMS)), stop }
    }
}

/// How a history is asked for: whole and now, or live, with `Accept: text/event-stream`. A live one begins after the
/// version in `Last-Event-ID`, which a browser sends by itself when it connects again.
#[derive(Debug)]
pub struct HistoryRequest {
    live: Option<LiveStreams>,
    /// The version after which a live stream begins.
    after: u64,
}

impl<S: Send + Sync> FromRequestParts<S> for HistoryRequest {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut ids = parts.headers.get_all("last-event-id").iter();
        let after = match (ids.next(), ids.next()) {
            (None, _) => Some(0),
            (Some(id), None) => id.to_str().ok().and_then(version_of),
            (Some(_), Some(_)) => None,
        };
        let after =
            after.ok_or_else(|| Problem::bad_request("Last-Event-ID must be the id of one event: 3"))?;
        let accepted = parts.headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
        let mut kinds = accepted.flat_map(|accept| accept.split(',')).map(|kind| kind.split(';').next());
        if !kinds.any(|kind| kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))) {
            return Ok(Self { live: None, after });
        }
        let streams = parts.extensions.get::<LiveStreams>().cloned();
        let streams =
            streams.ok_or_else(|| Problem::internal(anyhow::anyhow!("not called by `complete`")))?;
        Ok(Self { live: Some(streams), after })
    }
}

impl HistoryRequest {
    /// What happened to an entity, as asked for; [`None`] if nothing ever did. 503 if there are too many live streams.
    pub async fn answer<A, T>(
        self,
        store: &EventStore<A>,
        id: &EntityId,
    ) -> Result<Option<History<T>>, Problem>
    where
        A: Aggregate,
        T: From<A::Event> + Serialize + Send + 'static,
    {
        let Some(LiveStreams { free, stop }) = self.live else {
            let history = store.history(id).await?;
            let entries: Vec<_> = history.into_iter().map(HistoryEntry::from).collect();
            return Ok((!entries.is_empty()).then_some(History::List(entries)));
        };
        if store.history_between(id, 1, 1).await?.is_empty() {
            return Ok(None);
        }
        let permit = free.try_acquire_owned().map_err(|_| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", "Too many live streams")
                .detail(format!("This process serves {MAX_STREAMS} at a time; try again, or another replica"))
                .retry_after(KEEP_ALIVE)
        })?;
        // Before the first look, so that nothing happens in between.
        let everything = subject::of_entity(A::ENTITY, id);
        let heard = store.log().client().subscribe(everything).await.map_err(StoreError::unavailable)?;
        let (latest, news) = watch::channel(0);
        let listening = AbortOnDropHandle::new(tokio::spawn(listen(heard, latest)));
        gauge!("eventkit_live_streams").increment(1);
        let live = Live::<A, T> {
            store: store.clone(),
            id: id.clone(),
            last: self.after,
            ready: VecDeque::new(),
            news,
            _listening: listening,
            looks: LOOK_AGAIN[..1].iter(),
            _counted: Counted(permit),
        };
        let events = unfold(live, |mut live| async move { Some((live.next().await?, live)) });
        Ok(Some(History::Live(events.take_until(stop.cancelled_owned()).map(Ok).boxed())))
    }
}

/// A history on its way to a client.
pub enum History<T> {
    /// All of it, as a list.
    List(Vec<HistoryEntry<T>>),
    /// All of it and what comes after, event by event: `id` is the version, `event` the type.
    Live(BoxStream<'static, Result<Event, Infallible>>),
}

impl<T> std::fmt::Debug for History<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::List(_)) { "List" } else { "Live" })
    }
}

impl<T: Serialize> IntoResponse for History<T> {
    fn into_response(self) -> Response {
        match self {
            Self::List(entries) => Json(entries).into_response(),
            Self::Live(events) => {
                Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
            }
        }
    }
}

/// One live stream. What it gives out is read from the log, by version; messages only wake it.
struct Live<A: Aggregate, T> {
    store: EventStore<A>,
    id: EntityId,
    /// The version given out last.
    last: u64,
    /// What was read and is not given out yet.
    ready: VecDeque<HistoryEntry<T>>,
    /// The latest version that was heard of.
    news: watch::Receiver<u64>,
    _listening: AbortOnDropHandle<()>,
    /// The waits before the next looks, since something was heard.
    looks: std::slice::Iter<'static, Duration>,
    _counted: Counted,
}

impl<A: Aggregate, T: From<A::Event> + Serialize> Live<A, T> {
    /// The next event; [`None`] if the history cannot be read, or the connection is closed for good.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                self.last = entry.metadata.version;
                return written(&entry).inspect_err(|error| warn!(%error, "a live stream ends")).ok();
            }
            if let Some(wait) = self.looks.next() {
                tokio::time::sleep(*wait).await;
            } else {
                match tokio::time::timeout(LOOK_BY_ITSELF, self.news.changed()).await {
                    Ok(Ok(())) => {
                        if *self.news.borrow_and_update() > self.last {
                            self.looks = LOOK_AGAIN.iter();
                        }
                        continue;
                    }
                    Ok(Err(_)) => return None,
                    Err(_) => {}
                }
            }
            let first = self.last.saturating_add(1);
            match self.store.history_between(&self.id, first, first.saturating_add(AT_ONCE - 1)).await {
                Ok(more) if more.is_empty() => {}
                Ok(more) => {
                    let reached = first + more.len() as u64 - 1;
                    self.looks = if more.len() as u64 == AT_ONCE {
                        LOOK_AGAIN[..1].iter() // there may be more
                    } else if *self.news.borrow() > reached {
                        LOOK_AGAIN.iter()
                    } else {
                        [].iter()
                    };
                    self.ready.extend(more.into_iter().map(HistoryEntry::from));
                }
                Err(StoreError::Unavailable(_)) => {}
                Err(error) => {
                    warn!(entity = A::ENTITY, entity.id = %self.id, %error, "a live stream ends");
                    return None;
                }
            }
        }
    }
}

/// Keeps the latest version that is told of. A client that does not read must not have messages pile up behind it.
async fn listen(mut heard: Subscriber, latest: watch::Sender<u64>) {
    while let Some(message) = heard.next().await {
        let told = EventSubject::parse(&message.subject).map_or(0, |told| told.version);
        latest.send_if_modified(|latest| {
            let is_newer = told > *latest;
            *latest = told.max(*latest);
            is_newer
        });
    }
}

fn written<T: Serialize>(entry: &HistoryEntry<T>) -> serde_json::Result<Event> {
    #[derive(Deserialize)]
    struct Kind {
        r#type: String,
    }
    let data = serde_json::to_string(entry)?;
    let Kind { r#type } = serde_json::from_str(&data)?;
    Ok(Event::default().id(entry.metadata.version.to_string()).event(r#type).data(data))
}

/// One of the streams that there may be.
struct Counted(#[expect(dead_code, reason = "given back when dropped")] OwnedSemaphorePermit);

impl Drop for Counted {
    fn drop(&mut self) {
        gauge!("eventkit_live_streams").decrement(1);
    }
}
