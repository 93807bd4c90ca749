//! Writes over HTTP: safe to repeat, conditional if wanted, and answered with where the write stands.

use axum::Json;
use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::problem::Problem;
use crate::{Cause, EntityId, EventId, ExpectedVersion, TraceContext};

/// Namespace of the causes computed from idempotency keys. Changing it makes every repeat after it a new request.
const NAMESPACE: Uuid = Uuid::from_u128(0x0f5b_8d86_9a1e_4f4e_8c0b_1f60_5d2e_93c7);

/// The longest `Idempotency-Key`.
const MAX_KEY_LEN: usize = 128;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The body of a request that has an `Idempotency-Key`, as [`super::complete`] puts it into the extensions.
#[derive(Debug, Clone)]
pub(super) struct WholeBody(pub(super) Bytes);

/// Why a write is done: this request. With an `Idempotency-Key` (1 to 128 visible ASCII characters) the same method,
/// path and key are always the same cause, so that a repeated request is carried out once; without, each is a new one.
///
/// What is recorded names the body too, byte by byte, by a hash: the same key with another body is refused, 422
/// `idempotency-key-reused`, by whatever entity has carried out the first.
#[derive(Debug, Clone)]
pub struct RequestCause(pub Cause);

impl RequestCause {
    /// The id of an entity that this request creates: a repeat with the same `Idempotency-Key` creates the same one.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "a derived id is a UUID: it cannot panic"
    )]
    pub fn derive_entity_id(&self) -> EntityId {
        EntityId::new(self.0.derive("the entity created")).expect("a UUID is an identifier")
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestCause {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut keys = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        match (keys.next(), keys.next()) {
            (None, _) => Ok(Cause::request(EventId::generate())),
            (Some(key), None) => legal(key).map(|key| keyed(parts, key)),
            (Some(_), Some(_)) => Err(Problem::bad_request("Idempotency-Key is given twice")),
        }
        .map(|cause| Self(cause.traced(TraceContext::of_request(&parts.headers))))
    }
}

fn keyed(parts: &Parts, key: &str) -> Cause {
    // As routes see it: `/accounts/%6cate` is `/accounts/late`.
    let path = percent_decode_str(parts.uri.path()).decode_utf8_lossy();
    let name = format!("{} {path}\n{key}", parts.method);
    let id = Uuid::new_v5(&NAMESPACE, name.as_bytes());
    let body = parts.extensions.get::<WholeBody>().map_or(&[][..], |WholeBody(body)| body);
    Cause::request(id.into()).recorded_as(Uuid::new_v5(&id, body).into())
}

fn legal(key: &HeaderValue) -> Result<&str, Problem> {
    let legal =
        |key: &&str| (1..=MAX_KEY_LEN).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    key.to_str()
        .ok()
        .filter(legal)
        .ok_or_else(|| Problem::bad_request("Idempotency-Key must be 1 to 128 visible ASCII characters"))
}

/// `If-Match` (RFC 9110, section 13.1.1): the versions that the entity may be at, as earlier answers' `ETag`s told; `*` is
/// any of an entity that exists. Give it to [`crate::EventStore::execute_at`]. The comparison is strong: a weak tag, or one
/// that is none of ours, matches nothing. 400 if it is no list of tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfMatch(pub ExpectedVersion);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let lines: Vec<_> = parts.headers.get_all(header::IF_MATCH).iter().collect();
        if lines.is_empty() {
            return Ok(Self(ExpectedVersion::Any));
        }
        // Several lines are one list.
        let list = lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>().join(&b',');
        if list.trim_ascii() == b"*" {
            return Ok(Self(ExpectedVersion::Existing));
        }
        let versions = versions_in(&list).ok_or_else(|| {
            Problem::bad_request(r#"If-Match must be * or versions in quotes, as in ETag: "3", "4""#)
        })?;
        Ok(Self(ExpectedVersion::OneOf(versions)))
    }
}

/// The versions that a list of entity tags names strongly; [`None`] if it is no such list, or an empty one.
fn versions_in(mut list: &[u8]) -> Option<Vec<u64>> {
    let (mut versions, mut is_empty) = (Vec::new(), true);
    loop {
        list = list.trim_ascii_start();
        match list {
            [] => return (!is_empty).then_some(versions),
            [b',', rest @ ..] => {
                list = rest;
                continue;
            }
            _ => is_empty = false,
        }
        let (is_weak, quoted) = match list.strip_prefix(b"W/") {
            Some(tag) => (true, tag),
            None => (false, list),
        };
        let tag = quoted.strip_prefix(b"\"")?;
        let end = tag.iter().position(|byte| *byte == b'"')?;
        let (tag, rest) = (&tag[..end], tag[end + 1..].trim_ascii_start());
        if !tag.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)) {
            return None;
        }
        versions.extend(str::from_utf8(tag).ok().filter(|_| !is_weak).and_then(version_in_tag));
        list = match rest {
            [] | [b',', ..] => rest,
            _ => return None,
        };
    }
}

/// The version of a tag of ours. Tags are compared character by character: `03` is not `3`.
fn version_in_tag(tag: &str) -> Option<u64> {
    version_of(tag).filter(|version| *version > 0 && version.to_string() == tag)
}

/// The highest version that is ever named.
pub(super) const MAX_VERSION: u64 = 999_999_999_999_999_999;

/// A version in a header, `^[0-9]{1,18}$` as the documents say. (A number's own parser would take `+4`.)
pub(super) fn version_of(digits: &str) -> Option<u64> {
    let legal = (1..=18).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    legal.then(|| digits.parse().ok())?
}

/// One entity as an answer, to a read or to a write: its body, its version as `ETag`, which a write takes as `If-Match`, and
/// the log position as `Event-Sequence`, which a read takes as `?min_sequence=`. An operation is documented with
/// `body = Versioned<…>`; [`super::document`] makes the body and the headers of that.
#[derive(Debug, Clone, ToSchema)]
pub struct Versioned<T> {
    #[schema(value_type = u16)]
    status: StatusCode,
    version: u64,
    sequence: u64,
    body: T,
}

impl<T> Versioned<T> {
    /// 200: the entity at that version, with the position on the log of its last event.
    pub fn ok(version: u64, sequence: u64, body: T) -> Self {
        Self { status: StatusCode::OK, version, sequence, body }
    }

    /// The same with 201: it was created.
    #[must_use]
    pub fn created(self) -> Self {
        Self { status: StatusCode::CREATED, ..self }
    }
}

impl<T: Serialize> IntoResponse for Versioned<T> {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", self.version)) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(HeaderName::from_static("event-sequence"), self.sequence.into());
        response
    }
}

impl IntoParams for RequestCause {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        #[derive(IntoParams)]
        #[into_params(parameter_in = Header)]
        #[expect(dead_code, reason = "describes the header")]
        struct Headers {
            /// Makes the request safe to repeat: with the same method, path, key and body it is carried out once, and the
            /// repeat gets the first answer. What was refused, and wrote nothing, is decided anew
            #[param(
                rename = "Idempotency-Key",
                pattern = "^[!-~]{1,128}$",
                min_length = 1,
                max_length = 128
            )]
            key: Option<String>,
        }
        Headers::into_params(place)
    }
}

impl IntoParams for IfMatch {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        #[derive(IntoParams)]
        #[into_params(parameter_in = Header)]
        #[expect(dead_code, reason = "describes the header")]
        struct Headers {
            /// The version that it must be at, in quotes: an earlier answer's ETag. Also a list of them, or `*`: any
            /// version, if it exists
            #[param(rename = "If-Match", pattern = r#"^(\*|"[0-9]{1,18}"(, "[0-9]{1,18}"){0,9})$"#)]
            tag: Option<String>,
        }
        Headers::into_params(place)
    }
}
