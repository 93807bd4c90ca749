//! A view: complete up to its watermark, and never stopped by an event.

use std::collections::BTreeMap;
use std::time::Duration;

use eventkit::{Event, EventLog, Projection, Recorded, View};

use crate::toy::{Lamp, LampCommand, LampEvent, LampFitted, LampLit, SOON, cause, id, server};

/// How many watts each lamp has.
#[derive(Debug, Default)]
struct Watts(BTreeMap<String, u32>);

eventkit::events! {
    enum OnlyFitted { Fitted(LampFitted) }
}

impl Projection for Watts {
    type Event = OnlyFitted;

    fn apply(&mut self, event: &Recorded<OnlyFitted>) {
        let OnlyFitted::Fitted(fitted) = &event.event;
        self.0.insert(fitted.lamp_id.to_string(), fitted.watts);
    }
}

/// How often any lamp was lit, and every event's place on the log.
#[derive(Debug, Default)]
struct Usage {
    lit: usize,
    sequences: Vec<u64>,
}

impl Projection for Usage {
    type Event = LampEvent;

    fn apply(&mut self, event: &Recorded<LampEvent>) {
        self.sequences.push(event.sequence);
        self.lit += usize::from(matches!(event.event, LampEvent::Lit(_)));
    }
}

async fn fit(log: &EventLog, lamp: &str, watts: u32) -> u64 {
    let command = LampCommand::Fit { lamp_id: id(lamp), watts };
    log.store::<Lamp>().execute(&id(lamp), &command, &cause()).await.unwrap().sequence
}

async fn light(log: &EventLog, lamp: &str) -> u64 {
    let command = LampCommand::Light { lamp_id: id(lamp), by: "me".into() };
    log.store::<Lamp>().execute(&id(lamp), &command, &cause()).await.unwrap().sequence
}

#[tokio::test]
async fn a_writer_reads_what_it_wrote() {
    let (_server, client, log) = server().await;
    fit(&log, "a", 60).await;
    let view = View::<Usage>::follow(client);
    for count in 1..20 {
        let sequence = light(&log, "a").await;
        view.at_least(sequence, SOON).await.unwrap();
        assert_eq!(view.read(|usage| usage.lit), count);
        assert!(view.watermark() >= sequence);
    }
}

#[tokio::test]
async fn a_position_held_by_an_event_that_the_view_does_not_follow_is_reached() {
    let (_server, client, log) = server().await;
    let view = View::<Watts>::follow(client);
    fit(&log, "a", 60).await;
    let sequence = light(&log, "a").await;
    view.at_least(sequence, SOON).await.unwrap();
    assert_eq!(view.read(|watts| watts.0["a"]), 60);
}

#[tokio::test]
async fn a_position_that_is_not_there_yet_is_waited_for_and_then_refused() {
    let (_server, client, log) = server().await;
    let sequence = fit(&log, "a", 60).await;
    let view = View::<Watts>::follow(client);
    view.caught_up().await;
    let behind = view.at_least(sequence + 1, Duration::from_millis(100)).await.unwrap_err();
    assert_eq!((behind.wanted, behind.at), (sequence + 1, sequence));
}

#[tokio::test]
async fn an_event_that_cannot_be_read_does_not_stop_the_view() {
    let (_server, client, log) = server().await;
    fit(&log, "a", 60).await;
    let js = async_nats::jetstream::new(client.clone());
    let no_lamp = r#"{"specversion":"1.0","id":"x","type":"lamp.lit","data":5}"#;
    for (version, poison) in [(1, "not an event"), (2, no_lamp), (3, "")] {
        let subject = format!("{}.poison.{version}", LampLit::TYPE);
        js.publish(subject, poison.into()).await.unwrap().await.unwrap();
    }
    let view = View::<Usage>::follow(client);
    let sequence = light(&log, "a").await;
    view.at_least(sequence, SOON).await.unwrap();
    assert_eq!(view.read(|usage| usage.sequences.clone()), [1, 5]);
}

#[tokio::test]
async fn a_view_outlives_its_server_and_sees_each_event_once() {
    let (mut server, client, log) = server().await;
    fit(&log, "a", 60).await;
    let view = View::<Usage>::follow(client);
    view.caught_up().await;
    server.kill();
    let impatient = tokio::spawn({
        let view = view.clone();
        async move { view.at_least(2, SOON).await }
    });
    server.restart().await;
    let log = EventLog::new(server.client().await, "/test");
    let sequence = light(&log, "a").await;
    view.at_least(sequence, SOON).await.unwrap();
    impatient.await.unwrap().unwrap();
    assert_eq!(view.read(|usage| usage.sequences.clone()), [1, sequence]);
}
