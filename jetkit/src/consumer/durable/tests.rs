//! Every field of a durable, changed on a real server.

use async_nats::jetstream::{self, stream};

use super::*;
use crate::drift::Owner;
use crate::testing::NatsServer;

/// Another value than ours for each field. [`None`]: it has no other value that a server takes for a pull consumer.
fn another(field: &str) -> Option<Value> {
    Some(match field {
        "durable_name" | "name" | "deliver_group" | "flow_control" | "idle_heartbeat" | "rate_limit_bps"
        | "priority_timeout" => return None,
        "deliver_subject" => json!("somewhere"),
        "description" => json!("a note"),
        "deliver_policy" => json!("new"),
        "ack_policy" => json!("none"),
        "ack_wait" => json!(7_000_000_000_u64),
        "max_deliver" => json!(3),
        "filter_subject" => json!("lamp.lit.>"),
        "filter_subjects" => json!(["lamp.broken.>"]),
        "replay_policy" => json!("original"),
        "sample_freq" => json!("50"),
        "max_waiting" => json!(9),
        "headers_only" | "mem_storage" => json!(true),
        "max_ack_pending" | "max_batch" | "max_bytes" | "num_replicas" => json!(1),
        "max_expires" => json!(1_000_000_000_u64),
        "inactive_threshold" => json!(60_000_000_000_u64),
        "metadata" => json!({"team": "lamps"}),
        "backoff" => json!([1_000_000_000_u64]),
        "priority_groups" => json!(["g"]),
        "priority_policy" => json!("overflow"),
        "pause_until" => json!("2100-01-01T00:00:00Z"),
        other => panic!("{other} has an owner, and no value in this test"),
    })
}

/// The configuration with a field changed, and what belongs to it.
fn changed(config: &Value, field: &str, value: &Value) -> Value {
    let mut changed = config.clone();
    changed[field] = value.clone();
    match field {
        "filter_subject" => changed["filter_subjects"] = json!([]),
        "priority_groups" => changed["priority_policy"] = json!("overflow"),
        "priority_policy" => changed["priority_groups"] = json!(["g"]),
        "backoff" => changed["max_deliver"] = json!(2),
        "deliver_subject" => changed["max_waiting"] = json!(0),
        "ack_policy" => changed["max_ack_pending"] = json!(0),
        _ => {}
    }
    changed
}

async fn server() -> (NatsServer, Context) {
    let server = NatsServer::start().await;
    let js = jetstream::new(server.client().await);
    let lamps =
        stream::Config { name: "LAMPS".into(), subjects: vec!["lamp.>".into()], ..Default::default() };
    js.create_stream(lamps).await.unwrap();
    (server, js)
}

fn durable(name: &str) -> Durable {
    Durable {
        stream: "LAMPS",
        name: name.to_owned(),
        filters: vec!["lamp.fitted.>".into(), "lamp.lit.>".into()],
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 100,
    }
}

#[tokio::test]
async fn every_changed_field_of_a_durable_is_put_back_kept_or_refused() {
    let (_server, js) = server().await;
    let mut seen = Vec::new();
    for (field, owner) in OWNERS {
        let Some(value) = another(field) else { continue };
        let durable = durable(field);
        durable.bind(&js, DeliverPolicy::All, Moment::Start).await.unwrap();
        let ours = durable.find(&js).await.unwrap().unwrap().config;
        let other = changed(&ours, field, &value);
        let updated = durable.write(&js, "update", &other).await;
        let took = updated.as_ref().is_ok_and(|found| found.config[*field] == value);
        if !took {
            // The server never changes it: somebody has made the durable like this.
            js.delete_consumer_from_stream(field, "LAMPS").await.unwrap();
            durable.write(&js, "create", &other).await.unwrap_or_else(|error| panic!("{field}: {error:#}"));
        }
        let running = durable.look(&js, Moment::Running).await.unwrap().unwrap();
        let reported = durable.check(&running, Moment::Running);
        let bound = durable.bind(&js, DeliverPolicy::All, Moment::Start).await;
        let now = durable.find(&js).await.unwrap().unwrap().config;
        match owner {
            Owner::Ours => {
                bound.unwrap();
                // The server puts the first step of a backoff in the place of ack_wait.
                if *field != "backoff" {
                    reported.unwrap();
                }
                assert_eq!(running.config[*field], ours[*field], "{field} is put back while running");
                assert_eq!(now[*field], ours[*field], "{field}");
            }
            Owner::OursByRelease => {
                bound.unwrap();
                assert_eq!(running.config[*field], value, "{field} is another release's while running");
                assert!(reported.unwrap_err().to_string().contains(field), "{field}");
                assert_eq!(now[*field], ours[*field], "{field} is put back at the start");
            }
            Owner::Operators => {
                bound.unwrap();
                reported.unwrap();
                assert_eq!(now[*field], running.config[*field], "{field} is the operator's");
                assert_ne!(now[*field], ours[*field], "{field} is the operator's");
            }
            Owner::Fixed => {
                let refusal = bound.unwrap_err().to_string();
                assert!(
                    refusal.contains(field) && refusal.contains("cannot be changed"),
                    "{field}: {refusal}"
                );
            }
            _ => panic!("{field}: no durable has such an owner"),
        }
        seen.push(*field);
    }
    assert_eq!(seen.len(), OWNERS.len() - 7, "{seen:?}");
}

#[tokio::test]
async fn a_durable_made_by_hand_with_one_filter_is_taken_over() {
    let (_server, js) = server().await;
    let durable = durable("by-hand");
    let by_hand =
        json!({"durable_name": "by-hand", "ack_policy": "explicit", "filter_subject": "lamp.lit.>"});
    durable.write(&js, "create", &by_hand).await.unwrap();
    durable.bind(&js, DeliverPolicy::All, Moment::Start).await.unwrap();
    let now = durable.find(&js).await.unwrap().unwrap().config;
    assert_eq!(now["filter_subjects"], json!(["lamp.fitted.>", "lamp.lit.>"]));
}
