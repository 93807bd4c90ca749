//! The consumer as `main` wires it: what arrives on the log is handled, or kept as a dead letter.

use std::time::Duration;

use jetkit::async_nats::jetstream::{self, consumer::PullConsumer};
use jetkit::testing::eventually;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use {{ plan.library }}::announcer::Announcer;

use crate::Harness;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_event_is_handled_and_nonsense_is_a_dead_letter() {
    let service = Harness::start().await;
    let client = service.log.client().clone();
    let stop = CancellationToken::new();
    let consumer = {{ plan.library }}::consumer(Announcer);
    let running = tokio::spawn(consumer.run(client.clone(), stop.clone()));

    client.publish("{{ plan.first().event_type }}.a-0.1", "not an event".into()).await.unwrap();
    service.http.post("/{{ plan.path }}/a-1", json!({"type": "{{ plan.first().variant }}", "quantity": 5})).await;

    let jetstream = jetstream::new(client);
    eventually(SOON, async || {
        let stream = jetstream.get_stream_no_info("EVENTS").await.ok()?;
        let durable: PullConsumer = stream.get_consumer("{{ plan.member.package }}").await.ok()?;
        (durable.cached_info().ack_floor.stream_sequence == 2).then_some(())
    })
    .await;
    let dead_letters = jetstream.get_stream("DLQ").await.unwrap().cached_info().state.messages;
    assert_eq!(dead_letters, 1, "only what is no event");
    stop.cancel();
    running.await.unwrap().unwrap();
}
