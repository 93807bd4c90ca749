//! For tests: a [`Harness`] with a private nats-server per test, or a cluster of three, and waiting without sleeping. Behind the
//! feature `testing`.
//!
//! Nothing here pretends to be JetStream. A server starts in about 15 ms, so every test that touches one has its own.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a broken test environment fails the test, and says why"
)]

mod anything;
mod clock;
mod cluster;
mod conformance;
#[cfg(feature = "read-models")]
mod folded;
mod handled;
mod harness;
mod laws;
mod locate;
#[cfg(feature = "http")]
mod routes;
mod server;
mod spec;
mod tied;

use std::future::Future;
use std::time::{Duration, Instant};

pub use anything::Anything;
pub use clock::WrongClock;
pub use cluster::NatsCluster;
pub use conformance::{CONFORMANCE_LEASE, inbox_conformance};
#[cfg(feature = "read-models")]
pub use folded::Folded;
pub use handled::{handled, has_handled_all};
pub use harness::{Harness, Running, cause, happened, id, metadata};
pub use laws::aggregate_laws;
pub use locate::{LocateError, OLDEST_NATS_SERVER, PINNED_NATS_SERVER, ServerVersion, locate_nats_server};
#[cfg(feature = "http")]
pub use routes::{Answer, Routes};
pub use server::NatsServer;
pub use spec::{Given, When, given};
pub use tied::{spawn_tied, tied_command};

use crate::{Envelope, Event, Recorded};

/// How long a test waits for what should happen at once: on a machine that is busy with others, too.
pub const SOON: Duration = Duration::from_secs(30);

/// An event as a handler gets it, from its wire document: a golden file, say. It is the entity's first, and the log's.
pub fn recorded<E: Event>(document: &str) -> Recorded<E> {
    let envelope = Envelope::decode(document.as_bytes()).expect("a CloudEvents document");
    let event = envelope.event().expect("an event of the wanted type");
    let meta = envelope.metadata().expect("its context");
    Recorded { event, stored_at: meta.time, meta, version: 1, sequence: 1 }
}

/// Checks that a generated document says nothing that is `null`, which OpenAPI does not know, and is the one in `file`. With
/// `UPDATE_OPENAPI=1` in the environment of the test, the file is written anew
/// instead: look at the difference before it is committed, because clients were written for the old one.
pub fn assert_committed(document: &serde_json::Value, file: &str) {
    let text = format!("{document:#}\n");
    assert!(!text.contains(": null"), "a member of the document is null");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(file, text).expect("the document can be written");
        return;
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        committed == text,
        "{file} is not what the code says: run this test with UPDATE_OPENAPI=1 to write it anew"
    );
}

/// Asks again and again until `ask` answers `Some`, and returns that.
///
/// For what happens in another task or process and has no future to await. Fails the test when `deadline` has passed
/// by the wall clock, also where tokio's clock is paused.
pub async fn eventually<T, F, Fut>(deadline: Duration, mut ask: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < deadline, "what the test waits for did not happen within {deadline:?}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
