//! The whole shop on three servers, whose leaders are killed while orders flow.

use std::time::Duration;

use e2e::RunningShop;
use harness::demo::{Progress, Traffic};
use jetkit::subject::EVENTS;
use jetkit::testing::NatsCluster;

const ORDERS: usize = 120;
const AT_ONCE: usize = 12;

/// How much traffic passes before a leader is killed, how much while it is away, and for how long it is waited for.
const MORE: usize = 24;
const AT_MOST: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_crash_of_the_server_that_leads_loses_and_repeats_nothing() {
    let mut cluster = NatsCluster::start().await;
    let mut running = RunningShop::start_on(&cluster).await.unwrap();
    let (shop, progress) = (running.shop.clone(), Progress::silent());
    let crashes = async {
        for _ in 0..2 {
            running.after(&progress, MORE, AT_MOST).await.unwrap();
            // The one that was killed before has caught up: with two away, nobody could be elected.
            cluster.in_sync(EVENTS).await;
            let leader = cluster.leader_of(EVENTS).await;
            assert!(progress.ended() < ORDERS, "all orders were done before the leader was killed");
            cluster.kill(leader);
            running.after(&progress, MORE, AT_MOST).await.unwrap();
            cluster.restart(leader).await;
            running.system.ready().await.unwrap();
        }
    };
    let (traffic, ()) = tokio::join!(Traffic::drive(&shop, ORDERS, AT_ONCE, &progress), crashes);
    running.audited(traffic.unwrap()).await.unwrap();
}
