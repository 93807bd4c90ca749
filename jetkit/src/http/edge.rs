//! [`complete`]: what surrounds every route, whatever it does.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use futures::FutureExt;
use metrics::{counter, histogram};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info_span, warn};
use uuid::Uuid;

use super::extract::unreadable;
use super::live::LiveStreams;
use super::openapi::{KnownParameters, Routes};
use super::page::link_next;
use super::problem::Problem;
use super::write::{IDEMPOTENCY_KEY, WholeBody};
use crate::failure::panic_message;

/// The largest request body.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// How long a handler may take until its answer begins. (A live stream may then go on.)
const HANDLE_WITHIN: Duration = Duration::from_secs(30);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Puts around `routes` what every route has: an id per request (the client's `x-request-id`, or a new one) in the
/// answer, in problems and in logs; a limit on the body and on the time; a problem for a panic, an unknown route and a
/// wrong method; metrics by route. Documented routes take the query parameters that their document names, and no others.
pub fn complete(routes: impl Into<Routes>) -> Router {
    complete_until(CancellationToken::new(), routes)
}

/// The same for a service, whose live streams end when it stops.
pub(crate) fn complete_until(stop: CancellationToken, routes: impl Into<Routes>) -> Router {
    let (routes, api) = routes.into().split_for_parts();
    let known = KnownParameters::of(&api);
    routes
        .fallback(|| async { Problem::not_found("There is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "This path does not take this method",
            )
        })
        .layer(Extension(LiveStreams::until(stop)))
        .layer(from_fn(move |request, next| known.clone().check(request, next)))
        .layer(from_fn(link_next))
        .layer(from_fn(around))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// One request, from the outside.
async fn around(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let id_text = id.to_str().unwrap_or_default();
    let span = info_span!("request", request.id = id_text, http.method = %method, http.path = path);

    let handled = async {
        match with_body(request).await {
            Ok(request) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    };
    let handled = AssertUnwindSafe(handled).catch_unwind().instrument(span.clone());
    let answer = match tokio::time::timeout(HANDLE_WITHIN, handled).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            Problem::internal(anyhow::anyhow!("the handler panicked: {}", panic_message(&*panic)))
                .into_response()
        }
        Err(_) => Problem::unavailable(anyhow::anyhow!("no answer within {HANDLE_WITHIN:?}")).into_response(),
    };
    let mut answer = span.in_scope(|| told(answer, id_text));
    answer.headers_mut().insert(REQUEST_ID, id);

    let labels =
        [("method", method.to_string()), ("route", route), ("status", answer.status().as_str().to_owned())];
    counter!("http_requests_total", &labels).increment(1);
    histogram!("http_request_duration_seconds", &labels[..2]).record(started.elapsed());
    answer
}

/// Keeps the body of a request that may be a repeat: it is part of what the repeat must have in common with the first.
async fn with_body(request: Request) -> Result<Request, Problem> {
    if !request.headers().contains_key(IDEMPOTENCY_KEY) {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    let body =
        Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await.map_err(unreadable)?;
    parts.extensions.insert(WholeBody(body.clone()));
    Ok(Request::from_parts(parts, body.into()))
}

/// Logs what went wrong and puts the request's id into what the client is told. An error that is no problem yet (one of
/// the framework's own) becomes one.
fn told(mut answer: Response, request_id: &str) -> Response {
    let problem = match answer.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if is_bare_error(&answer) => bare(answer.status()),
        None => return answer,
    };
    let (status, kind, cause) = (problem.status().as_u16(), problem.slug(), problem.cause());
    if problem.status() == StatusCode::INTERNAL_SERVER_ERROR {
        error!(http.status = status, problem = kind, error = cause, "a request failed");
    } else if problem.status().is_server_error() {
        warn!(http.status = status, problem = kind, error = cause, "a request was turned away");
    }
    let mut rendered = problem.render(Some(request_id));
    for (name, value) in answer.headers() {
        // What a handler or the framework added, such as `Allow`.
        if !rendered.headers().contains_key(name) && name != axum::http::header::CONTENT_LENGTH {
            rendered.headers_mut().insert(name, value.clone());
        }
    }
    rendered
}

fn is_bare_error(answer: &Response) -> bool {
    let content_type = answer.headers().get(axum::http::header::CONTENT_TYPE);
    let text = content_type.is_none_or(|value| value.as_bytes().starts_with(b"text/plain"));
    text && (answer.status().is_client_error() || answer.status().is_server_error())
}

fn bare(status: StatusCode) -> Problem {
    let title = status.canonical_reason().unwrap_or("Error");
    Problem::new(status, if status.is_server_error() { "internal" } else { "bad-request" }, title)
}

/// The client's id if it is a reasonable one, or a new one.
fn request_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(REQUEST_ID);
    let reasonable = |id: &&HeaderValue| {
        id.len() <= 128 && id.as_bytes().iter().all(u8::is_ascii_graphic) && !id.is_empty()
    };
    given.filter(reasonable).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&Uuid::now_v7().to_string()).unwrap_or(HeaderValue::from_static("-"))
    })
}
