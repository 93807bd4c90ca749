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
    /// The stream takes nothing: it is full or sealed. Nothing was stored, and trying again soon will not help.
    #[error("the stream takes nothing more: {0}")]
    Closed(String),
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

/// Reads a publish acknowledgement. An error comes in the same document, with a sequence of 0. What is neither is not the
/// server's: somebody else listens on the subject and was faster.
fn read_ack(payload: &[u8]) -> Result<Ack, PublishFailure> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Answer {
        seq: u64,
        duplicate: bool,
        error: Option<ApiError>,
    }
    let unknown = |what: String| PublishFailure::Unknown(format!("not a publish acknowledgement: {what}"));
    let answer: Answer = serde_json::from_slice(payload).map_err(|error| unknown(error.to_string()))?;
    match answer {
        Answer { error: Some(error), .. } => Err(failure(&error)),
        Answer { seq: 0, .. } => Err(unknown("no sequence".to_owned())),
        Answer { seq, duplicate, .. } => Ok(Ack { sequence: seq, duplicate }),
    }
}

/// What an error means for the one who publishes. (The codes are in nats-server's `server/errors.json`.)
fn failure(error: &ApiError) -> PublishFailure {
    let text = format!("{} ({})", error.description, error.err_code);
    match (error.err_code, error.code) {
        // wrong last sequence, as found by the leader before and while another append is in flight;
        // and a batch of which a message is stored already
        (10071 | 10164 | 10201, _) => PublishFailure::Conflict,
        // a message, a header block or a batch exceeds its maximum
        (10054 | 10097 | 10199, _) => PublishFailure::TooLarge(text),
        // a message of the batch was lost; the same message id is being stored
        (10176 | 10158, _) => PublishFailure::Unknown(text),
        // insufficient resources, insufficient storage, a limit of the stream is reached, the stream is sealed
        (10023 | 10047 | 10077 | 10109, _) => PublishFailure::Closed(text),
        // expected last sequence not ready, too many requests or batches, no leader, no space: the server's trouble
        (_, 429 | 500..) => PublishFailure::Unavailable(text),
        _ => PublishFailure::Refused(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server answered, and what follows.
    fn after(code: u16, err_code: u32) -> &'static str {
        let body = format!(
            r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"x"}},"stream":"EVENTS","seq":0}}"#
        );
        match read_ack(body.as_bytes()).unwrap_err() {
            PublishFailure::Conflict => "decide again",
            PublishFailure::Unknown(_) | PublishFailure::Unavailable(_) => "retry and compare by id",
            PublishFailure::TooLarge(_) => "too large",
            PublishFailure::Closed(_) => "an operator must act",
            PublishFailure::Refused(_) | PublishFailure::Misplaced(_) => "refused",
        }
    }

    #[test]
    fn each_error_of_a_publish_leads_to_what_helps() {
        for (code, err_code, follows) in [
            (400, 10071, "decide again"),            // wrong last sequence: 5
            (400, 10164, "decide again"),            // wrong last sequence
            (400, 10201, "decide again"),            // batch contains a duplicate message id
            (400, 10176, "retry and compare by id"), // batch is incomplete and was abandoned
            (409, 10158, "retry and compare by id"), // duplicate message id is in process
            (503, 10163, "retry and compare by id"), // expected last sequence per subject not ready
            (429, 10167, "retry and compare by id"), // too many requests
            (429, 10210, "retry and compare by id"), // too many open batches
            (503, 10008, "retry and compare by id"), // JetStream temporarily unavailable
            (500, 10009, "retry and compare by id"), // not the leader
            (503, 10023, "an operator must act"),    // insufficient resources
            (500, 10028, "retry and compare by id"), // insufficient memory
            (500, 10047, "an operator must act"),    // insufficient storage
            (503, 10077, "an operator must act"),    // the store failed, or is full
            (500, 10118, "retry and compare by id"), // the stream is offline
            (400, 10054, "too large"),               // message size exceeds maximum
            (400, 10097, "too large"),               // header size exceeds maximum
            (400, 10199, "too large"),               // batch is too large
            (400, 10060, "refused"),                 // expected stream does not match
            (400, 10070, "refused"),                 // wrong last message id
            (400, 10109, "an operator must act"),    // the stream is sealed
            (400, 10174, "refused"),                 // batches are disabled
            (400, 10175, "refused"),                 // batch sequence is missing
            (400, 10177, "refused"),                 // unsupported header in a batch
            (400, 10179, "refused"),                 // invalid batch id
            (400, 10188, "refused"),                 // schedules are disabled
            (400, 10189, "refused"),                 // the schedule's pattern is invalid
            (400, 10193, "refused"),                 // expected last sequence per subject invalid
            (400, 10200, "refused"),                 // invalid batch commit
        ] {
            assert_eq!(after(code, err_code), follows, "{err_code}");
        }
    }

    #[test]
    fn what_is_no_acknowledgement_leaves_the_outcome_unknown() {
        for answer in ["", "OK", "{}", "[]", r#"{"stream":"EVENTS"}"#, r#"{"seq":-1}"#] {
            let failure = read_ack(answer.as_bytes()).unwrap_err();
            assert!(matches!(failure, PublishFailure::Unknown(_)), "{answer}: {failure}");
        }
    }
}
