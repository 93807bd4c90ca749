//! Telling the server what became of each message.

use std::time::Duration;

use async_nats::{Client, Request, Subject};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::health::Operation;

/// How many settlements go out before one of them is asked to be confirmed.
const BATCH: usize = 1024;

/// How long settlements are gathered, so that a confirmation vouches for many.
const GATHERED_FOR: Duration = Duration::from_millis(2);

/// How long a confirmation, or a place in the client's queue, is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What to tell the server about one message.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) reply: Subject,
    pub(super) verdict: Verdict,
}

#[derive(Debug)]
pub(super) enum Verdict {
    Ack,
    /// Deliver it again after a while, to whichever replica.
    Nak(Duration),
    /// Do not deliver it again: it is a dead letter.
    Term,
}

impl Verdict {
    fn body(&self) -> Bytes {
        match self {
            Self::Ack => Bytes::from_static(b"+ACK"),
            Self::Nak(delay) => format!(r#"-NAK {{"delay":{}}}"#, delay.as_nanos()).into(),
            Self::Term => Bytes::from_static(b"+TERM"),
        }
    }
}

/// Settles until the sender is gone. Acks are plain and pipelined; the last of each batch goes by request: a
/// connection's messages are handled in order, so its answer vouches for the ones before. A lost ack costs a
/// redelivery, which the idempotency set answers.
pub(super) async fn settle_all(
    client: Client,
    consumer: String,
    settling: Operation,
    mut settlements: mpsc::UnboundedReceiver<Settlement>,
) {
    let lost = metrics::counter!("jetkit_lost_acks_total", "consumer" => consumer.clone());
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(first) = settlements.recv().await {
        batch.push(first);
        tokio::time::sleep(GATHERED_FOR).await;
        while batch.len() < BATCH
            && let Ok(more) = settlements.try_recv()
        {
            batch.push(more);
        }
        let last = batch.pop();
        let sent = tokio::time::timeout(ANSWER_WITHIN, async {
            for Settlement { reply, verdict } in batch.drain(..) {
                client.publish(reply, verdict.body()).await.map_err(|error| error.to_string())?;
            }
            if let Some(Settlement { reply, verdict }) = last {
                let request = Request::new().payload(verdict.body()).timeout(None);
                client.send_request(reply, request).await.map_err(|error| error.to_string())?;
            }
            Ok::<(), String>(())
        });
        let failure = match sent.await {
            Ok(Ok(())) => {
                settling.succeeded();
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => format!("no answer within {ANSWER_WITHIN:?}"),
        };
        batch.clear();
        lost.increment(1);
        settling.failed(format_args!("acknowledgements are refused or lost: {failure}"));
        tracing::warn!(
            consumer.name = consumer,
            error = failure,
            "acks were refused or lost: missing permission on $JS.ACK, or the connection broke; messages come again",
        );
    }
}
