//! Queries over NATS: a request on a subject such as `order.get` is answered as the `GET` of a path is, by the same
//! route. Served through the NATS services API (ADR-32): discoverable and counted with `$SRV.PING`, `INFO` and `STATS`,
//! shared by replicas.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::connection::State;
use async_nats::service::error::Error as ServiceError;
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE, Request, ServiceExt};
use async_nats::{Client, HeaderMap};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{self, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, info, warn};

use crate::http::{MAX_BODY_BYTES, Object, Problem, refuse_byte_order_mark};
use crate::{EntityId, ServiceInfo};

/// How many requests on one subject are answered at a time; more wait their turn. Many, because one that waits for its
/// `min_sequence` does nothing else for up to five seconds.
const AT_A_TIME: usize = 1024;

/// How long the last answers may take when the service is stopped: longer than a query waits for its `min_sequence`.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(8);

/// The largest answer. Under what a NATS server takes unless told otherwise (1 MiB), with room for the headers.
const MAX_ANSWER_BYTES: usize = 960 * 1024;

/// What a request's body is, for whoever asks `$SRV.INFO`.
const REQUEST_SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"required":["id"],"properties":{"id":{"type":"string","pattern":"^[A-Za-z0-9_-]{1,64}$"},"min_sequence":{"type":"integer","minimum":0}}}"#;

/// Of an HTTP answer's headers, those that its reply has too, under the same names.
const KEPT_HEADERS: [&str; 5] = ["content-type", "etag", "event-sequence", "retry-after", "x-request-id"];

/// A subject, and the path whose entities it asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub(super) subject: &'static str,
    pub(super) collection: &'static str,
}

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    id: EntityId,
    #[serde(default)]
    min_sequence: Option<u64>,
}

/// Answers queries from the moment when the routes are open until told to stop; then finishes those that run.
pub(super) async fn serve(
    client: Client,
    about: ServiceInfo,
    queries: Vec<Query>,
    open: JoinHandle<Router>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let routes = tokio::select! {
        routes = open => routes.context("waiting for the routes")?,
        () = stop.cancelled() => return Ok(()),
    };
    let builder = client.service_builder().description(about.description);
    let service = builder.start(about.name, about.version).await;
    let service = service.map_err(anyhow::Error::from_boxed).context("starting the NATS service")?;

    let mut endpoints = Vec::with_capacity(queries.len());
    for query in queries {
        let metadata = HashMap::from([
            ("request".to_owned(), REQUEST_SCHEMA.to_owned()),
            ("response".to_owned(), format!("the body of GET {}/{{id}}", query.collection)),
        ]);
        let endpoint = service.endpoint_builder().metadata(metadata).add(query.subject).await;
        let endpoint = endpoint
            .map_err(anyhow::Error::from_boxed)
            .with_context(|| format!("subscribing to {}", query.subject))?;
        info!(query.subject = query.subject, "answering queries");
        let (client, routes) = (client.clone(), routes.clone());
        endpoints.push(endpoint.for_each_concurrent(AT_A_TIME, move |request| {
            answer(query, request, routes.clone(), client.clone())
        }));
    }
    let answering = join_all(endpoints);
    tokio::pin!(answering);
    tokio::select! {
        _ = &mut answering => bail!("the subscriptions ended"),
        () = stop.cancelled() => {}
    }
    // Without a connection no answer arrives anywhere, and no subscription ends.
    if client.connection_state() == State::Connected {
        service.stop().await.map_err(anyhow::Error::from_boxed).context("leaving the NATS services")?;
        if tokio::time::timeout(LAST_ANSWERS_WITHIN, answering).await.is_err() {
            warn!("queries that were not answered in time when the service was stopped get no answer");
        }
    }
    Ok(())
}

/// One request, from its bytes to its reply.
async fn answer(query: Query, mut request: Request, routes: Router, client: Client) {
    let Some(reply) = request.message.reply.clone() else {
        debug!(query.subject = query.subject, "a query without a reply subject: nobody waits for its answer");
        return;
    };
    let response = match translate(query, &request.message.payload) {
        Ok(get) => routes.oneshot(get).await.unwrap_or_else(|never| match never {}),
        Err(problem) => problem.into_response(),
    };
    let (status, headers, body) = whole(response).await;
    let sent = if status.is_success() {
        request.respond_with_headers(Ok(body), headers).await
    } else {
        let error =
            ServiceError { code: status.as_u16().into(), status: title(&body).unwrap_or(status.to_string()) };
        let mut headers = headers;
        headers.insert(NATS_SERVICE_ERROR, error.status.as_str());
        headers.insert(NATS_SERVICE_ERROR_CODE, error.code.to_string());
        let sent = client.publish_with_headers(reply, headers, body).await;
        // The library counts an error only by answering it, and without a body: it may answer where nobody listens.
        request.message.reply = Some(client.new_inbox().into());
        sent.and(request.respond(Err(error)).await)
    };
    if let Err(error) = sent {
        debug!(query.subject = query.subject, error = %error, "a query's answer could not be sent");
    }
}

/// The HTTP request that asks the same.
fn translate(query: Query, payload: &[u8]) -> Result<http::Request<Body>, Problem> {
    if payload.len() > MAX_BODY_BYTES {
        let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large");
        return Err(problem.detail(format!("A body has at most {MAX_BODY_BYTES} bytes")));
    }
    refuse_byte_order_mark(payload)?;
    let Object(Question { id, min_sequence }) = serde_json::from_slice(payload).map_err(|error| {
        Problem::bad_request(format!(r#"The request must be like {{"id":"o-1"}}: {error}"#))
    })?;
    let path = match min_sequence {
        None => format!("{}/{id}", query.collection),
        Some(sequence) => format!("{}/{id}?min_sequence={sequence}", query.collection),
    };
    http::Request::get(path).body(Body::empty()).map_err(Problem::internal)
}

/// The parts of an answer that a reply has.
async fn whole(response: Response) -> (StatusCode, HeaderMap, Bytes) {
    let (parts, body) = response.into_parts();
    let (parts, body) = match to_bytes(body, MAX_ANSWER_BYTES).await {
        Ok(body) => (parts, body),
        Err(error) => {
            let problem = Problem::internal(anyhow::Error::from(error).context("an answer is too large"));
            let (parts, body) = problem.into_response().into_parts();
            (parts, to_bytes(body, MAX_ANSWER_BYTES).await.unwrap_or_default())
        }
    };
    let mut headers = HeaderMap::new();
    for name in KEPT_HEADERS {
        if let Some(value) = parts.headers.get(name).and_then(|value| value.to_str().ok()) {
            headers.insert(name, value);
        }
    }
    (parts.status, headers, body)
}

/// A problem's title.
fn title(problem: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Titled {
        title: String,
    }
    Some(serde_json::from_slice::<Titled>(problem).ok()?.title)
}
