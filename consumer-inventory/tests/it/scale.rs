//! A warehouse with many products and many orders: what is kept of it, and what a restart reads, is bounded by what it holds,
//! and not by what has happened.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::{Client, HeaderMap};
use common::order::OrderEvent;
use common::stock::{StockEvent, StockLine};
use consumer_inventory::stock::{Reservation, Stock, StockCommand};
use consumer_inventory::storekeeper::Storekeeper;
use jetkit::testing::{NatsServer, eventually, happened, id, metadata};
use jetkit::{Aggregate, EventId, EventLog, EventSet, Handler};
use serde_json::Value;

use crate::{harness, order};

const PRODUCTS: u32 = 50_000;
const ORDERS: u32 = 100_000;

/// How long a snapshot of everything may take to be written, by a program that is not optimised.
const PATIENCE: Duration = Duration::from_mins(2);

/// The most messages of one atomic batch.
const BATCH: usize = 1000;

/// A warehouse that decides as the real one does, and puts its events on the log by the thousand.
struct Bulk {
    client: Client,
    stock: Stock,
    version: u64,
    decided: Vec<StockEvent>,
}

impl Bulk {
    async fn give(&mut self, command: StockCommand) {
        for event in self.stock.decide(&command).unwrap() {
            self.stock.apply(&event);
            self.decided.push(event);
        }
        if self.decided.len() >= BATCH {
            self.store().await;
        }
    }

    async fn receive(&mut self, product: u32) {
        let product_id = id(&format!("p-{product:05}"));
        self.give(StockCommand::Receive { warehouse: id("main"), product_id, quantity: 500 }).await;
    }

    async fn reserve(&mut self, number: u32) {
        let lines = [number % PRODUCTS, (number + 1) % PRODUCTS];
        let line = |product| StockLine { product_id: id(&format!("p-{product:05}")), quantity: 1 };
        let lines = lines.map(line).to_vec();
        self.give(StockCommand::Reserve { warehouse: id("main"), order_id: order_id(number), lines }).await;
    }

    async fn ship(&mut self, number: u32) {
        self.give(StockCommand::Ship { warehouse: id("main"), order_id: order_id(number) }).await;
    }

    /// Stores what was decided, in one atomic batch.
    async fn store(&mut self) {
        let batch = EventId::generate();
        let decided = std::mem::take(&mut self.decided);
        for (index, event) in decided.iter().enumerate() {
            self.version += 1;
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Batch-Id", batch.as_str());
            headers.insert("Nats-Batch-Sequence", (index + 1).to_string());
            let subject = format!("{}.main.{}", event.kind().0, self.version);
            let body = event.encode(&metadata(event.kind())).unwrap();
            if index + 1 < decided.len() {
                self.client.publish_with_headers(subject, headers, body.into()).await.unwrap();
            } else {
                headers.insert("Nats-Batch-Commit", "1");
                let answer = self.client.request_with_headers(subject, headers, body.into()).await.unwrap();
                let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
                assert_eq!(answer["error"], Value::Null, "{answer}");
            }
        }
    }
}

fn order_id(number: u32) -> jetkit::EntityId {
    id(&format!("order-{number:012}"))
}

/// The snapshot of the warehouse at a version: the number of its parts, and its bytes.
async fn snapshot(client: &Client, version: u64) -> (u64, u64) {
    let stream = jetstream::new(client.clone()).get_stream("KV_SNAPSHOTS").await.unwrap();
    eventually(PATIENCE, async || {
        let head = stream.direct_get_last_for_subject("$KV.SNAPSHOTS.stock.main").await.ok()?;
        let head: Value = serde_json::from_slice(&head.payload).unwrap();
        let latest = head["parts"].get(0).filter(|_| head["version"] == version)?;
        let (count, bytes) = (latest["count"].as_u64()?, latest["bytes"].as_u64()?);
        let limit = client.server_info().max_payload as u64 / 2;
        assert!(bytes.div_ceil(count) <= limit, "{count} parts for {bytes} bytes");
        Some((count, bytes))
    })
    .await
}

/// Starts a keeper that remembers nothing, and returns it with the number of messages that it read until it could work.
async fn restart(server: &NatsServer) -> (Storekeeper, EventLog, u64) {
    let client = server.client().await;
    let read = || client.statistics().in_messages.load(Ordering::Relaxed);
    let before = read();
    let log = EventLog::new(client.clone(), "/consumer-inventory");
    let store = log.store::<Stock>();
    store.warm_up(&id("main")).await.unwrap();
    let messages = read() - before;
    (Storekeeper::new(store).unwrap(), log, messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_a_large_warehouse_read_what_it_holds_and_not_what_has_happened() {
    let harness = harness().await;
    let (server, client) = (&harness.server, harness.client.clone());
    let mut bulk = Bulk { client: client.clone(), stock: Stock::default(), version: 0, decided: vec![] };
    for product in 0..PRODUCTS {
        bulk.receive(product).await;
    }
    for number in 0..ORDERS {
        bulk.reserve(number).await;
    }
    // All are open.
    let (_, _, everything) = restart(server).await;
    assert!(everything > bulk.version);
    let (parts, open) = snapshot(&client, bulk.version).await;
    for number in 0..1000 {
        bulk.ship(number).await;
    }
    let (_, log, messages) = restart(server).await;
    assert!(messages < parts + 1100, "{messages} messages: more than {parts} parts and 1,000 events");
    let loaded = log.store::<Stock>().load(&id("main")).await.unwrap();
    assert_eq!((loaded.version, &loaded.state), (bulk.version, &bulk.stock));

    // All are settled.
    for number in 1000..ORDERS {
        bulk.ship(number).await;
    }
    let (_, _, messages) = restart(server).await;
    // Each page of 64 ends with a message of its own.
    let ships = u64::from(ORDERS) * 102 / 100;
    assert!(messages < ships + parts, "{messages} messages: what was read before was read again");
    let (_, settled) = snapshot(&client, bulk.version).await;
    assert!(settled < open / 2, "{settled} bytes of {open} are left when no order is open");

    // More of them change nothing.
    for number in ORDERS..ORDERS + 10_000 {
        bulk.reserve(number).await;
        bulk.ship(number).await;
    }
    restart(server).await;
    let (parts, later) = snapshot(&client, bulk.version).await;
    assert!(later < settled + settled / 100, "{settled} bytes have become {later}");
    let (keeper, log, messages) = restart(server).await;
    assert!(messages < parts + 100, "{messages} messages for {parts} parts");

    // And it works.
    harness.happens::<OrderEvent, _>(order("o-1", &[("p-00000", 2)])).await;
    keeper.handle(happened(order("o-1", &[("p-00000", 2)]))).await.unwrap();
    let stock = log.store::<Stock>().latest(&id("main")).await.unwrap();
    assert_eq!(stock.version, bulk.version + 1);
    assert!(matches!(stock.state.reservation(&id("o-1")), Some(Reservation::Reserved(_))));
    assert_eq!(stock.state.reservation(&order_id(0)), None, "it was settled long ago");
}
