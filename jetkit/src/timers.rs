//! Timers: an event that comes to one consumer at some time, kept by the server (ADR-51, message schedules).

use std::time::Duration;

use async_nats::header::{HeaderMap, NATS_SCHEDULE, NATS_SCHEDULE_TARGET, NATS_SCHEDULE_TTL};
use async_nats::jetstream;
use chrono::{DateTime, SecondsFormat, SubsecRound, TimeDelta, Utc};

use crate::envelope::CONTENT_TYPE;
use crate::log::Outgoing;
use crate::publisher::publish_retrying;
use crate::streams::TIMERS;
use crate::{Cause, EntityId, Envelope, Event, EventLog, PublishError, StoreError, subject};

/// How long a due timer waits for its consumer.
const KEPT_FOR: &str = "168h";

/// The longest time from now: a hundred years. A longer one is cut to it.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);

/// Sets timers for one consumer, which handles them with [`crate::Consumer::on_timer`].
///
/// There is one timer for each type of event and entity: setting it again replaces it. Cancelling one that is not needed
/// any more saves the server and the consumer work, and is no promise: one that has just come due is delivered all the
/// same. So its handler gives a command, and the aggregate answers "already so".
#[derive(Debug, Clone)]
pub struct Timers {
    log: EventLog,
    consumer: String,
}

impl EventLog {
    /// Timers that come to `consumer`.
    pub fn timers(&self, consumer: &str) -> Timers {
        Timers { log: self.clone(), consumer: consumer.to_owned() }
    }
}

impl Timers {
    /// Delivers `event` to the consumer once `after` has passed, by the server's clock, which is asked for the time: never
    /// before, and up to a second later. When this returns, the server has stored it. The
    /// event is a message to the consumer, not a fact: it does not stand on the log.
    pub async fn set<E: Event>(&self, after: Duration, event: &E, cause: &Cause) -> Result<(), PublishError> {
        let now = self.log.server_time().await.map_err(PublishError::Unavailable)?;
        self.set_at(now + after.min(LONGEST), event, cause).await
    }

    /// The same at a time instead of after a while, by the server's clock: at once if it has passed. A handler that is run
    /// again does not put it off. A time that another machine's clock has shown is wrong by as much as that clock.
    pub async fn set_at<E: Event>(
        &self,
        at: DateTime<Utc>,
        event: &E,
        cause: &Cause,
    ) -> Result<(), PublishError> {
        let id = cause.event_id(E::TYPE, event.entity_id(), 0);
        let meta = cause.metadata(self.log.source(), (E::TYPE, E::VERSION), id);
        let due = format!("{}{}", due_prefix(&self.consumer), subject::event(E::TYPE, event.entity_id(), 0));
        let mut headers = HeaderMap::new();
        headers.insert(
            NATS_SCHEDULE,
            format!("@at {}", whole_second(at).to_rfc3339_opts(SecondsFormat::Secs, true)),
        );
        headers.insert(NATS_SCHEDULE_TARGET, due);
        headers.insert(NATS_SCHEDULE_TTL, KEPT_FOR);
        headers.insert("content-type", CONTENT_TYPE);
        if let Some(trace) = cause.trace() {
            trace.write(&mut headers);
        }
        let payload = Envelope::encode(&meta, event)?.into();
        let message = Outgoing { subject: self.subject::<E>(event.entity_id()).into(), headers, payload };
        publish_retrying(&self.log, || Ok(message.clone())).await.map(|_| ())
    }

    /// Takes back the timer of that type for that entity. Nothing happens if there is none, or if it is due already.
    pub async fn cancel<E: Event>(&self, id: &EntityId) -> Result<(), StoreError> {
        let context = jetstream::new(self.log.client().clone());
        let timers = context.get_stream_no_info(TIMERS).await.map_err(StoreError::unavailable)?;
        let cancelling = &self.log.writes().timers;
        match timers.purge().filter(self.subject::<E>(id)).await {
            Ok(_) => cancelling.succeeded(),
            Err(error) => {
                cancelling.failed(format_args!("timers cannot be cancelled: {error}"));
                return Err(StoreError::unavailable(error));
            }
        }
        Ok(())
    }

    /// Where a timer stands until it is due. One subject per timer: the server keeps one schedule per subject.
    fn subject<E: Event>(&self, id: &EntityId) -> String {
        format!("timer.set.{}.{}.{id}", self.consumer, E::TYPE)
    }
}

/// The next whole second, for a schedule has no smaller parts.
fn whole_second(time: DateTime<Utc>) -> DateTime<Utc> {
    let second = time.trunc_subsecs(0);
    if second == time { time } else { second.checked_add_signed(TimeDelta::seconds(1)).unwrap_or(second) }
}

/// What stands before the event's own subject where a due timer is delivered.
pub(crate) fn due_prefix(consumer: &str) -> String {
    format!("timer.due.{consumer}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_comes_at_the_next_whole_second() {
        for (time, comes) in [
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00.000000001Z", "2026-01-01T00:00:01Z"),
            ("2026-01-01T23:59:59.9Z", "2026-01-02T00:00:00Z"),
        ] {
            let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
            assert_eq!(whole_second(at(time)), at(comes), "{time}");
        }
    }
}
