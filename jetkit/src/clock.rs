//! The server's clock, read from its answers: the only one by which a time is given to the server.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, Request};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use tracing::{info, warn};

use crate::health::CheckHandle;

/// How long the server may take to say what time it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A reading is carried on by this process's monotonic clock for so long, then the server is asked again.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// How often the local clock is compared with the server's.
const COMPARED_EVERY: Duration = Duration::from_secs(10);

/// A difference up to this is not told.
const TOLERATED: TimeDelta = TimeDelta::seconds(5);

/// What the clock of a stream's server showed, and when that was by this process's monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Reading {
    time: DateTime<Utc>,
    /// Before the question left: the clock showed `time` no earlier than this.
    asked: Instant,
}

/// The clock of the server that leads a stream.
#[derive(Debug)]
pub(crate) struct ServerClock {
    stream: &'static str,
    last: Mutex<Option<Reading>>,
}

impl ServerClock {
    pub(crate) fn of(stream: &'static str) -> Self {
        Self { stream, last: Mutex::default() }
    }

    /// What it shows now, or a little more: by as much as the server's answer took. Asks at most once a second.
    pub(crate) async fn now(&self, client: &Client) -> Result<DateTime<Utc>, String> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = if let Some(reading) = last.filter(|reading| reading.asked.elapsed() < GOOD_FOR) {
            reading
        } else {
            let reading = read(client, self.stream).await?;
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
            reading
        };
        Ok(reading.time + reading.asked.elapsed())
    }
}

/// Asks for a stream: the answer says when it was given (`ts`).
async fn read(client: &Client, stream: &str) -> Result<Reading, String> {
    #[derive(Deserialize)]
    struct Answer {
        ts: Option<DateTime<Utc>>,
    }
    let asked = Instant::now();
    let question = client.send_request(format!("$JS.API.STREAM.INFO.{stream}"), Request::new().timeout(None));
    let answer = tokio::time::timeout(ANSWER_WITHIN, question)
        .await
        .map_err(|_| format!("no answer within {ANSWER_WITHIN:?}"))?
        .map_err(|error| error.to_string())?;
    let answer: Answer = serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())?;
    let time = answer.ts.ok_or_else(|| format!("stream {stream} is not there to tell the server's time"))?;
    Ok(Reading { time, asked })
}

/// Compares the local clock with the server's, for ever, and reports a difference of more than five seconds: in the log, as
/// a metric, and in the detail of a check that stays ready. Nothing here is decided by the local clock, so a wrong
/// one spoils what people read (the times of events) and no work; and if it is the server's that is wrong, no service
/// would be ready any more.
pub(crate) async fn compare(client: Client, stream: &'static str, check: CheckHandle) {
    check.set_ready(true, "not compared with the server's yet");
    let mut told = false;
    loop {
        if let Ok(Reading { time, asked }) = read(&client, stream).await {
            let took = TimeDelta::from_std(asked.elapsed()).unwrap_or_default();
            let ahead = Utc::now() - took / 2 - time;
            metrics::gauge!("jetkit_clock_ahead_seconds").set(seconds(ahead));
            let differs = ahead.abs() > TOLERATED + took;
            check.set_ready(true, describe(ahead, differs));
            if differs && !told {
                warn!(ahead_seconds = seconds(ahead), "this machine's clock and the server's differ");
            } else if told && !differs {
                info!("this machine's clock and the server's agree again");
            }
            told = differs;
        }
        tokio::time::sleep(COMPARED_EVERY).await;
    }
}

fn describe(ahead: TimeDelta, differs: bool) -> String {
    if !differs {
        return "agrees with the server's".to_owned();
    }
    let way = if ahead > TimeDelta::zero() { "ahead of" } else { "behind" };
    format!(
        "{:.1} s {way} the server's: set this machine's clock or the server's; events carry wrong times until then",
        seconds(ahead.abs())
    )
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn seconds(delta: TimeDelta) -> f64 {
    delta.num_milliseconds() as f64 / 1000.0
}
