//! [`Routes`]: a service's routes, called as a client would, without a socket.

use std::fmt::Display;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use crate::http::complete;

/// Routes with everything around them that [`crate::Service::serve`] would put there.
#[derive(Debug, Clone)]
pub struct Routes(Router);

impl Routes {
    /// Completes these routes.
    pub fn new(routes: impl Into<crate::http::Routes>) -> Self {
        Self(complete(routes))
    }

    /// `GET`s a path, perhaps with a query.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    /// `POST`s a body: a [`Value`], or text exactly as it is written.
    pub async fn post(&self, path: &str, body: impl Display) -> Answer {
        self.send(Method::POST, path, &[], body).await
    }

    /// Sends anything with headers.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Display,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request.body(Body::from(body.to_string())).expect("a request that is one")).await
    }

    /// Sends a request.
    pub async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.0.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("the whole answer");
        let text = String::from_utf8(bytes.into()).expect("an answer in UTF-8");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, text, body }
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it is written.
    pub text: String,
    /// The body as JSON; `null` if it is not JSON.
    pub body: Value,
}

impl Answer {
    /// A header; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header in ASCII"))
    }

    /// Expects a problem of the type `urn:problem:<slug>`, with the request's id in it.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, slug: &str) {
        let problem = Value::from(format!("urn:problem:{slug}"));
        assert_eq!((self.status.as_u16(), &self.body["type"]), (status, &problem), "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(
            (&self.body["status"], &self.body["request_id"]),
            (&status.into(), &self.header("x-request-id").into())
        );
    }
}
