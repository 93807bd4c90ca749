//! `cargo xtask new-service`, from the command to the first event recorded.

use std::fs;
use std::time::Duration;

use harness::Workspace;
use jetkit::testing::eventually;
use jetkit::{Envelope, provision};
use serde_json::{Value, json};

use crate::copy::Copy;

/// Nobody's names: the test passes also where services have been added.
const NAME: &str = "trial-service";
/// One with a single event, where the code is another.
const SMALL: &str = "trial-tally";

#[tokio::test]
async fn a_new_service_is_one_command() {
    let original = Workspace::find().unwrap();
    let copy = Copy::of(&original);
    let new_service = |name, aggregate, events| {
        let command = ["new-service", name, "--aggregate", aggregate, "--events", events];
        copy.run(env!("CARGO_BIN_EXE_harness"), &command);
    };
    new_service(NAME, "trial_card", "trial_card.charged,trial_card.paid_out,trial_card.spent");
    new_service(SMALL, "tally", "tally.counted");

    let port = copy.workspace().service(NAME).unwrap().port;
    assert_eq!(port, original.services.iter().map(|service| service.port).max().unwrap() + 1);
    assert_eq!(copy.workspace().service(SMALL).unwrap().port, port + 1);
    let compose = fs::read_to_string(copy.tree.join("docker-compose.yml")).unwrap();
    for name in [NAME, SMALL] {
        assert!(compose.contains(&format!("\n  {name}:\n    <<: *service\n")), "{compose}");
        assert!(compose.contains(&format!("\n  {name}:\n")), "no volume for it:\n{compose}");
    }
    // What was written is formatted and passes the lints; its tests pass, and so do those of the contract.
    let both = ["-p", NAME, "-p", SMALL, "-p", "common"];
    copy.run("cargo", &[&["fmt", "--check"], &both[..]].concat());
    let lints = ["--no-deps", "--all-targets", "--", "-D", "warnings"];
    copy.run("cargo", &[&["clippy", "--locked"], &both[..], &lints].concat());
    copy.run("cargo", &[&["test", "--locked"], &both[..]].concat());

    let system = copy.start(&[NAME]).await;
    let card = format!("{}/trial-card/c-1", system.url(NAME).unwrap());
    let http = reqwest::Client::new();
    let spend = async || -> Value {
        let answer = http.post(&card).json(&json!({"type": "Spent", "quantity": 5})).send().await.unwrap();
        answer.error_for_status().unwrap().json().await.unwrap()
    };
    let once = json!({"id": "c-1", "charged": 0, "paid_out": 0, "spent": 5, "version": 1});
    assert_eq!(spend().await, once);
    let shown = eventually(Duration::from_secs(10), async || {
        http.get(&card).send().await.unwrap().error_for_status().ok()
    });
    assert_eq!(shown.await.json::<Value>().await.unwrap(), once);

    // A service that was built before the new events leaves them what they have: a place on the log.
    let client = async_nats::connect(system.nats_url()).await.unwrap();
    provision::streams(&client, &common::catalog(), 1).await.unwrap();
    assert_eq!(spend().await["version"], 2);
    let events = async_nats::jetstream::new(client).get_stream("EVENTS").await.unwrap();
    for version in 1..=2 {
        let subject = format!("trial_card.spent.c-1.{version}");
        let stored = events.get_last_raw_message_by_subject(&subject).await.unwrap();
        let envelope = Envelope::decode(&stored.payload).unwrap();
        assert_eq!(envelope.event_type(), "trial_card.spent");
    }
    system.stop().await.unwrap();
}
