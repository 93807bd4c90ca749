//! A follower never ends, never skips, never repeats.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use futures::{StreamExt, TryStreamExt};
use jetkit::testing::NatsServer;
use jetkit::{Followed, Follower};

const PATIENCE: Duration = Duration::from_secs(30);

struct Numbers {
    client: async_nats::Client,
    js: jetstream::Context,
    written: u64,
}

impl Numbers {
    async fn on(server: &NatsServer) -> Self {
        let client = server.client().await;
        let js = jetstream::new(client.clone());
        let config = stream::Config {
            name: "NUMBERS".into(),
            subjects: vec!["n.>".into()],
            allow_direct: true,
            ..Default::default()
        };
        js.create_stream(config).await.unwrap();
        Self { client, js, written: 0 }
    }

    /// Writes the next `count` numbers, each on `n.even` or `n.odd`; their values are their sequences.
    async fn write(&mut self, count: u64) {
        let from = self.written + 1;
        self.written += count;
        let js = &self.js;
        futures::stream::iter(from..=self.written)
            .then(|n| async move {
                let subject = if n % 2 == 0 { "n.even" } else { "n.odd" };
                js.publish(subject, n.to_string().into()).await
            })
            .map_ok(IntoFuture::into_future)
            .try_buffered(256)
            .try_for_each(|_| async { Ok(()) })
            .await
            .unwrap();
    }

    fn follower(&self, filters: &[&str], from: u64) -> Follower {
        let filters = filters.iter().map(ToString::to_string).collect();
        Follower::new(self.client.clone(), "NUMBERS", filters, from)
    }
}

/// The next number; news that there is no more are passed over.
async fn number(follower: &mut Follower) -> u64 {
    let next = async {
        loop {
            if let Followed::Message(message) = follower.next().await {
                let number: u64 = std::str::from_utf8(&message.message.payload).unwrap().parse().unwrap();
                assert_eq!(number, message.sequence);
                return number;
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.expect("a number")
}

async fn expect_numbers(follower: &mut Follower, numbers: impl IntoIterator<Item = u64>) {
    for expected in numbers {
        assert_eq!(number(follower).await, expected);
    }
}

#[tokio::test]
async fn an_empty_stream_is_caught_up_with_at_once() {
    let server = NatsServer::start().await;
    let mut numbers = Numbers::on(&server).await;
    let mut follower = numbers.follower(&[], 1);
    assert!(matches!(follower.next().await, Followed::CaughtUp));
    numbers.write(1).await;
    assert_eq!(number(&mut follower).await, 1);
}

#[tokio::test]
async fn the_end_is_reported_once_after_the_last_message() {
    let server = NatsServer::start().await;
    let mut numbers = Numbers::on(&server).await;
    numbers.write(10).await;
    let mut follower = numbers.follower(&[], 4);
    for expected in 4..=10 {
        let Followed::Message(message) = follower.next().await else { panic!("told too early") };
        assert_eq!((message.sequence, message.pending), (expected, 10 - expected));
    }
    assert!(matches!(follower.next().await, Followed::CaughtUp));
    numbers.write(1).await;
    assert!(matches!(follower.next().await, Followed::Message(message) if message.sequence == 11));
}

#[tokio::test]
async fn what_the_filters_leave_out_is_known_to_be_passed() {
    let server = NatsServer::start().await;
    let mut numbers = Numbers::on(&server).await;
    numbers.write(9).await;
    let mut follower = numbers.follower(&["n.even"], 1);
    expect_numbers(&mut follower, [2, 4, 6]).await;
    assert_eq!(follower.scanned().await, None, "8 is still to come");
    expect_numbers(&mut follower, [8]).await;
    assert_eq!(follower.scanned().await, Some(9));
}

#[tokio::test]
async fn a_killed_server_costs_no_message_and_repeats_none() {
    let mut server = NatsServer::start().await;
    let mut numbers = Numbers::on(&server).await;
    numbers.write(3000).await;
    let mut follower = numbers.follower(&[], 1);
    expect_numbers(&mut follower, 1..=1700).await;
    server.kill();
    server.restart().await;
    let mut numbers = Numbers { client: server.client().await, ..numbers };
    numbers.js = jetstream::new(numbers.client.clone());
    numbers.write(500).await;
    expect_numbers(&mut follower, 1701..=3500).await;
    assert!(matches!(follower.next().await, Followed::CaughtUp));
}

#[tokio::test]
async fn a_server_killed_while_nothing_comes_is_noticed() {
    let mut server = NatsServer::start().await;
    let mut numbers = Numbers::on(&server).await;
    numbers.write(2).await;
    let mut follower = numbers.follower(&[], 1);
    expect_numbers(&mut follower, 1..=2).await;
    assert!(matches!(follower.next().await, Followed::CaughtUp));
    let waiting = tokio::spawn(async move { number(&mut follower).await });
    for _ in 0..2 {
        server.kill();
        server.restart().await;
    }
    let mut numbers = Numbers { client: server.client().await, ..numbers };
    numbers.js = jetstream::new(numbers.client.clone());
    numbers.write(1).await;
    assert_eq!(waiting.await.unwrap(), 3);
}

#[tokio::test]
async fn a_deleted_consumer_is_replaced() {
    let server = NatsServer::start().await;
    let mut numbers = Numbers::on(&server).await;
    numbers.write(5).await;
    let mut follower = numbers.follower(&[], 1);
    expect_numbers(&mut follower, 1..=5).await;
    let stream = numbers.js.get_stream("NUMBERS").await.unwrap();
    let names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
    assert_eq!(names.len(), 1);
    stream.delete_consumer(&names[0]).await.unwrap();
    numbers.write(5).await;
    expect_numbers(&mut follower, 6..=10).await;
}

#[tokio::test]
async fn a_stream_that_is_not_there_yet_is_waited_for() {
    let server = NatsServer::start().await;
    let mut follower = Follower::new(server.client().await, "NUMBERS", vec![], 1);
    let waiting = tokio::spawn(async move { number(&mut follower).await });
    let mut numbers = Numbers::on(&server).await;
    numbers.write(1).await;
    assert_eq!(waiting.await.unwrap(), 1);
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    let server = NatsServer::start().await;
    let mut numbers = Numbers::on(&server).await;
    numbers.write(2000).await;
    let mut follower = numbers.follower(&[], 1);
    for expected in 1..=2000 {
        loop {
            let next = tokio::time::timeout(Duration::from_millis(1), follower.next()).await;
            if let Ok(Followed::Message(message)) = next {
                assert_eq!(message.sequence, expected);
                break;
            }
        }
    }
}
