//! Streams are created once, brought up to date, and refused where they cannot be.

use std::time::Duration;

use async_nats::jetstream::stream::DiscardPolicy;
use async_nats::jetstream::{self, stream};
use jetkit::provision::{self, ProvisionError};
use jetkit::testing::NatsServer;
use jetkit::{Catalog, EntityId, Event};
use serde::{Deserialize, Serialize};

use crate::toy::catalog;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SwitchPressed {
    switch_id: EntityId,
}

impl Event for SwitchPressed {
    const TYPE: &'static str = "switch.pressed";

    fn entity_id(&self) -> &EntityId {
        &self.switch_id
    }
}

fn sorted(mut subjects: Vec<String>) -> Vec<String> {
    subjects.sort();
    subjects
}

async fn config(js: &jetstream::Context, stream: &str) -> stream::Config {
    js.get_stream(stream).await.unwrap().cached_info().config.clone()
}

#[tokio::test]
async fn many_services_may_start_at_the_same_moment() {
    let server = NatsServer::start().await;
    let mut starts = tokio::task::JoinSet::new();
    for i in 0..12 {
        let client = server.client().await;
        let catalog = if i % 2 == 0 { catalog() } else { catalog().with::<SwitchPressed>() };
        starts.spawn(async move { provision::streams(&client, &catalog, 1).await });
    }
    while let Some(started) = starts.join_next().await {
        started.unwrap().unwrap();
    }
    let js = jetstream::new(server.client().await);
    let events = config(&js, "EVENTS").await;
    assert_eq!(sorted(events.subjects), sorted(catalog().with::<SwitchPressed>().subjects()));
    assert!(events.deny_delete && events.deny_purge && events.allow_direct && events.allow_atomic_publish);
    assert_eq!(events.duplicate_window, provision::DUPLICATE_WINDOW);
    assert_eq!(events.max_message_size, 256 * 1024);
    assert_eq!(config(&js, "DLQ").await.subjects, ["dlq.>"]);
    assert_eq!(config(&js, "ADVISORIES").await.max_age, provision::advisories(1).max_age);
}

#[tokio::test]
async fn a_binary_that_knows_fewer_events_takes_no_subject_away() {
    let server = NatsServer::start().await;
    let client = server.client().await;
    let js = jetstream::new(client.clone());
    provision::streams(&client, &catalog().with::<SwitchPressed>(), 1).await.unwrap();
    let before = config(&js, "EVENTS").await;
    provision::streams(&client, &catalog(), 1).await.unwrap();
    assert_eq!(config(&js, "EVENTS").await, before);
}

#[tokio::test]
async fn a_new_event_type_reaches_an_existing_stream() {
    let server = NatsServer::start().await;
    let client = server.client().await;
    provision::streams(&client, &Catalog::new().with::<SwitchPressed>(), 1).await.unwrap();
    provision::streams(&client, &catalog(), 1).await.unwrap();
    let subjects = config(&jetstream::new(client), "EVENTS").await.subjects;
    assert_eq!(sorted(subjects), sorted(catalog().with::<SwitchPressed>().subjects()));
}

#[tokio::test]
async fn drift_is_put_right_and_the_operators_choices_stay() {
    let server = NatsServer::start().await;
    let client = server.client().await;
    let js = jetstream::new(client.clone());
    provision::streams(&client, &catalog(), 1).await.unwrap();
    let drifted = stream::Config {
        max_message_size: 10,
        allow_direct: false,
        max_bytes: 1 << 30,
        ..config(&js, "EVENTS").await
    };
    js.update_stream(drifted).await.unwrap();
    provision::streams(&client, &catalog(), 1).await.unwrap();
    let events = config(&js, "EVENTS").await;
    assert_eq!((events.max_message_size, events.allow_direct), (provision::MAX_EVENT_BYTES, true));
    assert_eq!(events.max_bytes, 1 << 30);
}

#[tokio::test]
async fn limits_that_would_delete_events_are_taken_away() {
    let server = NatsServer::start().await;
    let client = server.client().await;
    let js = jetstream::new(client.clone());
    let limited = stream::Config {
        name: "EVENTS".into(),
        subjects: catalog().subjects(),
        max_age: Duration::from_secs(121),
        max_messages: 3,
        max_messages_per_subject: 1,
        max_bytes: 1_000_000,
        discard: DiscardPolicy::Old,
        allow_direct: true,
        ..Default::default()
    };
    js.create_stream(limited).await.unwrap();
    provision::streams(&client, &catalog(), 1).await.unwrap();
    let events = config(&js, "EVENTS").await;
    assert_eq!((events.max_age, events.max_messages), (Duration::ZERO, -1));
    assert_eq!((events.max_messages_per_subject, events.discard), (-1, DiscardPolicy::New));
    assert_eq!(events.max_bytes, 1_000_000, "how much there may be stays the operator's choice");
}

#[tokio::test]
async fn a_stream_that_cannot_be_made_right_is_refused_with_the_difference() {
    let server = NatsServer::start().await;
    let client = server.client().await;
    let js = jetstream::new(client.clone());
    let config = stream::Config {
        name: "EVENTS".into(),
        subjects: vec!["lamp.>".into()],
        storage: stream::StorageType::Memory,
        ..Default::default()
    };
    js.create_stream(config).await.unwrap();
    let refusal = provision::streams(&client, &catalog(), 1).await.unwrap_err();
    assert!(matches!(&refusal, ProvisionError::Refused { differences, .. } if differences.len() == 1));
    assert!(refusal.to_string().contains(r#"storage: is "memory", must be "file""#), "{refusal}");
}

#[tokio::test]
async fn an_overlapping_stream_is_refused_in_the_servers_words() {
    let server = NatsServer::start().await;
    let client = server.client().await;
    let other =
        stream::Config { name: "OTHER".into(), subjects: vec!["lamp.lit".into()], ..Default::default() };
    jetstream::new(client.clone()).create_stream(other).await.unwrap();
    let refusal = provision::streams(&client, &catalog(), 1).await.unwrap_err();
    assert!(refusal.to_string().contains("overlap"), "{refusal}");
}

#[tokio::test]
async fn a_server_without_jetstream_is_named_as_the_reason() {
    let server =
        NatsServer::with_config("no_auth_user: x\naccounts { A { users: [{user: x, password: x}] } }").await;
    let refusal = provision::streams(&server.client().await, &catalog(), 1).await.unwrap_err();
    assert!(format!("{refusal}").contains("JetStream"), "{refusal}");
}
