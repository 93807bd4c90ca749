//! Bytes that no client library would send. Whoever reaches the server can store them, and they must end no connection.

use std::sync::atomic::Ordering;

use async_nats::HeaderMap;
use async_nats::header::HeaderValue;
use bytes::Bytes;
use futures::StreamExt;
use jetkit::{DeadLetter, EventLog, FailureClass, Followed, Follower, StoreError};

use crate::consumer::{note, quick, run, settled};
use crate::toy::{self, Lamp, LampLit, Notes, SOON, cause, lit};

/// A name and a value.
type Header = (&'static str, &'static str);

/// Header blocks and what is left of them.
const HEADERS: [(&[u8], &[Header]); 17] = [
    (b"NATS/1.0\r\nX-Cr: a\rb\r\n\r\n", &[("X-Cr", "a b")]),
    (b"NATS/1.0\r\nX-Latin: Jos\xe9\r\n\r\n", &[("X-Latin", "Jos\u{fffd}")]),
    (b"NATS/1.0\r\nX Space: y\r\nX-Good: z\r\n\r\n", &[("X-Good", "z")]),
    (b"NATS/1.0\r\nX-\xc3\xa9: y\r\n\r\n", &[]),
    (b"NATS/1.0\r\nX-\x01: y\r\n\r\n", &[]),
    (b"NATS/1.0\r\nno colon\r\nX-Good: z\r\n\r\n", &[("X-Good", "z")]),
    (b"NATS/1.0\r\n folded\r\n\r\n", &[]),
    (b"NATS/1.0 abc\r\nX-Good: z\r\n\r\n", &[("X-Good", "z")]),
    (b"NATS/2.0\r\nX-Good: z\r\n\r\n", &[("X-Good", "z")]),
    (b"\r\n\r\n", &[]),
    // What looks like the server's word about a message, in a message.
    (b"NATS/1.0\r404 No Messages\r\nX-A: b\r\n\r\n", &[("X-A", "b")]),
    (b"NATS/1.0 404 No Messages\r\nX-A: b\r\n\r\n", &[("X-A", "b")]),
    (b"NATS/1.0 503\r\nX-A: b\r\n\r\n", &[("X-A", "b")]),
    (b"NATS/1.0 100 Idle Heartbeat\r\n\r\n", &[]),
    (b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 1000\r\n\r\n", &[]),
    (b"NATS/1.0 409 Consumer Deleted\r\n\r\n", &[]),
    (b"NATS/1.0\r\nNats-Sequence: 1\r\nNats-Subject: lamp.lit.a.1\r\n\r\n", &[("Nats-Sequence", "1")]),
];

#[tokio::test]
async fn no_bytes_that_somebody_stores_end_a_connection_or_stop_a_reader() {
    let (server, client, log) = toy::server().await;
    let notes = Notes::default();
    let running = run(quick("c").on::<LampLit>(note(&notes)), &client);
    for (n, (headers, _)) in HEADERS.iter().enumerate() {
        let subject = format!("lamp.lit.p{n}.1");
        server.publish_raw(subject.as_bytes(), headers, b"poison").await;
    }
    server.publish_raw(b"lamp.lit.\xff\xfe.1", b"NATS/1.0\r\n\r\n", b"poison").await;
    server.publish_raw(b"lamp.lit.no\xc2\xa0break.1", b"NATS/1.0\r\n\r\n", b"poison").await;
    // To whoever listens, and stored nowhere.
    let mut heard = client.subscribe("$SRV.PING").await.unwrap();
    // Answered after the subscription was taken: a connection's operations are handled in order.
    client.request("nobody", Bytes::new()).await.unwrap_err();
    server.publish_raw(b"$SRV.PING", HEADERS[0].0, b"").await;
    tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap();

    log.publisher().publish(&lit("a", "ann"), &cause()).await.unwrap();
    notes.reach(1).await;
    settled(&client, "c").await;
    // Everything is a dead letter, with what is left of its headers; and read in order, too.
    let mut letters = Follower::new(client.clone(), "DLQ", vec!["dlq.events.>".to_owned()], 1);
    for _ in 0..HEADERS.len() + 2 {
        let letter =
            next(&mut letters, |headers, payload| DeadLetter::decode(headers, payload).unwrap()).await;
        assert_eq!((letter.class, &*letter.original.payload), (FailureClass::Undecodable, &b"poison"[..]));
        let place = usize::try_from(letter.original.sequence - 1).unwrap();
        for (name, value) in HEADERS.get(place).map(|(_, left)| *left).unwrap_or_default() {
            assert_eq!(letter.original.headers.get(*name).map(HeaderValue::as_str), Some(*value));
        }
    }
    // Each is found where it stands, by both kinds of direct get.
    let log = EventLog::new(client.clone(), "/other");
    for n in 0..HEADERS.len() {
        let (entity, stands) = (toy::id(&format!("p{n}")), format!("lamp.lit.p{n}.1"));
        let read = log.read::<LampLit>(&entity, 1).await.unwrap_err();
        let loaded = log.store::<Lamp>().load(&entity).await.unwrap_err();
        for error in [read, loaded] {
            assert!(matches!(&error, StoreError::Corrupt { subject, .. } if *subject == stands), "{error}");
        }
    }
    log.store::<Lamp>().load(&toy::id("a")).await.unwrap();
    running.stop().await;
    assert_eq!(client.statistics().connects.load(Ordering::Relaxed), 1, "it was connected again");
}

async fn next<T>(follower: &mut Follower, read: impl Fn(&HeaderMap, Bytes) -> T) -> T {
    loop {
        if let Followed::Message(followed) = tokio::time::timeout(SOON, follower.next()).await.unwrap() {
            return read(&followed.message.headers.unwrap_or_default(), followed.message.payload);
        }
    }
}
