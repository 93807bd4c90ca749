//! The three ways of publishing, and what each promises.

use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use jetkit::testing::{NatsServer, eventually};
use jetkit::{EventLog, PublishError, RequestError};

use crate::toy::{self, SOON, cause, lit};

async fn stored(client: &async_nats::Client) -> u64 {
    let js = async_nats::jetstream::new(client.clone());
    js.get_stream("EVENTS").await.unwrap().cached_info().state.messages
}

#[tokio::test]
async fn published_means_stored_under_the_events_id() {
    let (_server, client, log) = toy::server().await;
    let receipt = log.publisher().publish(&lit("a", "ann"), &cause()).await.unwrap();
    let js = async_nats::jetstream::new(client);
    let message = js.get_stream("EVENTS").await.unwrap().get_raw_message(receipt.sequence).await.unwrap();
    assert_eq!(message.subject.as_str(), "lamp.lit.a.0");
    assert_eq!(message.headers.get("Nats-Msg-Id").unwrap().as_str(), receipt.id.as_str());
    assert_eq!(message.headers.get("content-type").unwrap().as_str(), jetkit::CONTENT_TYPE);
}

#[tokio::test]
async fn many_can_be_under_way_within_the_window() {
    let (_server, client, log) = toy::server().await;
    let publisher = log.publisher().with_window(8);
    let publishing = (0..500).map(|n| {
        let publisher = publisher.clone();
        async move { publisher.publish(&lit("a", &n.to_string()), &cause()).await }
    });
    let mut sequences: Vec<_> = join_all(publishing).await.into_iter().map(|r| r.unwrap().sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=500).collect::<Vec<_>>());
    assert_eq!(stored(&client).await, 500);
}

#[tokio::test]
async fn what_is_published_during_an_outage_is_stored_once_or_an_error() {
    let (mut server, client, log) = toy::server().await;
    let publisher = log.publisher();
    let publishing: Vec<_> = (0..100)
        .map(|n| {
            let publisher = publisher.clone();
            tokio::spawn(async move { publisher.publish(&lit("a", &n.to_string()), &cause()).await })
        })
        .collect();
    eventually(SOON, || async { (stored(&client).await > 0).then_some(()) }).await;
    server.kill();
    server.restart().await;
    for result in join_all(publishing).await {
        result.unwrap().expect("acknowledged within the deadline");
    }
    assert_eq!(stored(&server.client().await).await, 100);
    // Without a server, an error and not silence.
    server.kill();
    let impatient = log.with_deadline(Duration::from_millis(300)).publisher();
    let lost = impatient.publish(&lit("a", "x"), &cause()).await;
    assert!(matches!(lost, Err(PublishError::Unavailable(_))), "{lost:?}");
}

#[tokio::test]
async fn an_event_that_no_stream_takes_is_an_error() {
    let server = NatsServer::start().await;
    let log = EventLog::new(server.client().await, "/test").with_deadline(Duration::from_millis(300));
    let lost = log.publisher().publish(&lit("a", "x"), &cause()).await;
    assert!(matches!(lost, Err(PublishError::Unavailable(_))), "{lost:?}");
}

#[tokio::test]
async fn fire_and_forget_arrives_when_all_is_well() {
    let (_server, client, log) = toy::server().await;
    log.publisher().publish_async(&lit("a", "ann"), &cause()).await.unwrap();
    eventually(SOON, || async { (stored(&client).await == 1).then_some(()) }).await;
}

#[tokio::test]
async fn a_request_is_answered_or_fails_with_its_reason() {
    let (server, _client, log) = toy::server().await;
    let responder = server.client().await;
    let _mute = responder.subscribe("lamp.mute").await.unwrap();
    let mut questions = responder.subscribe("lamp.count").await.unwrap();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            responder.publish(question.reply.unwrap(), question.payload).await.unwrap();
        }
    });
    let publisher = log.publisher();
    // The server hears of the subscriptions in its own time, and of the first before the second.
    let answer =
        eventually(SOON, || async { publisher.request::<_, u32>("lamp.count", &7, SOON).await.ok() }).await;
    assert_eq!(answer, 7);
    let short = Duration::from_millis(100);
    let mute = publisher.request::<_, u32>("lamp.mute", &7, short).await;
    assert!(matches!(mute, Err(RequestError::TimedOut(_))), "{mute:?}");
    let nobody = publisher.request::<_, u32>("lamp.nobody", &7, SOON).await;
    assert!(matches!(nobody, Err(RequestError::NoResponder)), "{nobody:?}");
    let other = publisher.request::<_, String>("lamp.count", &7, SOON).await;
    assert!(matches!(other, Err(RequestError::Decode(_))), "{other:?}");
}
