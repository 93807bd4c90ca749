//! What becomes of a message that waits for its retry and was let go of: it is read again when it is due.

use async_nats::Message;
use bytes::Bytes;
use chrono::Utc;
use tokio::time::Instant;

use super::super::held::{Away, fetch};
use super::super::pull::Arrival;
use super::super::{Delivery, GivenUp};
use super::{Id, Runtime, Stage, Written};
use crate::inbox::Turn;
use crate::jitter::jittered;
use crate::{FailureClass, StoreError};

impl Runtime {
    /// The time for a retry has come.
    pub(super) fn due(&mut self, id: Id) {
        if let Some(owned) = self.owned.get_mut(&id)
            && std::mem::take(&mut owned.kept_for_retry)
        {
            self.kept_for_retry -= owned.bytes;
        }
        self.ready.push_back(id);
    }

    /// Reads a message again that was let go of.
    pub(super) fn fetch(&mut self, id: Id, away: Away) {
        let Some(owned) = self.owned.get(&id) else { return };
        self.fetching += 1;
        self.held.take(owned.bytes);
        let fetched = fetch(self.client.clone(), id, away.subject.clone(), owned.reply.clone());
        self.writing.spawn(async move { Written::Fetched(id, Box::new((away, fetched.await))) });
    }

    /// Goes on with a message that was read again.
    pub(super) fn fetched(&mut self, id: Id, away: Away, message: Result<Option<Message>, StoreError>) {
        self.fetching -= 1;
        let error = match message {
            Ok(Some(message)) => {
                let Away { stored_at, .. } = away;
                let arrival = Arrival { message, stream: id.0, sequence: id.1, stored_at, delivered: 2 };
                let Some((_, delivery, again)) = self.read(arrival, Instant::now()) else { return };
                let Some(owned) = self.owned.get_mut(&id) else { return };
                owned.headers = again.headers;
                let delivery = Delivery { first_failed_at: away.first_failed_at, ..delivery };
                owned.stage = Stage::Waiting(delivery);
                return self.ready.push_front(id);
            }
            Ok(None) => return self.store_lost(id, away),
            Err(error) => error,
        };
        tracing::warn!(
            consumer.name = self.consumer.name,
            event.subject = away.subject.as_str(),
            event.sequence = id.1,
            %error,
            "an event cannot be read again for its retry; trying again"
        );
        let Some(owned) = self.owned.get_mut(&id) else { return };
        self.held.let_go(owned.bytes);
        owned.stage = Stage::Away(away);
        self.retries.insert(id, jittered(self.limits.retry_min));
    }

    /// Stores a dead letter without a body for a message that was deleted from its stream while it waited.
    fn store_lost(&mut self, id: Id, Away { subject, stored_at, first_failed_at }: Away) {
        let given_up = GivenUp {
            marks: None,
            class: FailureClass::Undecodable,
            errors: vec!["it was deleted from its stream while it waited for a retry".to_owned()],
            attempts: 0,
            first_failed_at: first_failed_at.unwrap_or_else(Utc::now),
        };
        let delivery = Delivery {
            subject,
            payload: Bytes::new(),
            trace: None,
            sequence: id.1,
            stored_at,
            turn: Turn::Again,
            redrives: 0,
            first_failed_at,
        };
        self.store(id, &delivery, given_up);
    }
}
