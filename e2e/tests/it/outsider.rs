//! A producer and observer that nobody here wrote: nats-py and the CloudEvents SDK (`python/outsider.py`).

use e2e::{RunningShop, python_file, python_packages};
use harness::demo::Traffic;
use serde_json::{Value, json};
use tokio::process::Command;

#[tokio::test]
async fn a_stranger_with_another_client_is_served() {
    let packages = python_packages("requirements.txt").unwrap();
    let running = RunningShop::start().await.unwrap();
    let shop = &running.shop;
    let stock = json!({"received": 10});
    let received = shop.post("consumer-inventory", "/stock/lamp/receipts", "lamps", &stock).await.unwrap();
    received.expect(200).unwrap();

    let output = Command::new("python3")
        .arg(python_file("outsider.py"))
        .args([running.system.nats_url(), running.system.url("order-service").unwrap(), "run-1".to_owned()])
        .env("PYTHONPATH", packages)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let saw: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(saw["cloud_events"].as_u64().unwrap() >= 4, "{saw}");
    assert_eq!(saw["dead_letters"], 1, "{saw}");

    shop.quiet().await.unwrap();
    for order in ["run-1-flat", "run-1-cloud"] {
        let path = format!("/reservations/{order}");
        let reservation: Value = shop.get("consumer-inventory", &path).await.unwrap();
        assert_eq!(reservation["status"], "reserved", "{reservation}");
        let mails: Vec<Value> =
            shop.list("consumer-email", &format!("/mails?order_id={order}")).await.unwrap();
        let told: Vec<_> = mails.iter().map(|mail| (&mail["kind"], &mail["status"], &mail["to"])).collect();
        let told = json!(told);
        let to = "run-1@example.com";
        assert_eq!(told, json!([["order_placed", "sent", to], ["order_confirmed", "sent", to]]));
    }
    let traffic = Traffic {
        poison: vec![b"poison of run-1: not even JSON \0".to_vec()],
        received: [("lamp".parse().unwrap(), 10)].into(),
        ..Traffic::default()
    };
    running.audited(traffic).await.unwrap();
}
