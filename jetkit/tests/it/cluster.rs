//! What only shows when streams are replicated, and what nobody may notice of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use async_nats::Client;
use futures::future::join_all;
use jetkit::testing::{NatsCluster, eventually};
use jetkit::{EventLog, EventSet, ExecuteError, Health, PublishError, provision};

use crate::consumer::{note, quick, run, settled};
use crate::link::Link;
use crate::toy::{self, Lamp, LampCommand, LampLit, LampRejection, Notes, SOON, cause, id, lit};

/// How long a test waits for what may need an election or two.
const LATE: Duration = Duration::from_mins(1);

/// A cluster with the streams of the toy domain, each on all three nodes.
async fn cluster() -> (NatsCluster, Client, EventLog) {
    let cluster = NatsCluster::start().await;
    let client = cluster.client().await;
    provision::streams(&client, &toy::catalog(), 3).await.unwrap();
    let log = EventLog::new(client.clone(), "/test");
    (cluster, client, log)
}

fn light(by: &str) -> LampCommand {
    LampCommand::Light { lamp_id: id("a"), by: by.to_owned() }
}

/// An append is stored and its answer never arrives, while somebody else goes on writing.
async fn an_append_whose_answer_is_lost(direct: &Client, server: SocketAddr) {
    let link = Link::to(server).await;
    let store = EventLog::new(link.client().await, "/linked").store::<Lamp>();
    let other = EventLog::new(direct.clone(), "/other").store::<Lamp>();
    store.execute(&id("a"), &LampCommand::Fit { lamp_id: id("a"), watts: 60 }, &cause()).await.unwrap();

    link.lose_answers();
    let lighting = tokio::spawn(async move { store.execute(&id("a"), &light("ann"), &cause()).await });
    eventually(SOON, || async { (other.load(&id("a")).await.unwrap().version == 2).then_some(()) }).await;
    other.execute(&id("a"), &light("bob"), &cause()).await.unwrap();
    link.mend();

    let lit = lighting.await.unwrap().unwrap();
    assert!(lit.repeated, "it found its own event by the id");
    assert_eq!((lit.version, lit.state.lit, lit.events.len()), (2, 1, 1), "the answer is the first one");
    assert_eq!(other.history(&id("a")).await.unwrap().len(), 3, "nothing was written twice");
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_is_found_by_its_id_on_one_server() {
    let (server, client, _log) = toy::server().await;
    an_append_whose_answer_is_lost(&client, server.address()).await;
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_is_found_by_its_id_on_a_cluster() {
    let (cluster, client, _log) = cluster().await;
    an_append_whose_answer_is_lost(&client, cluster.address(0)).await;
}

#[tokio::test]
async fn two_writers_of_one_version_never_both_succeed_while_an_append_is_in_flight() {
    let (cluster, _client, log) = cluster().await;
    // One writes one event, the other a batch of two, of which the first is of the same type and the second is not.
    let [one, two] = [cluster.client().await, cluster.client().await]
        .map(|client| EventLog::new(client, "/writer").store::<Lamp>());
    let races = (0..100).map(|n| {
        let (one, two, lamp_id) = (one.clone(), two.clone(), id(&format!("l{n}")));
        tokio::spawn(async move {
            let fit = LampCommand::Fit { lamp_id: lamp_id.clone(), watts: 60 };
            let fit_and_light = LampCommand::FitAndLight { lamp_id: lamp_id.clone() };
            let (fitting, lighting) = (cause(), cause());
            let (fitted, lit) = tokio::join!(
                one.execute(&lamp_id, &fit, &fitting),
                two.execute(&lamp_id, &fit_and_light, &lighting),
            );
            (lamp_id, fitted.unwrap(), lit)
        })
    });
    for race in join_all(races).await {
        let (lamp_id, fitted, lit) = race.unwrap();
        let history = log.store::<Lamp>().history(&lamp_id).await.unwrap();
        let kinds: Vec<_> = history.iter().map(|r| (r.event.kind().0, r.version)).collect();
        match lit {
            Ok(_) => {
                assert_eq!(kinds, [("lamp.fitted", 1), ("lamp.lit", 2)]);
                assert!(fitted.events.is_empty(), "{lamp_id} was fitted by both");
            }
            Err(ExecuteError::Rejected(LampRejection::Fitted)) => {
                assert_eq!(kinds, [("lamp.fitted", 1)]);
                assert_eq!(fitted.events.len(), 1);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_consumer_that_finds_no_leader_when_it_starts_waits_for_one() {
    let (mut cluster, client, log) = cluster().await;
    log.publisher().publish(&lit("a", "first"), &cause()).await.unwrap();
    // What remains is no majority and elects nobody.
    cluster.kill(0);
    cluster.kill(1);

    let (health, notes) = (Health::new(), Notes::default());
    let waiting = |name: &str| {
        let consumer = quick(name).replicas(3).health(health.check(name)).on::<LampLit>(note(&notes));
        run(consumer, &client)
    };
    let (patient, stopped) = (waiting("patient"), waiting("stopped"));
    let check = |name: &str| health.report().checks[name].clone();
    for name in ["patient", "stopped"] {
        let told = eventually(LATE, || async { Some(check(name)).filter(|told| told.detail != "starting") });
        assert!(!told.await.ready);
    }
    stopped.stop().await;

    cluster.restart(0).await;
    cluster.restart(1).await;
    eventually(LATE, || async { (notes.all() == ["first"]).then_some(()) }).await;
    eventually(LATE, || async { check("patient").ready.then_some(()) }).await;
    patient.stop().await;
}

#[tokio::test]
async fn a_consumer_loses_and_repeats_nothing_while_every_node_is_killed_in_turn() {
    let (mut cluster, client, log) = cluster().await;
    let notes = Notes::default();
    let running = run(quick("c").replicas(3).on::<LampLit>(note(&notes)), &client);
    let publisher = log.publisher();
    // It has started.
    publisher.publish(&lit("l0", "first"), &cause()).await.unwrap();
    notes.reach(1).await;
    let mut published = BTreeSet::from(["first".to_owned()]);
    for node in 0..3 {
        cluster.in_sync("EVENTS").await;
        cluster.in_sync("INBOX_c").await;
        for turn in 0..40 {
            if turn == 20 {
                // Whatever it leads, of streams and durables, needs another leader.
                cluster.kill(node);
            }
            let (by, why) = (format!("{node}-{turn}"), cause());
            let event = lit(&format!("l{}", turn % 8), &by);
            eventually(LATE, || async {
                match publisher.publish(&event, &why).await {
                    Ok(_) => Some(()),
                    Err(PublishError::Unavailable(_)) => None,
                    Err(other) => panic!("{other}"),
                }
            })
            .await;
            published.insert(by);
        }
        cluster.restart(node).await;
    }
    cluster.in_sync("EVENTS").await;
    cluster.in_sync("INBOX_c").await;
    eventually(LATE, || async { (notes.all().len() >= published.len()).then_some(()) }).await;
    settled(&client, "c").await;
    let mut all = notes.all();
    all.sort();
    assert_eq!(all, published.into_iter().collect::<Vec<_>>());
    running.stop().await;
}
