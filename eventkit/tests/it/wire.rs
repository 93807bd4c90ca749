//! Bytes that no client library would send. Whoever reaches the server can store them, and they must end no connection.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use async_nats::HeaderMap;
use async_nats::header::HeaderValue;
use bytes::Bytes;
use eventkit::{DeadLetter, EventLog, FailureClass, Followed, Follower};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::consumer::{note, quick, run, settled};
use crate::toy::{self, Lamp, LampLit, Notes, SOON, cause, lit};

/// A name and a value.
type Header = (&'static str, &'static str);

/// Header blocks and what is left of them.
const HEADERS: [(&[u8], &[Header]); 10] = [
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
];

/// Publishes as a program would that knows nothing of rules, and returns when the server has taken it.
async fn publish_raw(server: SocketAddr, subject: &[u8], headers: &[u8], body: &[u8]) {
    let mut connection = TcpStream::connect(server).await.unwrap();
    let mut sent = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\nHPUB ".to_vec();
    sent.extend_from_slice(subject);
    let (header_len, len) = (headers.len(), headers.len() + body.len());
    sent.extend_from_slice(format!(" {header_len} {len}\r\n").as_bytes());
    sent.extend([headers, body, b"\r\nPING\r\n"].concat());
    connection.write_all(&sent).await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"PONG\r\n") {
        assert_ne!(connection.read_buf(&mut heard).await.unwrap(), 0, "{}", String::from_utf8_lossy(&heard));
    }
}

#[tokio::test]
async fn no_bytes_that_somebody_stores_end_a_connection_or_stop_a_reader() {
    let (server, client, log) = toy::server().await;
    let notes = Notes::default();
    let running = run(quick("c").on::<LampLit>(note(&notes)), &client);
    for (n, (headers, _)) in HEADERS.iter().enumerate() {
        let subject = format!("lamp.lit.p{n}.1");
        publish_raw(server.address(), subject.as_bytes(), headers, b"poison").await;
    }
    publish_raw(server.address(), b"lamp.lit.\xff\xfe.1", b"NATS/1.0\r\n\r\n", b"poison").await;
    publish_raw(server.address(), b"lamp.lit.no\xc2\xa0break.1", b"NATS/1.0\r\n\r\n", b"poison").await;
    // To whoever listens, and stored nowhere.
    let mut heard = client.subscribe("$SRV.PING").await.unwrap();
    client.flush().await.unwrap();
    publish_raw(server.address(), b"$SRV.PING", HEADERS[0].0, b"").await;
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
    let last = EventLog::new(client.clone(), "/other").store::<Lamp>();
    last.load(&toy::id("a")).await.unwrap();
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
