//! Processes are killed while orders flow. Nothing may be lost, and nothing may happen twice.

use std::time::Duration;

use e2e::RunningShop;
use harness::demo::{Progress, Traffic};

const ORDERS: usize = 80;
/// Enough that there is traffic left while some of it waits for a service that is away.
const AT_ONCE: usize = 12;

/// How much traffic passes between two crashes, and while something is away; and for how long it is waited for.
const MORE: usize = 6;
const AT_MOST: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_crash_of_any_service_loses_and_repeats_nothing() {
    let mut running = RunningShop::start().await.unwrap();
    let services: Vec<_> = running.system.services().iter().map(|service| service.name.clone()).collect();
    let (shop, progress) = (running.shop.clone(), Progress::silent());
    let crashes = async {
        for service in &services {
            running.after(&progress, MORE, AT_MOST).await.unwrap();
            assert!(progress.ended() < ORDERS, "all orders were done before {service} was killed");
            running.system.kill(service);
            running.after(&progress, MORE, AT_MOST).await.unwrap();
            running.system.restart(service).await.unwrap();
            running.system.ready().await.unwrap();
        }
    };
    let (traffic, ()) = tokio::join!(Traffic::drive(&shop, ORDERS, AT_ONCE, &progress), crashes);
    running.audited(traffic.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_crash_of_nats_loses_and_repeats_nothing() {
    let mut running = RunningShop::start().await.unwrap();
    let (shop, progress) = (running.shop.clone(), Progress::silent());
    let crashes = async {
        for _ in 0..2 {
            running.after(&progress, 4 * MORE, AT_MOST).await.unwrap();
            assert!(progress.ended() < ORDERS, "all orders were done before NATS was killed");
            running.system.kill("nats");
            // A moment in which requests meet a shop without a log.
            running.after(&progress, 1, AT_MOST / 4).await.unwrap();
            running.system.restart("nats").await.unwrap();
            running.system.ready().await.unwrap();
        }
    };
    let (traffic, ()) = tokio::join!(Traffic::drive(&shop, ORDERS, AT_ONCE, &progress), crashes);
    running.audited(traffic.unwrap()).await.unwrap();
}
