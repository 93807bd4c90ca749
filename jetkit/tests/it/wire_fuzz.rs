//! A hundred thousand header blocks that no client library would send, on every stream: no reader stops at one.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Client;
use fastrand::Rng;
use futures::{StreamExt, stream};
use jetkit::testing::handled;
use jetkit::{
    DeadLetter, EventLog, FailureClass, Followed, FollowedMessage, Follower, ReadModel, StoreError,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::consumer::{note, quick, run};
use crate::projection::Usage;
use crate::toy::{self, Lamp, LampFitted, LampLit, Notes, cause, id, lit};

/// What is stored at a seed must stay the same, or a failure cannot be looked at again.
const SEED: u64 = 404;

/// Where the blocks are stored: the stream, the subject of number `n`, how many.
type Target = (&'static str, fn(usize, &mut Rng) -> String, usize);

const TARGETS: [Target; 8] = [
    ("EVENTS", |n, _| format!("lamp.lit.p{n}.1"), 30_000),
    ("EVENTS", |n, _| format!("lamp.fitted.f{n}.1"), 30_000),
    ("INBOX_c", |_, _| "inbox.c.done".to_owned(), 8_000),
    ("INBOX_c", |_, rng| format!("inbox.c.claim.{:032x}", rng.u128(..)), 8_000),
    ("DLQ", |n, _| format!("dlq.events.c.lamp.x{n}"), 10_000),
    ("DLQ", |_, _| "dlq.redrive.c".to_owned(), 5_000),
    ("TIMERS", |n, _| format!("timer.due.c.lamp.lit.t{n}.0"), 10_000),
    ("KV_SNAPSHOTS", |n, _| format!("$KV.SNAPSHOTS.lamp.p{n}"), 5_000),
];

/// So many are loaded as aggregates, each with a snapshot that is no better.
const LOADED: usize = 4_000;

/// How many are sent before the server says that it has stored what came before.
const WINDOW: usize = 2_000;

const PATIENCE: Duration = Duration::from_mins(2);

const FIRST_LINES: [&[u8]; 14] = [
    b"NATS/1.0",
    b"NATS/1.0 ",
    b"NATS/1.0\r404 No Messages",
    b"NATS/1.0\t408 Request Timeout",
    b"NATS/1.0404",
    b"NATS/1.0 99999999999999999999",
    b"NATS/1.0 -1 x",
    b"NATS/1.0  503  ",
    b"NATS/2.0 404 No Messages",
    b"nats/1.0 404 No Messages",
    b"\r\nNATS/1.0 404 No Messages",
    b"404 No Messages",
    b"\xef\xbb\xbfNATS/1.0 404",
    b"",
];

const STATUSES: [&str; 14] = [
    "100 Idle Heartbeat",
    "100 FlowControl Request",
    "200 OK",
    "204 EOB",
    "400 Bad Request",
    "404 No Messages",
    "404 Message Not Found",
    "408 Request Timeout",
    "409 Consumer Deleted",
    "409 Message Size Exceeds MaxBytes",
    "409 Leadership Change",
    "413 Too Many Results",
    "423 Nats-Wrong-Pin-Id",
    "503",
];

const NAMES: [&[u8]; 22] = [
    b"Nats-Sequence",
    b"nats-sequence",
    b"Nats-Subject",
    b"Nats-Stream",
    b"Nats-Time-Stamp",
    b"Nats-Num-Pending",
    b"Nats-Last-Sequence",
    b"Nats-UpTo-Sequence",
    b"Nats-Pending-Messages",
    b"Nats-Pending-Bytes",
    b"Nats-Consumer-Stalled",
    b"Nats-Pin-Id",
    b"Nats-Service-Error-Code",
    b"Status",
    b"Description",
    b"Dlq-Consumer",
    b"Dlq-Sequence",
    b"traceparent",
    b"X Space",
    b"X-\xc3\xa9",
    b"X-\x00\x01",
    b"",
];

const VALUES: [&[u8]; 14] = [
    b"0",
    b"1",
    b"18446744073709551615",
    b"-1",
    b"lamp.lit.good.0",
    b"1970-01-01T00:00:00Z",
    b"503",
    b"Jos\xe9",
    b"a\rb",
    b"a\x00b",
    b"a\nNATS/1.0 404 No Messages",
    b"",
    b" \t ",
    b"\r\n folded",
];

const LINE_ENDS: [&[u8]; 6] = [b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""];

/// What the server acts on: it may refuse what bears one, so these are few.
const FOR_THE_SERVER: [&[u8]; 6] = [
    b"Nats-Batch-Id: b\r\n",
    b"Nats-Batch-Sequence: 2\r\n",
    b"Nats-Batch-Commit: 1\r\n",
    b"Nats-Msg-Id: again\r\n",
    b"Nats-Msg-Id:\r\n",
    b"Nats-Expected-Stream: ANOTHER\r\n",
];

/// A header block: bytes without any order, or pieces of good ones in the wrong place.
fn block(rng: &mut Rng) -> Vec<u8> {
    if rng.u8(..10) == 0 {
        return (0..rng.usize(..64)).map(|_| rng.u8(..)).collect();
    }
    let mut block = Vec::new();
    if rng.bool() {
        block.extend_from_slice(format!("NATS/1.0 {}", any(rng, &STATUSES)).as_bytes());
    } else {
        block.extend_from_slice(any(rng, &FIRST_LINES));
    }
    block.extend_from_slice(any(rng, &LINE_ENDS));
    for _ in 0..rng.usize(..5) {
        block.extend_from_slice(any(rng, &NAMES));
        block.extend_from_slice(any(rng, &[b": ", b": ", b":", b" ", b""]));
        block.extend_from_slice(any(rng, &VALUES));
        block.extend_from_slice(any(rng, &LINE_ENDS));
    }
    if rng.u8(..100) == 0 {
        block.extend_from_slice(any(rng, &FOR_THE_SERVER));
    }
    if rng.u16(..1_000) == 0 {
        block.extend_from_slice(b"X-Long: ");
        block.resize(rng.usize(60_000..65_000), b'x');
    }
    block.extend_from_slice(any(rng, &[b"\r\n\r\n", b"\r\n", b"\r\n\r\n\r\n", b"\r", b"", b"\x00\x00"]));
    block
}

fn any<'a, T: ?Sized>(rng: &mut Rng, of: &[&'a T]) -> &'a T {
    of[rng.usize(..of.len())]
}

/// Stores all that is meant for one target. The server handles a connection's messages in order, so its answer to the last
/// of a window vouches for those before.
async fn store(server: SocketAddr, (_, subject, count): Target, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut connection = TcpStream::connect(server).await.unwrap();
    connection.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB stored 1\r\n").await.unwrap();
    let mut next = 0;
    while next < count {
        let mut window = Vec::new();
        for n in next..count.min(next + WINDOW) {
            let (block, subject) = (block(&mut rng), subject(n, &mut rng));
            let len = block.len();
            window.extend_from_slice(format!("HPUB {subject} {len} {}\r\n", len + 6).as_bytes());
            window.extend_from_slice(&block);
            window.extend_from_slice(b"poison\r\n");
        }
        next += WINDOW;
        let last = subject(count + next, &mut rng);
        window.extend_from_slice(format!("PUB {last} stored 6\r\npoison\r\n").as_bytes());
        connection.write_all(&window).await.unwrap();
        let mut heard = String::new();
        while !heard.contains("MSG stored 1 ") {
            let mut some = [0; 4096];
            let read = connection.read(&mut some).await.unwrap();
            assert_ne!(read, 0, "the server closed the connection: {heard}");
            write!(heard, "{}", String::from_utf8_lossy(&some[..read])).unwrap();
            assert!(!heard.contains("-ERR"), "{heard}");
            if heard.contains("PING") {
                heard = heard.replace("PING\r\n", "");
                connection.write_all(b"PONG\r\n").await.unwrap();
            }
        }
    }
}

/// Everything on a stream, up to what is its end now.
async fn followed(client: &Client, stream: &str) -> Vec<FollowedMessage> {
    let mut follower = Follower::new(client.clone(), stream, Vec::new(), 1);
    let mut all = Vec::new();
    let read = async {
        while let Followed::Message(message) = follower.next().await {
            all.push(message);
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .unwrap_or_else(|_| panic!("{stream} was not followed to its end"));
    all
}

/// Whether what stands at the first version of an entity is read, and found to be no event.
async fn is_found_corrupt(log: &EventLog, n: usize) -> bool {
    let entity = id(&format!("p{n}"));
    let read = log.read::<LampLit>(&entity, 1).await;
    let found = match &read {
        Ok(None) => false,
        Err(StoreError::Corrupt { subject, .. }) => {
            assert_eq!(*subject, format!("lamp.lit.p{n}.1"), "another one's subject was believed");
            true
        }
        other => panic!("p{n}: {other:?}"),
    };
    if n < LOADED {
        let loaded = log.store::<Lamp>().load(&entity).await;
        match (&loaded, found) {
            (Ok(loaded), false) => assert_eq!(loaded.version, 0),
            (Err(StoreError::Corrupt { .. }), true) => {}
            other => panic!("p{n}: {other:?}"),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_header_block_stops_a_reader() {
    let (server, client, log) = toy::server().await;
    let (notes, dir) = (Notes::default(), TempDir::new().unwrap());
    let consumer = || quick("c").on::<LampLit>(note(&notes)).on_timer::<LampFitted>(Fitted);
    let running = run(consumer(), &client);
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    handled(PATIENCE, &client, "TIMERS", "c").await;

    let stores = TARGETS.iter().zip(SEED..).map(|(target, seed)| store(server.address(), *target, seed));
    futures::future::join_all(stores).await;
    let events = followed(&client, "EVENTS").await;
    let inbox = followed(&client, "INBOX_c").await;

    // The consumer, its second durable and its timers come to the end, and what they could not read is a dead letter.
    let last = log.publisher().publish(&lit("good", "ann"), &cause()).await.unwrap().sequence;
    notes.reach(1).await;
    for stream in ["EVENTS", "DLQ", "TIMERS"] {
        handled(PATIENCE, &client, stream, "c").await;
    }
    let poisoned: HashSet<u64> = events
        .iter()
        .filter(|event| event.message.subject.starts_with("lamp.lit."))
        .map(|event| event.sequence)
        .collect();
    let filed = followed(&client, "DLQ").await;
    let letters = filed.iter().filter_map(|filed| {
        let headers = filed.message.headers.clone().unwrap_or_default();
        let letter = DeadLetter::decode(&headers, filed.message.payload.clone()).ok()?;
        assert_eq!(letter.class, FailureClass::Undecodable);
        (letter.original.stream == "EVENTS").then_some(letter.original.sequence)
    });
    assert_eq!(letters.collect::<HashSet<_>>(), poisoned);

    // A read model takes in what comes after.
    model.at_least(last, PATIENCE).await.unwrap();

    // Direct gets find each of them, and nothing else.
    let found = stream::iter(0..TARGETS[0].2).map(|n| is_found_corrupt(&log, n)).buffer_unordered(64);
    let found = found.filter(|found| std::future::ready(*found)).count().await;
    assert_eq!(found, poisoned.len() - TARGETS[0].2 / WINDOW, "as many as were stored");

    // What was stored to remember what was handled is read again by the next process.
    running.stop().await;
    let running = run(consumer(), &client);
    log.publisher().publish(&lit("good", "bob"), &cause()).await.unwrap();
    assert_eq!(notes.reach(2).await, ["ann", "bob"]);
    running.stop().await;

    let timers = followed(&client, "TIMERS").await;
    let snapshots = followed(&client, "KV_SNAPSHOTS").await;
    let foreign = filed.iter().filter(|filed| filed.message.payload == "poison").count() - poisoned.len();
    let stored = events.len() + inbox.len() + timers.len() + snapshots.len() + foreign;
    assert!(stored >= 100_000, "only {stored} were stored");
    assert_eq!(client.statistics().connects.load(Ordering::Relaxed), 1, "it was connected again");
}

struct Fitted;

impl jetkit::Handler<LampFitted> for Fitted {
    async fn handle(&self, _: jetkit::Recorded<LampFitted>) -> jetkit::HandlerResult {
        Ok(())
    }
}
