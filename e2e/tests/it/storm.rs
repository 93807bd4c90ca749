//! Kill -9 of anything at any moment, while two thousand orders flow. A seed makes the moments and the victims the same
//! again, as far as a machine's load allows.
//!
//! `STORM_SEED` is the first seed, `STORM_ROUNDS` how many storms follow one another, each with the next seed:
//! `STORM_SEED=7 STORM_ROUNDS=20 cargo xtask test kills_at_any_moment`.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::RunningShop;
use fastrand::Rng;
use harness::demo::{Progress, Traffic};

const ORDERS: usize = 2_000;
const AT_ONCE: usize = 24;

/// Between the end of one outage and the next kill, and how long what was killed stays away, in milliseconds.
const PEACE_MS: std::ops::Range<u64> = 50..4_000;
const OUTAGE_MS: std::ops::Range<u64> = 0..1_500;

/// One kill in so many is NATS'.
const NATS_EVERY: usize = 8;

#[tokio::test]
async fn kills_at_any_moment_during_two_thousand_orders_lose_and_repeat_nothing() {
    let (first, rounds) = (setting("STORM_SEED").unwrap(), setting("STORM_ROUNDS").unwrap());
    for seed in first..first + rounds {
        storm(seed).await.unwrap();
    }
}

async fn storm(seed: u64) -> Result<()> {
    let mut random = Rng::with_seed(seed);
    let mut running = RunningShop::start().await?;
    let services: Vec<_> = running.system.services().iter().map(|service| service.name.clone()).collect();
    let (shop, progress) = (running.shop.clone(), Progress::silent());
    let mut kills = 0;
    let traffic = {
        let mut traffic = std::pin::pin!(Traffic::drive(&shop, ORDERS, AT_ONCE, &progress));
        loop {
            let victim = match random.usize(..NATS_EVERY) {
                0 => "nats",
                _ => random.choice(&services).map_or("nats", String::as_str),
            };
            let (peace, outage) = (random.u64(PEACE_MS), random.u64(OUTAGE_MS));
            tokio::select! {
                traffic = &mut traffic => break traffic?,
                // A moment that nobody chose: here the waiting is the subject.
                () = tokio::time::sleep(Duration::from_millis(peace)) => {}
            }
            running.system.kill(victim);
            kills += 1;
            tokio::select! {
                traffic = &mut traffic => {
                    running.system.restart(victim).await?;
                    break traffic?;
                }
                () = tokio::time::sleep(Duration::from_millis(outage)) => {}
            }
            running.system.restart(victim).await?;
        }
    };
    ensure!(kills >= 10, "only {kills} kills: this was no storm");
    running.system.ready().await?;
    running.audited(traffic).await.with_context(|| format!("storm {seed}, {kills} kills"))
}

/// A setting of the environment; 1 where it is not set.
fn setting(name: &str) -> Result<u64> {
    match env::var(name) {
        Ok(value) => value.parse().with_context(|| format!("{name}={value} is no number")),
        Err(_) => Ok(1),
    }
}
