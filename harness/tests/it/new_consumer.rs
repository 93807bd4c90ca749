//! `cargo xtask new-consumer`, from the command to the first event handled.

use std::fs;
use std::time::Duration;

use harness::Workspace;
use jetkit::testing::eventually;

use crate::copy::Copy;

/// Nobody's name: the test passes also where consumers have been added.
const NAME: &str = "consumer-trial-run";

const ORDER: &str = include_str!("../../../common/tests/golden/order.placed.v2.json");

#[tokio::test]
async fn a_new_consumer_is_one_command() {
    let original = Workspace::find().unwrap();
    let copy = Copy::of(&original);
    let command = ["new-consumer", "trial-run", "--on", "order.placed,payment.processed"];
    copy.run(env!("CARGO_BIN_EXE_harness"), &command);

    let workspace = copy.workspace();
    let last_port = original.services.iter().map(|service| service.port).max().unwrap();
    assert_eq!(workspace.service(NAME).unwrap().port, last_port + 1);
    let main = fs::read_to_string(copy.tree.join(NAME).join("src/main.rs")).unwrap();
    assert!(main.lines().count() <= 20, "main.rs has grown:\n{main}");
    let compose = fs::read_to_string(copy.tree.join("docker-compose.yml")).unwrap();
    assert!(compose.contains(&format!("\n  {NAME}:\n    <<: *service\n")), "{compose}");
    assert!(compose.ends_with(&format!("\n  {NAME}:\n")), "no volume for it:\n{compose}");
    // What was written is formatted, passes the lints, and its own test passes.
    copy.run("cargo", &["fmt", "--package", NAME, "--check"]);
    copy.run(
        "cargo",
        &["clippy", "--locked", "-p", NAME, "--no-deps", "--all-targets", "--", "-D", "warnings"],
    );
    copy.run("cargo", &["test", "--locked", "-p", NAME]);

    let system = copy.start(&[NAME]).await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(system.nats_url()).await.unwrap());
    jetstream.publish("order.placed.o-1.1", ORDER.into()).await.unwrap().await.unwrap();

    let handled = async || {
        let stream = jetstream.get_stream_no_info("EVENTS").await.ok()?;
        let consumer: async_nats::jetstream::consumer::PullConsumer = stream.get_consumer(NAME).await.ok()?;
        let info = consumer.cached_info();
        (info.ack_floor.stream_sequence == 1).then_some(())
    };
    eventually(Duration::from_secs(20), handled).await;
    system.stop().await.unwrap();
    let log = fs::read_to_string(copy.tree.join("data/logs").join(format!("{NAME}.log"))).unwrap();
    assert!(
        log.contains("01890a5d-ac96-774b-bcce-b302099a0004"),
        "the handler did not say what it handled:\n{log}"
    );
}
