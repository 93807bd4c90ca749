//! Histories as an answer: a list, page by page, or a live stream of events (`Accept: text/event-stream`) that goes on as
//! they happen. Neither holds more of a history than a few events at a time, however long it is.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use axum::body::Bytes;
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
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::extract::Query;
use super::history::HistoryEntry;
use super::page::NextPart;
use super::problem::Problem;
use super::write::{MAX_VERSION, version_of};
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

/// The most events of one list.
const MAX_LIST: u64 = 1_000;

/// A list that has grown to this ends there, and the rest is the next one: events may be large.
const MAX_LIST_BYTES: usize = 1024 * 1024;

/// How many events a list reads at once.
const LIST_AT_ONCE: u64 = 96;

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

/// How a history is asked for: as a list, or live, with `Accept: text/event-stream`. Either begins after the version in
/// `?after=`; a live one after the version in `Last-Event-ID`, which a browser sends by itself when it connects again. 409
/// if the entity has not come that far: whoever names such a version has read what this log does not hold.
#[derive(Debug)]
pub struct HistoryRequest {
    live: Option<LiveStreams>,
    /// The version after which it begins.
    after: u64,
    /// The most events of a list.
    limit: u64,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Part {
    /// Begins after this version
    #[param(minimum = 0, maximum = 999_999_999_999_999_999_u64, default = 0)]
    after: Option<u64>,
    /// The most events of a list. Large events make it shorter; `Link` says where to go on
    #[param(minimum = 1, maximum = 1_000, default = 1_000)]
    limit: Option<u64>,
}

impl<S: Send + Sync> FromRequestParts<S> for HistoryRequest {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(Part { after, limit }) = Query::from_request_parts(parts, state).await?;
        let (from, limit) = (after.unwrap_or(0), limit.unwrap_or(MAX_LIST));
        if from > MAX_VERSION || !(1..=MAX_LIST).contains(&limit) {
            return Err(Problem::bad_request("after is a version, limit is 1 to 1,000"));
        }
        let mut ids = parts.headers.get_all("last-event-id").iter();
        let last = match (ids.next(), ids.next()) {
            (None, _) => Some(from),
            (Some(id), None) => id.to_str().ok().and_then(version_of),
            (Some(_), Some(_)) => None,
        };
        let last =
            last.ok_or_else(|| Problem::bad_request("Last-Event-ID must be the id of one event: 3"))?;
        let accepted = parts.headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
        let mut kinds = accepted.flat_map(|accept| accept.split(',')).map(|kind| kind.split(';').next());
        if !kinds.any(|kind| kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))) {
            return Ok(Self { live: None, after: from, limit });
        }
        let streams = parts.extensions.get::<LiveStreams>().cloned();
        let streams =
            streams.ok_or_else(|| Problem::internal(anyhow::anyhow!("not called by `complete`")))?;
        Ok(Self { live: Some(streams), after: last, limit })
    }
}

impl IntoParams for HistoryRequest {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        #[derive(IntoParams)]
        #[into_params(parameter_in = Header)]
        #[expect(dead_code, reason = "describes the header")]
        struct Headers {
            /// A live stream begins after this version. Browsers send it when they connect again
            #[param(rename = "Last-Event-ID", pattern = "^[0-9]{1,18}$")]
            last_event_id: Option<String>,
        }
        [Part::into_params(&place), Headers::into_params(&place)].concat()
    }
}

impl HistoryRequest {
    /// Returns what happened to an entity, as asked for; [`None`] if nothing ever did. 503 if there are too many live
    /// streams.
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
            let list = List::read::<A, T>(store, id, self.after, self.limit).await?;
            if list.count == 0 && !reaches(store, id, self.after).await? {
                return Ok(None);
            }
            return Ok(Some(History::List(list)));
        };
        if !reaches(store, id, self.after).await? {
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
        gauge!("jetkit_live_streams").increment(1);
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
        Ok(Some(History::Live(events.take_until(stop.cancelled_owned()).map(Ok).boxed(), PhantomData)))
    }
}

/// Whether an entity has an event of that version, or any where that is 0. 409 if it has some, and not that one.
async fn reaches<A: Aggregate>(store: &EventStore<A>, id: &EntityId, version: u64) -> Result<bool, Problem> {
    if store.history_between(id, 1, 1).await?.is_empty() {
        return Ok(false);
    }
    if version == 0 {
        return Ok(true);
    }
    // Another replica of the server may have told of it a moment ago.
    for wait in LOOK_AGAIN {
        tokio::time::sleep(wait).await;
        if !store.history_between(id, version, version).await?.is_empty() {
            return Ok(true);
        }
    }
    Err(Problem::new(StatusCode::CONFLICT, "ahead-of-history", "The history does not go that far").detail(
        format!(
            "There is no version {version}. What was read before is not in this log: read from the beginning"
        ),
    ))
}

/// A history on its way to a client.
pub enum History<T> {
    /// A part of it, as a list of [`HistoryEntry`]s.
    List(List),
    /// All of it and what comes after, event by event: `id` is the version, `event` the type.
    Live(BoxStream<'static, Result<Event, Infallible>>, PhantomData<fn() -> T>),
}

/// A part of a history: a JSON array, made while the history is read, so that only a few events are held at a time.
#[derive(Debug, Default)]
pub struct List {
    json: Vec<u8>,
    count: u64,
    /// The version after which there is more.
    more_after: Option<u64>,
}

impl List {
    async fn read<A, T>(store: &EventStore<A>, id: &EntityId, after: u64, limit: u64) -> Result<Self, Problem>
    where
        A: Aggregate,
        T: From<A::Event> + Serialize,
    {
        let mut list = Self { json: vec![b'['], ..Self::default() };
        loop {
            let wanted = LIST_AT_ONCE.min(limit - list.count);
            let first = after.saturating_add(list.count).saturating_add(1);
            let read = store.history_between(id, first, first.saturating_add(wanted - 1)).await?;
            let is_all = (read.len() as u64) < wanted;
            for recorded in read {
                list.push(&HistoryEntry::<T>::from(recorded)).map_err(Problem::internal)?;
                if list.json.len() >= MAX_LIST_BYTES {
                    break;
                }
            }
            let last = after.saturating_add(list.count);
            let is_full = list.count == limit || list.json.len() >= MAX_LIST_BYTES;
            if is_full && !store.history_between(id, last + 1, last + 1).await?.is_empty() {
                list.more_after = Some(last);
            }
            if is_all || is_full {
                list.json.push(b']');
                return Ok(list);
            }
        }
    }

    fn push<T: Serialize>(&mut self, entry: &HistoryEntry<T>) -> serde_json::Result<()> {
        if self.count > 0 {
            self.json.push(b',');
        }
        self.count += 1;
        serde_json::to_writer(&mut self.json, entry)
    }
}

impl IntoResponse for List {
    fn into_response(self) -> Response {
        let json = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (json, Bytes::from(self.json)).into_response();
        if let Some(last) = self.more_after {
            response.extensions_mut().insert(NextPart { parameter: "after", value: last.to_string() });
        }
        response
    }
}

impl<T> std::fmt::Debug for History<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::List(_)) { "List" } else { "Live" })
    }
}

impl<T: Serialize> IntoResponse for History<T> {
    fn into_response(self) -> Response {
        match self {
            Self::List(list) => list.into_response(),
            Self::Live(events, _) => {
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
        gauge!("jetkit_live_streams").decrement(1);
    }
}
