//! How many bytes of messages a consumer holds. What waits for its retry beyond a quarter of that is let go of, and read
//! again from its stream when its time has come: it keeps its place in its lane, and costs no room meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_nats::header::HeaderMap;
use async_nats::{Client, Message, Subject};
use chrono::{DateTime, Utc};
use metrics::Gauge;
use tokio::sync::Notify;

use super::runtime::Id;
use crate::{DLQ, StoreError, direct};

/// What a message has beside what the server counts against its largest message: its subjects.
const SUBJECTS: usize = 8 * 1024;

/// What a direct get adds to the headers of a message (ADR-31).
const ADDED: [&str; 5] =
    ["nats-stream", "nats-subject", "nats-sequence", "nats-time-stamp", "nats-num-pending"];

/// The bytes of the messages that were pulled and are neither settled nor let go of.
#[derive(Debug)]
pub(super) struct Held {
    bytes: AtomicUsize,
    at_most: usize,
    /// There is room again.
    room: Notify,
    gauge: Gauge,
}

impl Held {
    pub(super) fn new(consumer: &str, at_most: usize) -> Arc<Self> {
        let gauge = metrics::gauge!("jetkit_held_bytes", "consumer" => consumer.to_owned());
        Arc::new(Self { bytes: AtomicUsize::new(0), at_most, room: Notify::new(), gauge })
    }

    pub(super) fn take(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn let_go(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before > self.for_what_is_here() && before.saturating_sub(bytes) <= self.for_what_is_here() {
            self.room.notify_waiters();
        }
    }

    /// Returns whether there is room for so many bytes more.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.bytes.load(Ordering::Relaxed) + bytes <= self.at_most
    }

    /// Waits until more may be asked for.
    pub(super) async fn has_room(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if self.bytes.load(Ordering::Relaxed) <= self.for_what_is_here() {
                return;
            }
            room.await;
        }
    }

    /// Half of the bound: the other half is for what was asked for and is not here yet.
    fn for_what_is_here(&self) -> usize {
        self.at_most / 2
    }

    /// A quarter of the bound: however much waits for a retry, there is room for something else.
    pub(super) fn for_retries(&self) -> usize {
        self.at_most / 4
    }

    /// How many messages one puller may have asked for, up to `window` of them and in requests of `at_least`, and how many
    /// bytes each stands for. One request alone has room for any message that the server takes.
    pub(super) fn shares(&self, window: usize, at_least: usize, max_payload: usize) -> (usize, usize) {
        let open = self.at_most - self.for_what_is_here();
        let share = (open / window.max(1)).max((max_payload + SUBJECTS).div_ceil(at_least.max(1)));
        ((open / share.max(1)).clamp(at_least, window.max(at_least)), share)
    }

    pub(super) fn report(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.gauge.set(self.bytes.load(Ordering::Relaxed) as f64);
    }
}

/// A message that waits for its retry and was let go of.
#[derive(Debug, Clone)]
pub(super) struct Away {
    /// Its subject; of a redriven one, the original's.
    pub(super) subject: Subject,
    /// When the server stored it.
    pub(super) stored_at: DateTime<Utc>,
    pub(super) first_failed_at: Option<DateTime<Utc>>,
}

/// Reads a message again; [`None`] if its stream does not have it any more.
pub(super) async fn fetch(
    client: Client,
    (stream, sequence): Id,
    subject: Subject,
    reply: Subject,
) -> Result<Option<Message>, StoreError> {
    let Some(got) = direct::at(&client, stream, sequence).await? else { return Ok(None) };
    // A stream that was made again has another message there. (A redriven one has the subject of its original.)
    if stream != DLQ && got.subject != subject.as_str() {
        return Ok(None);
    }
    let mut headers = HeaderMap::new();
    for (name, values) in got.headers.iter() {
        if !ADDED.contains(&name.to_string().to_ascii_lowercase().as_str()) {
            for value in values {
                headers.append(name.clone(), value.clone());
            }
        }
    }
    let length = got.payload.len();
    let (status, description) = (None, None);
    let (reply, headers, payload) = (Some(reply), Some(headers), got.payload);
    Ok(Some(Message { subject, reply, headers, payload, status, description, length }))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn what_is_asked_for_fits_and_one_message_always_does() {
        for (bound, window, at_least) in [
            (32 * MIB, 512, 128),
            (32 * MIB, 64, 1),
            (4 * MIB, 512, 128),
            (1, 1, 1),
            (MIB, 4, 1),
            (32 * MIB, 1, 1),
        ] {
            let (messages, share) = Held::new("toy", bound).shares(window, at_least, MIB);
            assert!(
                share * at_least >= MIB + SUBJECTS,
                "the largest message fits: {bound} {window} {at_least}"
            );
            assert!((at_least..=window).contains(&messages), "{messages}");
            let alone = messages == at_least;
            assert!(alone || share * messages <= bound.div_ceil(2), "{bound} {window} {at_least}");
        }
        assert_eq!(Held::new("toy", 32 * MIB).shares(512, 128, MIB), (512, 32 * 1024), "the usual case");
    }

    #[test]
    fn more_is_asked_for_when_enough_is_let_go_of() {
        let held = Held::new("toy", 100);
        assert!(held.has_room().now_or_never().is_some());
        held.take(60);
        let mut waiting = Box::pin(held.has_room());
        assert!(waiting.as_mut().now_or_never().is_none());
        held.let_go(5);
        assert!(waiting.as_mut().now_or_never().is_none());
        held.let_go(5);
        assert!(waiting.as_mut().now_or_never().is_some());
    }
}
