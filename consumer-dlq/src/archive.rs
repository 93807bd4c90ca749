//! The dead letters: read from what is kept of them and from the stream, sent back, dismissed.

use std::time::Duration;

use anyhow::Context;
use async_nats::Client;
use bytes::Bytes;
use jetkit::http::MinSequence;
use jetkit::projection::{ReadError, Tables, rusqlite};
use jetkit::{Behind, DeadLetter, OpenCircuit, ReadModel, RedriveError, Seen, open_circuits};

use crate::dead_letters::DeadLetters;

/// How long a write waits for its own news to come back before it answers anyway.
const NEWS_WITHIN: Duration = Duration::from_secs(2);

/// Everything on the stream `DLQ`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Archive {
    client: Client,
    letters: ReadModel<DeadLetters>,
}

impl Archive {
    /// An archive of what is kept in `letters`.
    pub fn new(client: Client, letters: ReadModel<DeadLetters>) -> Self {
        Self { client, letters }
    }

    /// Waits until a position of the stream is known.
    pub async fn at(&self, min_sequence: MinSequence) -> Result<&Self, Behind> {
        self.letters.at(min_sequence).await?;
        Ok(self)
    }

    /// Reads what is known now.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Tables<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Seen<T>, ReadError> {
        self.letters.read(read).await
    }

    /// The dead letter at that position of the stream, whole; [`None`] if it is not there any more.
    pub async fn letter(&self, dlq_sequence: u64) -> anyhow::Result<Option<DeadLetter>> {
        DeadLetter::at(&self.client, dlq_sequence).await.context("reading the dead letter")
    }

    /// Sends it back to its consumer, with another payload if one is given. Answers with the position of the request:
    /// whoever wants to read of it waits with [`Archive::heard_of`], once for many.
    pub async fn redrive(&self, letter: &DeadLetter, payload: Option<Bytes>) -> Result<u64, RedriveError> {
        letter.redrive(&self.client, payload).await
    }

    /// The circuits that are open now, as the server knows them.
    pub async fn circuits(&self) -> anyhow::Result<Vec<OpenCircuit>> {
        open_circuits(&self.client).await
    }

    /// Records that nobody will try it again.
    pub async fn dismiss(&self, letter: &DeadLetter) -> anyhow::Result<()> {
        let sequence = letter.dismiss(&self.client).await?;
        self.heard_of(sequence).await;
        Ok(())
    }

    /// Waits until what was just written is known, so that whoever wrote it reads it. It is stored either way.
    pub async fn heard_of(&self, sequence: u64) {
        if self.letters.at_least(sequence, NEWS_WITHIN).await.is_err() {
            tracing::warn!(stream.sequence = sequence, "stored, but not heard of yet");
        }
    }
}
