//! Waiting for a consumer to have handled what was published.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream::{LastRawMessageError, LastRawMessageErrorKind, Stream};

use super::eventually;

/// Waits until a durable has ended all messages that are on its subjects now: each is acknowledged, or is a dead letter. A
/// durable that is not there yet is waited for.
///
/// Messages count from the moment when the server says that it has stored them: publish with an acknowledgement before.
pub async fn handled(within: Duration, client: &Client, stream: &str, durable: &str) {
    let js = async_nats::jetstream::new(client.clone());
    eventually(within, || async {
        let stream = js.get_stream(stream).await.ok()?;
        let info = stream.consumer_info(durable).await.ok()?;
        has_handled_all(&stream, &info).await.ok()?.then_some(())
    })
    .await;
}

/// Returns whether a durable had ended, when `info` was read, all messages that are on its subjects now.
///
/// `num_pending` does not tell that: the server stores a message, and answers its publisher, a moment before the consumer
/// counts it. So what was delivered is compared with the last message of each subject.
pub async fn has_handled_all(stream: &Stream, info: &Info) -> Result<bool, LastRawMessageError> {
    let config = &info.config;
    let mut filters: Vec<_> = config.filter_subjects.iter().map(String::as_str).collect();
    if filters.is_empty() {
        filters.push(if config.filter_subject.is_empty() { ">" } else { &config.filter_subject });
    }
    for filter in filters {
        match stream.get_last_raw_message_by_subject(filter).await {
            Ok(last) if last.sequence > info.delivered.stream_sequence => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(info.num_ack_pending == 0)
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::consumer::pull::Config;
    use async_nats::jetstream::{self, stream};
    use futures::StreamExt;

    use super::*;
    use crate::testing::{NatsServer, SOON};

    #[tokio::test]
    async fn what_is_stored_is_not_handled_even_before_it_counts_as_pending() {
        let server = NatsServer::start().await;
        let js = jetstream::new(server.client().await);
        let config =
            stream::Config { name: "LAMPS".into(), subjects: vec!["lamp.>".into()], ..Default::default() };
        let lamps = js.create_stream(config).await.unwrap();
        let filters = vec!["lamp.lit.>".into(), "lamp.never.>".into()];
        let config =
            Config { durable_name: Some("c".into()), filter_subjects: filters, ..Default::default() };
        let durable = lamps.create_consumer(config).await.unwrap();
        let all = async || has_handled_all(&lamps, &lamps.consumer_info("c").await.unwrap()).await.unwrap();
        let store =
            async |subject: &'static str| js.publish(subject, "".into()).await.unwrap().await.unwrap();
        for round in 0..300 {
            assert!(all().await, "round {round}: nothing is left");
            store("lamp.lit.a.1").await;
            assert!(!all().await, "round {round}: it is not delivered");
            // One that waits: what a fetch finds is what is pending.
            let mut batch = durable.batch().max_messages(1).expires(SOON).messages().await.unwrap();
            let message = batch.next().await.unwrap().unwrap();
            assert!(!all().await, "round {round}: it is not acknowledged");
            message.double_ack().await.unwrap();
            store("lamp.fitted.a.1").await; // none of its own
        }
    }
}
