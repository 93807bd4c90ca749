//! One message to a stream, and the server's acknowledgement.

use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderName, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::{Client, Request, StatusCode, Subject};
use bytes::Bytes;
use serde::Deserialize;

use crate::Cause;
use crate::envelope::CONTENT_TYPE;

/// The subject whose last sequence an append expects. (async-nats has no constant for it; nats-server 2.11.)
const CHECK_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// A message to be published.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) subject: Subject,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

impl Outgoing {
    /// An event under its message id, as part of its cause's trace.
    pub(crate) fn event(
        subject: impl Into<Subject>,
        message_id: &str,
        cause: &Cause,
        payload: impl Into<Bytes>,
    ) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, message_id);
        headers.insert(const { HeaderName::from_static("content-type") }, CONTENT_TYPE);
        if let Some(trace) = cause.trace() {
            trace.write(&mut headers);
        }
        Self { subject: subject.into(), headers, payload: payload.into() }
    }

    /// The same, stored only if nothing is stored on `check`.
    pub(crate) fn only_if_empty(mut self, check: &str) -> Self {
        self.headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        self.headers.insert(CHECK_SUBJECT, check);
        self
    }
}

/// The server's acknowledgement: the message is stored.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) sequence: u64,
    /// It was stored before, under the same message id; `sequence` is the first one's.
    pub(crate) duplicate: bool,
}

/// Why a publish was not acknowledged, by what its sender does next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishFailure {
    /// The expectation did not hold: nothing was stored.
    #[error("another write came first")]
    Conflict,
    /// Perhaps stored, perhaps not: try again under the same id.
    #[error("no answer: {0}")]
    Unknown(String),
    /// Nothing was stored now; trying again may help.
    #[error("not available: {0}")]
    Unavailable(String),
    /// Nothing was stored, and nothing will be.
    #[error("refused: {0}")]
    Refused(String),
    /// An aggregate decided an event of another entity. Nothing was sent.
    #[error("{0}")]
    Misplaced(String),
    /// Too large for the server or the stream.
    #[error("too large: {0}")]
    TooLarge(String),
}

pub(crate) async fn publish_once(
    client: &Client,
    message: Outgoing,
    wait: Duration,
) -> Result<Ack, PublishFailure> {
    use async_nats::client::RequestErrorKind;
    // The time limit is ours: the client's own starts only when the request has left its queue.
    let Outgoing { subject, headers, payload } = message;
    let request = Request::new().headers(headers).payload(payload).timeout(None);
    let no_stream = || PublishFailure::Unavailable(format!("no stream takes {subject}"));
    let answer = tokio::time::timeout(wait, client.send_request(subject.clone(), request))
        .await
        .map_err(|elapsed| PublishFailure::Unknown(elapsed.to_string()))?
        .map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => no_stream(),
            RequestErrorKind::MaxPayloadExceeded => PublishFailure::TooLarge(error.to_string()),
            RequestErrorKind::InvalidSubject => PublishFailure::Refused(error.to_string()),
            _ => PublishFailure::Unknown(error.to_string()),
        })?;
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(no_stream());
    }
    read_ack(&answer.payload)
}

/// An error of the JetStream API.
#[derive(Default, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) code: u16,
    #[serde(default)]
    pub(super) err_code: u32,
    #[serde(default)]
    pub(super) description: String,
}

/// Reads a publish acknowledgement. An error comes in the same document, with a sequence of 0.
fn read_ack(payload: &[u8]) -> Result<Ack, PublishFailure> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        seq: u64,
        #[serde(default)]
        duplicate: bool,
        error: Option<ApiError>,
    }
    let answer: Answer = serde_json::from_slice(payload)
        .map_err(|error| PublishFailure::Refused(format!("not a publish acknowledgement: {error}")))?;
    let Some(error) = answer.error else {
        return Ok(Ack { sequence: answer.seq, duplicate: answer.duplicate });
    };
    let text = format!("{} ({})", error.description, error.err_code);
    Err(match error.err_code {
        // wrong last sequence, as found by the leader before and while another append is in flight;
        // and a batch of which a message is stored already
        10071 | 10164 | 10201 => PublishFailure::Conflict,
        // message size exceeds maximum allowed, header size exceeds maximum allowed
        10054 | 10097 => PublishFailure::TooLarge(text),
        // expected last sequence not ready, too many requests; 503 and 429 in general
        _ if matches!(error.code, 429 | 503) => PublishFailure::Unavailable(text),
        _ => PublishFailure::Refused(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_conflict_codes_are_conflicts() {
        for code in [10071, 10164, 10201] {
            let body = format!(
                r#"{{"error":{{"code":400,"err_code":{code},"description":"x"}},"stream":"EVENTS","seq":0}}"#
            );
            assert!(matches!(read_ack(body.as_bytes()), Err(PublishFailure::Conflict)), "{code}");
        }
    }
}
