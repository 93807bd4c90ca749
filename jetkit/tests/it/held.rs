//! What a consumer holds is bounded in bytes, and the bound stops nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jetkit::testing::eventually;
use jetkit::{EventLog, HandlerError, Recorded};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::consumer::{On, note, quick, run, settled};
use crate::toy::{self, LampLit, Notes, SOON, cause, lit};

const MIB: usize = 1024 * 1024;
const LARGE: usize = 200_000;

/// An event of so many bytes whose first word is `word`.
async fn publish(log: &EventLog, lamp: &str, word: &str, bytes: usize) {
    let by = format!("{word} {}", "x".repeat(bytes));
    log.publisher().publish(&lit(lamp, &by), &cause()).await.unwrap();
}

fn word(event: &Recorded<LampLit>) -> &str {
    event.by.split(' ').next().unwrap_or_default()
}

/// The most memory that this process has had so far.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn what_waits_for_a_retry_is_bounded_in_bytes_and_holds_up_nothing_else() {
    let (_server, client, log) = toy::server().await;
    let many = 300;
    for n in 0..many {
        publish(&log, &format!("lamp-{n}"), "waits", LARGE).await;
    }
    publish(&log, "other", "goes", 1).await;
    let before = peak_bytes();

    let (notes, tried, open) =
        (Notes::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let handler = {
        let (notes, tried, open) = (notes.clone(), Arc::clone(&tried), Arc::clone(&open));
        On(move |event: Recorded<LampLit>| {
            let waits = word(&event) == "waits" && !open.load(Ordering::Relaxed);
            tried.fetch_add(1, Ordering::Relaxed);
            if !waits {
                notes.add(word(&event));
            }
            std::future::ready(if waits {
                Err(HandlerError::Retry(anyhow::anyhow!("not yet")))
            } else {
                Ok(())
            })
        })
    };
    let consumer = quick("patient").retry_delays(Duration::from_secs(3), Duration::from_secs(5));
    // A handler has its event's text beside the message: a few of them at once.
    let consumer = consumer.max_attempts(1000).max_bytes(4 * MIB).concurrency(8);
    let running = run(consumer.on::<LampLit>(handler), &client);
    notes.reach(1).await;
    assert_eq!(notes.all(), ["goes"], "it came last, and waits for no other");
    // Each was tried, and some twice: most of them were read again.
    eventually(SOON, || async { (tried.load(Ordering::Relaxed) > many + 50).then_some(()) }).await;
    open.store(true, Ordering::Relaxed);
    notes.reach(many + 1).await;
    settled(&client, "patient").await;
    running.stop().await;
    assert_eq!(notes.count("waits"), many, "each once");
    let grown = peak_bytes() - before;
    assert!(grown < 30 * MIB, "{} MiB for {} MiB of events", grown / MIB, many * LARGE / MIB);
}

#[tokio::test]
async fn a_message_larger_than_the_bound_passes_and_keeps_its_place_in_its_lane() {
    let (_server, client, log) = toy::server().await;
    for n in 0..5 {
        publish(&log, "a", &format!("large-{n}"), LARGE).await;
        publish(&log, "a", &format!("small-{n}"), 1).await;
    }
    let (notes, fails) = (Notes::default(), Arc::new(AtomicUsize::new(3)));
    let handler = {
        let notes = notes.clone();
        On(move |event: Recorded<LampLit>| {
            let fails = word(&event) == "large-1"
                && fails
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok();
            if !fails {
                notes.add(word(&event));
            }
            std::future::ready(if fails {
                Err(HandlerError::Retry(anyhow::anyhow!("not yet")))
            } else {
                Ok(())
            })
        })
    };
    let running = run(quick("small").max_bytes(10_000).on::<LampLit>(handler), &client);
    let handled = notes.reach(10).await;
    running.stop().await;
    let expected: Vec<_> = (0..5).flat_map(|n| [format!("large-{n}"), format!("small-{n}")]).collect();
    assert_eq!(handled, expected);
}

#[tokio::test]
async fn requests_that_end_by_their_messages_or_by_their_bytes_are_no_failures() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _here = metrics::set_default_local_recorder(&recorder);
    let (_server, client, log) = toy::server().await;
    for n in 0..60 {
        publish(&log, &format!("lamp-{n}"), "large", LARGE).await;
    }
    for n in 0..800 {
        publish(&log, &format!("lamp-{n}"), "small", 1).await;
    }
    let notes = Notes::default();
    let running = run(quick("steady").max_bytes(2 * MIB).concurrency(4).on::<LampLit>(note(&notes)), &client);
    notes.reach(860).await;
    settled(&client, "steady").await;
    running.stop().await;
    assert_eq!(notes.all().len(), 860, "each once");
    let metrics = recorder.handle().render();
    assert!(metrics.contains("jetkit_held_bytes"), "{metrics}");
    assert!(!metrics.contains("jetkit_pull_failures_total"), "{metrics}");
}
