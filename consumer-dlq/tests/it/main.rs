//! Tests of consumer-dlq: the fold and the edits without a broker, the routes on a real nats-server with a consumer that
//! fails.

#![expect(clippy::unwrap_used, reason = "a test's own functions fail the test by panicking")]

mod dead_letters;
mod edit;
mod http;
mod openapi;

use chrono::{DateTime, Utc};
use jetkit::{DeadLetter, FailureClass, Original};

/// What consumer-email gave up, redriven so often before.
fn letter(sequence: u64, redrives: u32) -> DeadLetter {
    let time: DateTime<Utc> = "2026-01-02T12:00:00Z".parse().unwrap();
    DeadLetter {
        consumer: "consumer-email".into(),
        class: FailureClass::Exhausted,
        errors: vec!["sending the mail".into(), "no route to host".into()],
        attempts: 5,
        first_failed_at: time,
        last_failed_at: time,
        service_version: "0.1.0".into(),
        redrives,
        original: Original {
            stream: "EVENTS".into(),
            sequence,
            subject: format!("order.placed.o-{sequence}.1"),
            headers: async_nats::HeaderMap::new(),
            headers_dropped: 0,
            payload: b"{}".as_slice().into(),
        },
    }
}
