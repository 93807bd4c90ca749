//! A decision, on its way to the log.

use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::header::HeaderMap;

use super::EventStore;
use crate::log::{Ack, Outgoing, PublishFailure};
use crate::{Aggregate, Cause, EntityId, EventId, EventSet, subject};

impl<A: Aggregate> EventStore<A> {
    /// Appends the events of one decision after `version`: one message, or one atomic batch. The first one's id is known.
    pub(super) async fn append(
        &self,
        id: &EntityId,
        version: u64,
        events: &[A::Event],
        cause: &Cause,
        first_id: &EventId,
    ) -> Result<(Vec<EventId>, Ack), PublishFailure> {
        let mut ids = Vec::with_capacity(events.len());
        let mut messages = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            let event_id = match index {
                0 => first_id.clone(),
                _ => cause.event_id(A::ENTITY, id, index),
            };
            let (event_type, _) = event.kind();
            if event.entity_id() != id {
                let of = event.entity_id();
                return Err(PublishFailure::Misplaced(format!("a {event_type} of {of}, decided on {id}")));
            }
            let version = version + index as u64 + 1;
            let body = event
                .encode(&cause.metadata(self.log.source(), event.kind(), event_id.clone()))
                .map_err(|error| PublishFailure::Refused(error.to_string()))?;
            let subject = subject::event(event_type, id, version);
            messages.push(
                Outgoing::event(subject, &cause.message_id(A::ENTITY, id, &event_id), cause, body)
                    .only_if_empty(&subject::of_version(A::ENTITY, id, version)),
            );
            ids.push(event_id);
        }
        let ack = match (messages.pop(), messages) {
            (Some(message), others) if others.is_empty() => {
                self.log.publish_once(message, Duration::MAX).await?
            }
            (Some(last), others) => self.publish_batch(others, last).await?,
            (None, _) => return Err(PublishFailure::Refused("an empty batch".to_owned())),
        };
        Ok((ids, ack))
    }

    /// Stores all messages or none (ADR-50, atomic batch publish).
    async fn publish_batch(&self, others: Vec<Outgoing>, last: Outgoing) -> Result<Ack, PublishFailure> {
        let batch = EventId::generate();
        let with_place = |mut headers: HeaderMap, place: usize| {
            headers.insert("Nats-Batch-Id", batch.as_str());
            headers.insert("Nats-Batch-Sequence", place.to_string());
            headers
        };
        let messages = others.len() + 1;
        for (index, Outgoing { subject, headers, payload }) in others.into_iter().enumerate() {
            self.log
                .client()
                .publish_with_headers(subject, with_place(headers, index + 1), payload)
                .await
                .map_err(|error| match error.kind() {
                    PublishErrorKind::MaxPayloadExceeded => PublishFailure::TooLarge(error.to_string()),
                    PublishErrorKind::InvalidSubject => PublishFailure::Refused(error.to_string()),
                    PublishErrorKind::Send => PublishFailure::Unavailable(error.to_string()),
                })?;
        }
        let mut headers = with_place(last.headers, messages);
        headers.insert("Nats-Batch-Commit", "1");
        self.log.publish_once(Outgoing { headers, ..last }, Duration::MAX).await
    }
}
