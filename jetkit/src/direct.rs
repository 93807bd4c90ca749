//! Direct gets (ADR-31): messages of a stream for one request, which any replica answers.
//!
//! A stored message may begin with any status line and have any headers, those of the server's answers among them. Behind
//! whatever headers it has, the server writes its stream, subject, sequence and time; a status of the server's has no
//! sequence. So an answer with a sequence is a message, and of each of these headers the last one is the server's.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::header::{NATS_SEQUENCE, NATS_SUBJECT, NATS_TIME_STAMP};
use async_nats::{Client, HeaderMap, Message, Request, Subject, Subscriber};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use serde::Serialize;

use crate::StoreError;

/// How long one request waits for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How often a message that is not found by its sequence is looked for: a replica may be a moment behind.
const LOOKS: u32 = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The most messages that one request brings (a limit of the server).
pub(crate) const MAX_READ: usize = 1024;

/// A message as its stream holds it.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    /// As stored, with those that the server has added.
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

/// Why an answer is no message.
enum NoMessage {
    /// The stream holds none, or no further one.
    NotThere,
    /// No stream answers: there is none, or its server is away.
    NobodyAnswers,
    /// Something else, in words.
    Said(String),
}

impl Got {
    fn read(answer: Message) -> Result<Self, NoMessage> {
        let of_server = |name| answer.headers.as_ref()?.get_last(name);
        let subject = of_server(NATS_SUBJECT).map(ToString::to_string);
        let sequence = of_server(NATS_SEQUENCE).and_then(|sequence| sequence.as_str().parse().ok());
        if let (Some(subject), Some(sequence)) = (subject, sequence) {
            let headers = answer.headers.unwrap_or_default();
            return Ok(Self { subject, sequence, headers, payload: answer.payload });
        }
        Err(match answer.status.map(|status| status.as_u16()) {
            Some(204 | 404) => NoMessage::NotThere,
            Some(503) => NoMessage::NobodyAnswers,
            status => {
                let (status, description) = (status.unwrap_or_default(), answer.description);
                NoMessage::Said(format!("status {status} {}", description.unwrap_or_default()))
            }
        })
    }

    /// When the server stored it.
    pub(crate) fn stored_at(&self) -> Option<DateTime<Utc>> {
        let time = self.headers.get_last(NATS_TIME_STAMP)?;
        Some(DateTime::parse_from_rfc3339(time.as_str()).ok()?.to_utc())
    }
}

impl NoMessage {
    /// [`None`] where there is no message; an error where that cannot be said.
    fn or_error(self) -> Result<Option<Got>, StoreError> {
        match self {
            Self::NotThere => Ok(None),
            Self::NobodyAnswers => Err(StoreError::unavailable("no stream answers")),
            Self::Said(what) => Err(StoreError::unavailable(what)),
        }
    }
}

/// The last message on a subject, which may have wildcards.
pub(crate) async fn last(client: &Client, stream: &str, subject: &str) -> Result<Option<Got>, StoreError> {
    one(client, format!("$JS.API.DIRECT.GET.{stream}.{subject}"), Bytes::new()).await
}

/// The same of a stream that may be deleted: where there is no stream, there is no message.
pub(crate) async fn last_note(
    client: &Client,
    stream: &str,
    subject: &str,
) -> Result<Option<Got>, StoreError> {
    let answer = answer(client, format!("$JS.API.DIRECT.GET.{stream}.{subject}"), Bytes::new()).await?;
    match Got::read(answer) {
        Err(NoMessage::NobodyAnswers) => Ok(None),
        read => read.map_or_else(NoMessage::or_error, |got| Ok(Some(got))),
    }
}

/// The first message on a subject. It costs the length of the stream: for repairs only.
pub(crate) async fn first(client: &Client, stream: &str, subject: &str) -> Result<Option<Got>, StoreError> {
    let query = serde_json::json!({ "seq": 1, "next_by_subj": subject }).to_string();
    one(client, format!("$JS.API.DIRECT.GET.{stream}"), query.into()).await
}

/// The message at a sequence that is known to be reached; [`None`] if it is not there any more.
pub(crate) async fn at(client: &Client, stream: &str, sequence: u64) -> Result<Option<Got>, StoreError> {
    let query = Bytes::from(serde_json::json!({ "seq": sequence }).to_string());
    let mut looks = 0;
    loop {
        let got = one(client, format!("$JS.API.DIRECT.GET.{stream}"), query.clone()).await?;
        if got.is_some() || looks == LOOKS {
            return Ok(got);
        }
        looks += 1;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The last message of every subject that matches one of `filters`, in stream order.
pub(crate) async fn last_of_each(
    client: &Client,
    stream: &str,
    filters: &[String],
) -> Result<Vec<Got>, StoreError> {
    #[derive(Serialize)]
    struct Query<'a> {
        multi_last: &'a [String],
        batch: usize,
    }
    let query = Query { multi_last: filters, batch: MAX_READ };
    let query = serde_json::to_vec(&query).map_err(StoreError::unavailable)?;
    let read = async {
        let request = format!("$JS.API.DIRECT.GET.{stream}").into();
        let mut answers = ask(client, request, query.into()).await?;
        let mut read = Vec::new();
        loop {
            match Got::read(next(&mut answers).await?) {
                Ok(got) => read.push(got),
                Err(end) => return end.or_error().map(|_| read),
            }
        }
    };
    tokio::time::timeout(ANSWER_WITHIN, read).await.map_err(StoreError::unavailable)?
}

async fn one(client: &Client, request: String, query: Bytes) -> Result<Option<Got>, StoreError> {
    Got::read(answer(client, request, query).await?).map_or_else(NoMessage::or_error, |got| Ok(Some(got)))
}

async fn answer(client: &Client, request: String, query: Bytes) -> Result<Message, StoreError> {
    let request = Subject::from(request);
    let asked = Request::new().payload(query.clone()).timeout(Some(ANSWER_WITHIN));
    match client.send_request(request.clone(), asked).await {
        // The client says so too when a stored message begins with that status, and keeps the message to itself.
        Err(error) if error.kind() == RequestErrorKind::NoResponders => {
            let mut answers = ask(client, request, query).await?;
            tokio::time::timeout(ANSWER_WITHIN, next(&mut answers)).await.map_err(StoreError::unavailable)?
        }
        answer => answer.map_err(StoreError::unavailable),
    }
}

/// Sends a request, all of whose answers come as they are.
async fn ask(client: &Client, request: Subject, query: Bytes) -> Result<Subscriber, StoreError> {
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await.map_err(StoreError::unavailable)?;
    client.publish_with_reply(request, inbox, query).await.map_err(StoreError::unavailable)?;
    Ok(answers)
}

async fn next(answers: &mut Subscriber) -> Result<Message, StoreError> {
    answers.next().await.ok_or_else(|| StoreError::unavailable("the connection was closed"))
}
