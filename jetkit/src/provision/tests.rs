//! Every field of every stream, changed on a real server.

use serde_json::json;

use super::*;
use crate::drift::Owner;
use crate::inbox::InboxSettings;
use crate::inbox::jetstream::stream_config;
use crate::testing::NatsServer;

#[test]
fn a_cluster_that_is_still_gathering_is_waited_for() {
    let answered = |code: u16, err_code: u16| {
        let error = json!({ "code": code, "err_code": err_code, "description": "" });
        serde_json::from_value::<jetstream::Error>(error).unwrap()
    };
    for (code, err_code) in [(503, 10008), (503, 10118), (400, 10005)] {
        assert!(is_passing(&answered(code, err_code)), "{code} {err_code}");
    }
    for (code, err_code) in [(400, 10058), (404, 10059), (500, 10047)] {
        assert!(!is_passing(&answered(code, err_code)), "{code} {err_code}");
    }
}

/// Another value than ours for each field. [`None`]: there is none that one server takes.
fn another(field: &str, stream: &str) -> Option<Value> {
    Some(match field {
        "name" | "template_owner" | "placement" | "pause_until" | "num_replicas" => return None,
        "max_bytes" => json!(1_000_000_000),
        "max_msgs" => json!(3),
        "max_msgs_per_subject" => json!(7),
        "discard" => {
            json!(if ["KV_SNAPSHOTS", "ADVISORIES", "TIMERS"].contains(&stream) { "new" } else { "old" })
        }
        "discard_new_per_subject"
        | "no_ack"
        | "sealed"
        | "allow_rollup_hdrs"
        | "mirror_direct"
        | "allow_msg_ttl"
        | "allow_msg_schedules"
        | "allow_atomic"
        | "allow_msg_counter"
        | "allow_batched" => json!(true),
        "subjects" => json!(["something.else"]),
        "retention" => json!("interest"),
        "max_consumers" => json!(50),
        "max_age" => json!(300_000_000_000_u64),
        "max_msg_size" => json!(10_000),
        "storage" => json!("memory"),
        "duplicate_window" => json!(2_000_000_000),
        "description" => json!("a note"),
        "deny_delete" | "deny_purge" | "allow_direct" => json!(false),
        "republish" => json!({"src": ">", "dest": "copy.>"}),
        "mirror" => json!({"name": "OTHER"}),
        "sources" => json!([{"name": "OTHER"}]),
        "metadata" => json!({"team": "lamps"}),
        "subject_transform" => json!({"src": "lamp.>", "dest": "lamp.>"}),
        "compression" => json!("none"),
        "consumer_limits" => json!({"max_ack_pending": 5}),
        "first_seq" => json!(100),
        "persist_mode" => json!("async"),
        "subject_delete_marker_ttl" => json!(5_000_000_000_u64),
        other => panic!("{other} has an owner, and no value in this test"),
    })
}

fn changed(config: &Value, field: &str, value: &Value) -> Value {
    let mut changed = config.clone();
    changed[field] = value.clone();
    match field {
        // A limit of the subject's is needed, and a mirror has no subjects; what else a server asks for.
        "discard_new_per_subject" => {
            changed["discard"] = json!("new");
            changed["max_msgs_per_subject"] = json!(7);
        }
        "mirror" => drop(changed.as_object_mut().unwrap().remove("subjects")),
        "allow_rollup_hdrs" => changed["deny_purge"] = json!(false),
        "subject_delete_marker_ttl" => changed["allow_msg_ttl"] = json!(true),
        "subject_transform" => changed["subjects"] = json!(["lamp.>"]),
        "consumer_limits" => changed["consumer_limits"]["inactive_threshold"] = json!(60_000_000_000_u64),
        "max_age" => changed["duplicate_window"] = json!(60_000_000_000_u64),
        _ => {}
    }
    changed
}

fn is_ours(owner: Owner, wanted: &Config, field: &str) -> bool {
    let said = serde_json::to_value(wanted).unwrap()[field].clone();
    let said = !(said.is_null() || said == json!(0) || said == json!(-1) || said == json!(false));
    match owner {
        Owner::Ours | Owner::OursUnlessScheduled => true,
        Owner::OursIfSaid => said,
        Owner::OursToKeep => said || as_wanted(wanted).keeps_all(),
        _ => false,
    }
}

/// Changes one field, or makes the stream with it where the server never changes it; false if it does neither.
async fn change(js: &Context, wanted: &Config, field: &str, value: &Value) -> bool {
    let stream = &wanted.name;
    drop(js.delete_stream(stream).await);
    let ours = bring(js, wanted).await.unwrap().config;
    let other = changed(&ours, field, value);
    if let Ok(Some(updated)) = ask(js, "UPDATE", stream, &other).await
        && updated.config[field] == *value
    {
        return true;
    }
    js.delete_stream(stream).await.unwrap();
    matches!(ask(js, "CREATE", stream, &other).await, Ok(Some(created)) if created.config[field] == *value)
}

#[tokio::test]
async fn every_changed_field_of_a_stream_is_put_back_kept_or_refused() {
    let server = NatsServer::start().await;
    let js = jetstream::new(server.client().await);
    js.create_stream(Config { name: "OTHER".into(), ..Config::default() }).await.unwrap();
    let catalog = Catalog::new();
    let mut streams = deployment(&catalog, 1, &Sizes::default());
    streams[0].subjects = vec!["lamp.>".into()];
    streams.push(stream_config("c", &InboxSettings::default()));
    let (mut put_back, mut kept, mut refused) = (0, 0, 0);
    for wanted in &streams {
        for (field, owner) in OWNERS {
            let Some(mut value) = another(field, &wanted.name) else { continue };
            if value.is_boolean() {
                let ours = serde_json::to_value(wanted).unwrap()[field] == json!(true);
                value = json!(!ours);
            }
            if !change(&js, wanted, field, &value).await {
                continue;
            }
            let drifted = find(&js, &wanted.name).await.unwrap().unwrap().config;
            let brought = bring(&js, wanted).await;
            let now = find(&js, &wanted.name).await.unwrap().unwrap().config;
            let place = format!("{} {field}", wanted.name);
            if *owner == Owner::Fixed {
                let refusal = brought.unwrap_err().to_string();
                assert!(refusal.contains(field) && refusal.contains("must"), "{place}: {refusal}");
                refused += 1;
            } else if *owner == Owner::Union {
                let subjects = now["subjects"].as_array().unwrap();
                assert!(subjects.contains(&json!("something.else")), "{place}");
                assert!(wanted.subjects.iter().all(|ours| subjects.contains(&json!(ours))), "{place}");
                put_back += 1;
            } else if is_ours(*owner, wanted, field) {
                let found = brought.unwrap_or_else(|error| panic!("{place}: {error}"));
                assert_ne!(now[*field], value, "{place}: {now}");
                assert_eq!(found.drift_from(wanted), Vec::<String>::new(), "{place}");
                put_back += 1;
            } else {
                brought.unwrap_or_else(|error| panic!("{place}: {error}"));
                assert_eq!(now[*field], drifted[*field], "{place} is the operator's");
                kept += 1;
            }
        }
    }
    assert!(
        put_back > 80 && kept > 40 && refused > 20,
        "{put_back} put back, {kept} kept, {refused} refused"
    );
}

#[tokio::test]
async fn a_size_is_raised_to_the_setting_and_never_lowered() {
    let server = NatsServer::start().await;
    let js = jetstream::new(server.client().await);
    let with = |size: &str| {
        let sizes: Sizes = size.parse().unwrap();
        sizes.limit(dead_letters(1))
    };
    for (setting, is) in [("", -1), ("10", 10), ("20", 20), ("5", 20), ("DLQ=30,20", 30), ("", 30)] {
        bring(&js, &with(setting)).await.unwrap();
        let found = find(&js, DLQ).await.unwrap().unwrap();
        let mebibytes = found.config["max_bytes"].as_i64().unwrap();
        assert_eq!(if mebibytes > 0 { mebibytes >> 20 } else { mebibytes }, is, "{setting:?}");
    }
}
