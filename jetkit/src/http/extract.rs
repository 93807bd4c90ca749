//! What a handler takes from a request. Each refuses with a [`Problem`] that says what is wrong and where.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::edge::MAX_BODY_BYTES;
use super::problem::Problem;

/// A body that is a JSON object. 400 if it is not JSON, 413 if it is too large, 422 if it has not the shape of a `T`.
///
/// Whether unknown fields are refused is `T`'s to say: `#[serde(deny_unknown_fields)]`. A struct inside it goes into an
/// [`Object`]. A field that is given twice is refused. The content type is not asked for: `curl -d` sends the one of a form.
#[derive(Debug, Clone, Copy)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Self::read(&Bytes::from_request(request, state).await.map_err(unreadable)?)
    }
}

impl<T: DeserializeOwned> Body<T> {
    /// Reads a body that a handler has taken as bytes, because it may be left out.
    pub fn read(bytes: &[u8]) -> Result<Self, Problem> {
        refuse_byte_order_mark(bytes)?;
        if bytes.trim_ascii().is_empty() {
            return Err(Problem::bad_request("A body is needed: a JSON object"));
        }
        let Json(body) = Json::from_bytes(bytes).map_err(|error| match error {
            JsonRejection::JsonDataError(error) => Problem::invalid(reason(&error.body_text())),
            other => Problem::bad_request(reason(&other.body_text())),
        })?;
        if bytes.trim_ascii_start().first() == Some(&b'[') {
            // serde takes an array for the fields in their order.
            return Err(Problem::invalid("The body must be a JSON object"));
        }
        Ok(Self(body))
    }
}

/// Refuses what begins with a byte order mark, by its name: no editor shows it, and JSON has none (RFC 8259, section 8.1).
pub(crate) fn refuse_byte_order_mark(bytes: &[u8]) -> Result<(), Problem> {
    let encoding = match bytes {
        [0xef, 0xbb, 0xbf, ..] => "UTF-8",
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => "UTF-32",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16",
        _ => return Ok(()),
    };
    Err(Problem::bad_request(format!(
        "The body begins with a byte order mark ({encoding}): leave it out, and send JSON in UTF-8"
    )))
}

pub(super) fn unreadable(error: BytesRejection) -> Problem {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large")
            .detail(format!("A body has at most {MAX_BODY_BYTES} bytes"));
    }
    Problem::bad_request("The body could not be read").caused_by(error)
}

/// Without the parts that name Rust.
fn reason(text: &str) -> String {
    let known = [
        "Failed to deserialize the JSON body into the target type: ",
        "Failed to parse the request body as JSON: ",
        "Failed to deserialize query string: ",
        "Invalid URL: ",
    ];
    let reason = known.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    let plain = [
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected u64", "expected a whole number from 0 to 18446744073709551615"),
    ];
    plain.iter().fold(reason.to_owned(), |reason, (rust, plain)| reason.replace(rust, plain))
}

/// A `T` inside a [`Body`] that must be a JSON object. serde would take an array too, for the fields in their order.
#[derive(Debug, Clone, Copy)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, fields: M) -> Result<T, M::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

impl<T: PartialSchema> PartialSchema for Object<T> {
    fn schema() -> RefOr<Schema> {
        T::schema()
    }
}

impl<T: ToSchema> ToSchema for Object<T> {
    fn name() -> Cow<'static, str> {
        T::name()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::schemas(schemas);
    }
}

/// The variables of the route. 422 if they have not the form of a `T`: an [`crate::EntityId`] with a dot in it.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(error) if error.status().is_server_error() => Err(Problem::internal(error)),
            Err(error) => Err(Problem::invalid(reason(&error.body_text()))),
        }
    }
}

/// The query string. 400 if it has not the form of a `T`.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(error) => Err(Problem::bad_request(reason(&error.body_text()))),
        }
    }
}

/// `?min_sequence=`: the position on the log that the answer must include, as an earlier write's `Event-Sequence` told.
/// Give it to [`crate::ReadModel::at`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinSequence(pub Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for MinSequence {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(Position { min_sequence }) = Query::from_request_parts(parts, state).await?;
        Ok(Self(min_sequence))
    }
}

impl From<MinSequence> for Option<u64> {
    fn from(MinSequence(sequence): MinSequence) -> Self {
        sequence
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Position {
    /// The position on the log that the answer must include: an earlier answer's Event-Sequence. 503 if it is not reached
    /// within five seconds
    #[param(minimum = 0, example = 1)]
    min_sequence: Option<u64>,
}

impl IntoParams for MinSequence {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        Position::into_params(place)
    }
}
