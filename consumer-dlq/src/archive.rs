//! The dead letters as they are on the stream: followed, read, sent back, dismissed.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use async_nats::Client;
use async_nats::jetstream;
use bytes::Bytes;
use eventkit::{CheckHandle, DLQ, DeadLetter, Followed, FollowedMessage, Follower};
use tokio::sync::watch;

use crate::dead_letters::{DeadLetters, News};

/// How long a write waits for its own news to come back before it answers anyway.
const NEWS_WITHIN: Duration = Duration::from_secs(2);

/// Everything on the stream `DLQ`. Cheap to clone; clones share what is known.
#[derive(Clone)]
pub struct Archive {
    client: Client,
    known: Arc<Known>,
}

struct Known {
    letters: RwLock<DeadLetters>,
    /// The position on the stream up to which everything is known.
    watermark: watch::Sender<u64>,
}

impl Archive {
    /// An archive that knows nothing yet: [`Archive::follow`] tells it.
    pub fn new(client: Client) -> Self {
        let known = Known { letters: RwLock::default(), watermark: watch::channel(0).0 };
        Self { client, known: Arc::new(known) }
    }

    /// Follows the stream for ever, and reports to `check` when everything on it is known.
    pub async fn follow(self, check: CheckHandle) -> anyhow::Result<()> {
        let mut follower = Follower::new(self.client.clone(), DLQ, vec![], 1);
        loop {
            match follower.next().await {
                Followed::Message(message) => self.take(message),
                Followed::CaughtUp => check.set_ready(true, "caught up"),
            }
        }
    }

    /// Reads what is known now.
    pub fn read<T>(&self, f: impl FnOnce(&DeadLetters) -> T) -> T {
        f(&self.known.letters.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The dead letter at that position of the stream, whole; [`None`] if it is not there any more.
    pub async fn letter(&self, dlq_sequence: u64) -> anyhow::Result<Option<DeadLetter>> {
        use jetstream::stream::RawMessageErrorKind;
        let stream = jetstream::new(self.client.clone())
            .get_stream_no_info(DLQ)
            .await
            .context("finding the stream")?;
        match stream.get_raw_message(dlq_sequence).await {
            Ok(message) => Ok(Some(DeadLetter::decode(&message.headers, message.payload)?)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error).context("reading the dead letter"),
        }
    }

    /// Sends it back to its consumer, with another payload if one is given.
    pub async fn redrive(&self, letter: &DeadLetter, payload: Option<Bytes>) -> anyhow::Result<()> {
        let sequence = letter.redrive(&self.client, payload).await?;
        self.heard_of(sequence).await;
        Ok(())
    }

    /// Records that nobody will try it again.
    pub async fn dismiss(&self, letter: &DeadLetter) -> anyhow::Result<()> {
        let sequence = letter.dismiss(&self.client).await?;
        self.heard_of(sequence).await;
        Ok(())
    }

    /// Waits until what was just written is known, so that whoever wrote it reads it. It is stored either way.
    async fn heard_of(&self, sequence: u64) {
        let mut watermark = self.known.watermark.subscribe();
        let heard = watermark.wait_for(|at| *at >= sequence);
        if tokio::time::timeout(NEWS_WITHIN, heard).await.is_err() {
            tracing::warn!(stream.sequence = sequence, "stored, but not heard of yet");
        }
    }

    /// A message that nobody here wrote is left out: it is on the stream for whoever wants to look.
    fn take(&self, FollowedMessage { message, sequence, .. }: FollowedMessage) {
        let headers = message.headers.unwrap_or_default();
        match (News::on(&message.subject), DeadLetter::decode(&headers, message.payload)) {
            (Some(news), Ok(letter)) => {
                let mut letters = self.known.letters.write().unwrap_or_else(PoisonError::into_inner);
                letters.apply(sequence, news, &letter);
            }
            (None, _) => {
                tracing::warn!(subject = %message.subject, stream.sequence = sequence, "left out: unknown subject");
            }
            (_, Err(error)) => tracing::warn!(%error, stream.sequence = sequence, "left out"),
        }
        self.known.watermark.send_replace(sequence);
    }
}
