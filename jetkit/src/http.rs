//! The HTTP edge: what every route of every service has in common. It translates and decides nothing.
//!
//! Errors are `application/problem+json` ([`Problem`], RFC 9457). Requests come in through [`Body`], [`Path`] and
//! [`Query`], which refuse with a problem; writes carry a [`RequestCause`] and perhaps [`IfMatch`], and answer
//! [`Versioned`]; reads may wait for a [`MinSequence`]; lists take a [`PageQuery`] and answer a [`Page`], with a [`Cursor`]
//! to go on with;
//! a history is answered as asked for in a [`HistoryRequest`]: as a list of [`HistoryEntry`]s, or live.
//!
//! Handlers say in a `#[utoipa::path]` what they take and answer; [`document`] makes the OpenAPI document from that. A
//! documented route refuses query parameters that its document does not name.
//!
//! A service hands its routes to [`crate::Service::serve`], which puts [`complete`] around them. A test calls
//! them through `testing::Routes` and needs no socket.

mod edge;
mod extract;
mod history;
mod html;
mod live;
mod openapi;
mod page;
mod problem;
#[cfg(feature = "read-models")]
mod read;
mod schema;
mod write;

pub use crate::page::{Cursor, CursorError, Page, PageQuery};
#[cfg(feature = "service")]
pub(crate) use edge::complete_until;
pub use edge::{MAX_BODY_BYTES, complete};
#[cfg(feature = "service")]
pub(crate) use extract::refuse_byte_order_mark;
pub use extract::{Body, MinSequence, Object, Path, Query};
pub use history::{EntryMetadata, HistoryEntry};
pub use html::html_page;
pub use live::{History, HistoryRequest};
#[cfg(feature = "service")]
pub(crate) use openapi::pages;
pub use openapi::{HttpApi, Routes, document};
pub use problem::{OrProblem, Problem};
pub use write::{IfMatch, RequestCause, Versioned};
