//! Both idempotency sets do what every one must; and what only the durable one can get wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::{TimeDelta, Utc};
use futures::FutureExt;
use jetkit::inbox::{Claim, Ended, Inbox, InboxSettings, JetStreamInbox, Key, MemoryInbox, Turn};
use jetkit::testing::{CONFORMANCE_LEASE, NatsServer, WrongClock, eventually, inbox_conformance};

use crate::toy::SOON;

#[tokio::test]
async fn the_set_in_memory_conforms() {
    let inbox = MemoryInbox::new(CONFORMANCE_LEASE);
    inbox_conformance(move || {
        let replica: Arc<dyn Inbox> = Arc::new(inbox.clone());
        async move { replica }.boxed()
    })
    .await;
}

async fn open(client: &async_nats::Client) -> JetStreamInbox {
    let settings = InboxSettings { lease: CONFORMANCE_LEASE, ..InboxSettings::default() };
    JetStreamInbox::open(client.clone(), "test", settings).await.unwrap()
}

#[tokio::test]
async fn the_durable_set_conforms() {
    conforms().await;
}

async fn conforms() {
    let server = NatsServer::start().await;
    let client = server.client().await;
    inbox_conformance(move || {
        let client = client.clone();
        async move { Arc::new(open(&client).await) as Arc<dyn Inbox> }.boxed()
    })
    .await;
}

#[tokio::test]
async fn a_claim_runs_out_in_time_by_a_clock_that_is_ten_minutes_behind() {
    let test = "inbox::a_claim_runs_out_in_time_by_a_clock_that_is_ten_minutes_behind";
    if WrongClock::of_test(test, -TimeDelta::minutes(10)).is_some() {
        conforms().await;
    }
}

#[tokio::test]
async fn a_claim_holds_for_its_time_by_a_clock_that_is_ten_minutes_ahead() {
    let test = "inbox::a_claim_holds_for_its_time_by_a_clock_that_is_ten_minutes_ahead";
    if WrongClock::of_test(test, TimeDelta::minutes(10)).is_some() {
        conforms().await;
    }
}

#[tokio::test]
async fn a_clock_that_jumps_eight_days_ahead_and_back_forgets_no_mark() {
    let test = "inbox::a_clock_that_jumps_eight_days_ahead_and_back_forgets_no_mark";
    let Some(clock) = WrongClock::of_test(test, TimeDelta::zero()) else { return };
    let server = NatsServer::start().await;
    let client = server.client().await;
    let (one, two) = (open(&client).await, open(&client).await);
    let (before, during) = (Key::of_event("before"), Key::of_event("during"));
    one.done(&[before]).await.unwrap();
    clock.set(TimeDelta::days(8));
    one.done(&[during]).await.unwrap();
    eventually(SOON, || async { (two.len() == 2).then_some(()) }).await;
    clock.set(TimeDelta::zero());
    for inbox in [&one, &two, &open(&client).await] {
        for key in [before, during] {
            assert_eq!(inbox.claim(key, Turn::First).await.unwrap(), Claim::Done);
        }
    }
}

#[tokio::test]
async fn a_claim_that_ran_out_before_the_start_is_not_waited_for() {
    let server = NatsServer::start().await;
    let client = server.client().await;
    let (one, key) = (open(&client).await, Key::of_event("killer"));
    assert!(matches!(one.claim(key, Turn::Again).await.unwrap(), Claim::Granted(_)));
    assert!(!open(&client).await.is_suspect(key), "it may still be running");
    eventually(SOON, || async { one.is_suspect(key).then_some(()) }).await;
    assert!(open(&client).await.is_suspect(key));
}

#[tokio::test]
async fn claims_beyond_the_cap_leave_the_memory_and_count_as_before() {
    let server = NatsServer::start().await;
    let settings = InboxSettings { lease: CONFORMANCE_LEASE, max_claims: 3, ..InboxSettings::default() };
    let inbox = JetStreamInbox::open(server.client().await, "test", settings).await.unwrap();
    let keys: Vec<_> = (0..10).map(|n| Key::of_event(&format!("e-{n}"))).collect();
    for key in &keys {
        let Claim::Granted(grant) = inbox.claim(*key, Turn::Again).await.unwrap() else { panic!("{key}") };
        assert_eq!(grant.attempt, 2);
        let ended = Ended { attempts: grant.attempt, postponed: 0, first_failed_at: Utc::now() };
        inbox.release(*key, ended).await.unwrap();
    }
    assert_eq!(inbox.claims(), 3);
    for key in keys {
        let grant = eventually(SOON, || async {
            match inbox.claim(key, Turn::Again).await.unwrap() {
                Claim::Granted(grant) => Some(grant),
                Claim::Held => None,
                Claim::Done => panic!("{key} was never handled"),
            }
        });
        let grant = grant.await;
        assert_eq!(grant.attempt, 3, "{key}");
        assert!(!grant.unfinished && grant.first_failed_at.is_some(), "{key}");
        inbox.done(&[key]).await.unwrap();
    }
    assert_eq!(inbox.claims(), 0);
}

#[tokio::test]
async fn marks_survive_a_server_that_is_killed_and_a_replica_that_missed_them() {
    let mut server = NatsServer::start().await;
    let clients = (server.client().await, server.client().await);
    let (one, two) = (open(&clients.0).await, open(&clients.1).await);
    for n in 0..500 {
        one.done(&[Key::of_event(&format!("e-{n}"))]).await.unwrap();
    }
    server.kill();
    server.restart().await;
    // The other replica may not have heard of all of them before; it must not grant any of them on the connection over
    // which they would come again.
    let connects = &clients.1.statistics().connects;
    eventually(SOON, || async { (connects.load(Ordering::Acquire) == 2).then_some(()) }).await;
    for n in 0..500 {
        let key = Key::of_event(&format!("e-{n}"));
        let claim = eventually(SOON, || async { two.claim(key, Turn::First).await.ok() }).await;
        assert_eq!(claim, Claim::Done, "event {n}");
    }
}

#[tokio::test]
async fn the_set_is_bounded() {
    let server = NatsServer::start().await;
    let settings = InboxSettings { max_marks: 10, ..InboxSettings::default() };
    let inbox = JetStreamInbox::open(server.client().await, "test", settings).await.unwrap();
    for n in 0..50 {
        inbox.done(&[Key::of_event(&format!("e-{n}"))]).await.unwrap();
    }
    // The last one is in memory, and so were all before it.
    assert_eq!(inbox.claim(Key::of_event("e-49"), Turn::First).await.unwrap(), Claim::Done);
    assert!(inbox.len() <= 10, "{} marks are in memory", inbox.len());
}

#[tokio::test]
async fn a_claim_that_nobody_here_wrote_ends_nothing() {
    let server = NatsServer::start().await;
    let client = server.client().await;
    let inbox = open(&client).await;
    let js = async_nats::jetstream::new(client.clone());
    let key = Key::of_event("e-1");
    for (subject, payload) in [
        ("inbox.test.done".to_owned(), &b"7 bytes"[..]),
        ("inbox.test.claim.x".to_owned(), b"{}"),
        (format!("inbox.test.claim.{key}"), b"junk"),
        (format!("inbox.test.claim.{key}"), br#"{"attempt":4294967295,"finished":true}"#),
    ] {
        js.publish(subject, payload.into()).await.unwrap().await.unwrap();
    }
    let granted = eventually(SOON, || async {
        match inbox.claim(key, Turn::Again).await {
            Ok(Claim::Granted(grant)) => Some(grant),
            _ => None,
        }
    });
    assert_eq!(granted.await.attempt, u32::MAX);
}

#[tokio::test]
async fn ids_that_differ_in_writing_are_different_events() {
    let upper = Key::of_event("0190A000-0000-7000-8000-000000000000");
    let lower = Key::of_event("0190a000-0000-7000-8000-000000000000");
    assert_ne!(upper, lower);
    assert_ne!(Key::of_event("evt-1"), Key::of_event("evt-2"));
}
