//! The server that both sides work on, in the same state before each run.

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream::{self, Context};
use futures::{StreamExt, TryStreamExt};
use jetkit::subject::EVENTS;
use jetkit::testing::NatsServer;

use crate::measure::Sample;
use crate::raw;
use crate::scenario::{Before, Run, Scenario, Side};

/// How many accounts there are, and how many events each has.
pub(crate) const ACCOUNTS: usize = 2_000;
const HISTORY: u64 = 10;

/// A private server.
#[derive(Debug)]
pub(crate) struct Arena {
    server: NatsServer,
    /// How many orders are on the log and stay there.
    orders: usize,
}

impl Arena {
    pub(crate) async fn open(sync_always: bool) -> Result<Self> {
        let sync = if sync_always { "jetstream { store_dir: $STORE, sync_interval: always }" } else { "" };
        Ok(Self { server: NatsServer::with_config(sync).await, orders: 0 })
    }

    /// Lets one side do the work, on a worker of the runtime as in a service. (The main thread is not one.)
    pub(crate) async fn sample(
        &mut self,
        scenario: &Scenario,
        side: Side,
        messages: usize,
    ) -> Result<Sample> {
        let run = self.prepared(scenario, messages).await?;
        tokio::spawn(side(run)).await?
    }

    /// Makes the server ready for a run.
    async fn prepared(&mut self, scenario: &Scenario, messages: usize) -> Result<Run> {
        let client = self.server.client().await;
        let js = jetstream::new(client.clone());
        match scenario.before {
            Before::Nothing => fresh_streams(&js).await?,
            Before::Orders if self.orders == messages => {}
            Before::Orders => {
                fresh_streams(&js).await?;
                let orders = (0..messages).map(|n| raw::order_message(&raw::order(n)?, 1));
                store(&js, orders).await?;
                self.orders = messages;
            }
            Before::Accounts => {
                fresh_streams(&js).await?;
                let deposits = (1..=HISTORY).flat_map(|version| {
                    (0..ACCOUNTS).map(move |account| raw::deposit_message(&raw::deposit(account)?, version))
                });
                store(&js, deposits).await?;
            }
        }
        let server = self.server.pid().context("the server has ended")?;
        Ok(Run { client, server, messages })
    }
}

async fn fresh_streams(js: &Context) -> Result<()> {
    let names: Vec<_> = js.stream_names().try_collect().await?;
    for name in names {
        js.delete_stream(name).await?;
    }
    jetkit::provision::streams(&js.client(), &common::catalog(), 1).await?;
    Ok(())
}

/// Stores messages in their order, many at once.
pub(crate) async fn store(js: &Context, messages: impl Iterator<Item = Result<raw::Message>>) -> Result<()> {
    let sent = futures::stream::iter(messages).then(async |message| {
        let (subject, message) = message?;
        let ack = js.send_publish(subject, message).await?;
        Ok(async { anyhow::Ok(ack.await?) })
    });
    sent.try_buffered(512).try_for_each(|_ack| std::future::ready(Ok(()))).await
}

impl Run {
    pub(crate) fn jetstream(&self) -> Context {
        jetstream::new(self.client.clone())
    }

    /// Waits until the server has every ack of a durable.
    pub(crate) async fn acked(&self, durable: &str) -> Result<()> {
        let mut durable: jetstream::consumer::PullConsumer = self
            .jetstream()
            .get_consumer_from_stream(durable, EVENTS)
            .await
            .context("looking up the durable")?;
        loop {
            let info = durable.info().await?;
            if info.num_ack_pending == 0 && info.num_pending == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
