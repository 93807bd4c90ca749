//! [`Problem`]: what a client is told when something is wrong (RFC 9457), and what the log is told beside it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{ExecuteError, InvalidId, StoreError};

/// An answer that is not the one hoped for. Everything in it is safe to show; its cause goes to the log only.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    slug: &'static str,
    title: &'static str,
    detail: Option<String>,
    members: Map<String, Value>,
    retry_after: Option<Duration>,
    cause: Option<Arc<anyhow::Error>>,
}

impl Problem {
    /// A problem of the stable type `urn:problem:<slug>`. Clients tell problems apart by it: renaming it breaks them.
    pub fn new(status: StatusCode, slug: &'static str, title: &'static str) -> Self {
        Self { status, slug, title, detail: None, members: Map::new(), retry_after: None, cause: None }
    }

    /// A request that cannot be understood: 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request cannot be understood").detail(detail)
    }

    /// A request that is understood and makes no sense: 422.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request is invalid").detail(detail)
    }

    /// There is no such thing: 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found").detail(detail)
    }

    /// Not now; the same request may work soon: 503 with `Retry-After`.
    pub fn unavailable(cause: impl Into<anyhow::Error>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available right now")
            .detail("Nothing is lost; try again, with the same Idempotency-Key if it was a write")
            .retry_after(Duration::from_secs(1))
            .caused_by(cause)
    }

    /// Our mistake: 500. The client learns nothing of the cause.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side")
            .caused_by(cause)
    }

    /// What is wrong this time. Shown to the client.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// A further member for programs to read, such as the balance that does not suffice. Shown to the client.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.insert(name.into(), value.into());
        self
    }

    /// When it makes sense to try again.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// Why, for the log.
    #[must_use]
    pub fn caused_by(self, cause: impl Into<anyhow::Error>) -> Self {
        Self { cause: Some(Arc::new(cause.into())), ..self }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn slug(&self) -> &'static str {
        self.slug
    }

    /// The causes, in one line.
    pub(crate) fn cause(&self) -> Option<String> {
        self.cause.as_ref().map(|cause| format!("{cause:#}"))
    }

    /// The answer on the wire.
    pub(crate) fn render(&self, request_id: Option<&str>) -> Response {
        #[derive(Serialize)]
        struct Document<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            request_id: Option<&'a str>,
            #[serde(flatten)]
            members: &'a Map<String, Value>,
        }
        let body = serde_json::to_vec(&Document {
            r#type: format!("urn:problem:{}", self.slug),
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail.as_deref(),
            request_id,
            members: &self.members,
        });
        let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let mut response = (self.status, [content_type], body.unwrap_or_default()).into_response();
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
        }
        response
    }
}

/// The problem itself travels along, for the edge to log it and to put the request's id into it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render(None);
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Unavailable(_) => Self::unavailable(error),
            StoreError::TooLarge(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large")
                    .caused_by(error)
            }
            StoreError::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, "not-found", "Not found"),
            StoreError::CauseReused { .. } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The key was used before",
            )
            .detail("This Idempotency-Key was given with another request; use a new one")
            .caused_by(error),
            _ => Self::internal(error),
        }
    }
}

impl From<InvalidId> for Problem {
    fn from(error: InvalidId) -> Self {
        Self::invalid(error.to_string())
    }
}

impl<R> ExecuteError<R> {
    /// The problem that a client is told; what a refusal by the rules means is the service's to say.
    pub fn or_problem(self, rejection: impl FnOnce(R) -> Problem) -> Problem {
        match self {
            Self::Rejected(reason) => rejection(reason),
            Self::VersionMismatch { expected, actual } => {
                Problem::new(StatusCode::PRECONDITION_FAILED, "version-mismatch", "It has changed in between")
                    .detail(format!("{expected} was expected, but it is at version {actual}"))
                    .with("version", actual)
            }
            Self::Conflict { attempts } => {
                Problem::unavailable(anyhow::anyhow!("other writers came first {attempts} times"))
            }
            Self::Store(error) => error.into(),
        }
    }
}

/// `store.execute(…).await.or_problem(|rejection| …)?`
pub trait OrProblem<T, R> {
    /// Turns the error into what a client is told.
    fn or_problem(self, rejection: impl FnOnce(R) -> Problem) -> Result<T, Problem>;
}

impl<T, R> OrProblem<T, R> for Result<T, ExecuteError<R>> {
    fn or_problem(self, rejection: impl FnOnce(R) -> Problem) -> Result<T, Problem> {
        self.map_err(|error| error.or_problem(rejection))
    }
}
