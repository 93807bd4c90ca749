//! Commands to aggregates: [`jetkit::EventStore::execute`], and reading and publishing by hand.

use std::convert::Infallible;

use anyhow::{Context as _, Result, bail};
use async_nats::Client;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use common::account::MoneyDeposited;
use futures::StreamExt;
use futures::future::try_join_all;
use jetkit::subject::{self, EVENTS, EventSubject};
use jetkit::{Aggregate, Cause, EntityId, EventId, EventLog, EventStore};

use crate::arena::ACCOUNTS;
use crate::measure::{Sample, Stopwatch};
use crate::raw::{self, Document};
use crate::scenario::Run;

/// How many commands are under way at once, each to another account.
const LANES: usize = 64;

/// How many accounts are used again and again where they are to be in memory.
const WARM: usize = 256;

jetkit::events! {
    /// What happens to an account here.
    pub(crate) enum Deposited { Deposited(MoneyDeposited) }
}

/// An account that only grows.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Account {
    minor: i64,
}

impl Aggregate for Account {
    const ENTITY: &'static str = "account";
    type Event = Deposited;
    type Command = MoneyDeposited;
    type Rejection = Infallible;

    fn decide(&self, deposit: &MoneyDeposited) -> Result<Vec<Deposited>, Infallible> {
        Ok(vec![deposit.clone().into()])
    }

    fn apply(&mut self, Deposited::Deposited(deposit): &Deposited) {
        self.minor += deposit.amount.minor();
    }
}

/// The accounts, dealt out to the lanes.
fn lanes(accounts: usize) -> Result<Vec<Vec<MoneyDeposited>>> {
    let lane = |lane| (0..accounts).skip(lane).step_by(LANES).map(raw::deposit).collect();
    (0..LANES).map(lane).collect()
}

/// The kit. Cold: with a store that has nothing in memory, for every command.
pub(crate) async fn kit(run: Run, warm: bool) -> Result<Sample> {
    let log = EventLog::new(run.client.clone(), "/bench");
    let warm_store = log.store::<Account>();
    let lanes = lanes(if warm { WARM } else { ACCOUNTS })?;
    let execute = async |store: &EventStore<Account>, deposit: &MoneyDeposited| {
        let executed =
            store.execute(&deposit.account_id, deposit, &Cause::request(EventId::generate())).await?;
        std::hint::black_box(executed.state.minor);
        anyhow::Ok(())
    };
    if warm {
        for deposit in lanes.iter().flatten() {
            execute(&warm_store, deposit).await?;
        }
    }
    let watch = Stopwatch::start(run.server)?;
    try_join_all(lanes.iter().map(|lane| async {
        for deposit in lane.iter().cycle().take(run.messages / LANES) {
            if warm {
                execute(&warm_store, deposit).await?;
            } else {
                execute(&log.store(), deposit).await?;
            }
        }
        anyhow::Ok(())
    }))
    .await?;
    watch.stop(run.messages / LANES * LANES)
}

/// By hand. Warm: the version is known.
pub(crate) async fn raw(run: Run, warm: bool) -> Result<Sample> {
    let js = run.jetstream();
    let lanes = lanes(if warm { WARM } else { ACCOUNTS })?;
    let append = async |deposit: &MoneyDeposited, version: u64| {
        let (subject, message) = raw::deposit_message(deposit, version)?;
        let message = message.header(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0").header(
            "Nats-Expected-Last-Subject-Sequence-Subject",
            subject::of_version("account", &deposit.account_id, version),
        );
        raw::publish(&js, Ok((subject, message))).await
    };
    let mut versions = vec![vec![0; lanes[0].len()]; LANES];
    if warm {
        for (lane, versions) in lanes.iter().zip(&mut versions) {
            for (deposit, version) in lane.iter().zip(versions) {
                *version = load(&run.client, &deposit.account_id).await?.1 + 1;
                append(deposit, *version).await?;
            }
        }
    }
    let watch = Stopwatch::start(run.server)?;
    try_join_all(lanes.iter().zip(versions).map(|(lane, mut versions)| {
        let (client, append) = (&run.client, &append);
        async move {
            for n in 0..run.messages / LANES {
                let (deposit, version) = (&lane[n % lane.len()], &mut versions[n % lane.len()]);
                if !warm {
                    let (minor, loaded) = load(client, &deposit.account_id).await?;
                    std::hint::black_box(minor);
                    *version = loaded;
                }
                *version += 1;
                append(deposit, *version).await?;
            }
            anyhow::Ok(())
        }
    }))
    .await?;
    watch.stop(run.messages / LANES * LANES)
}

/// An account's balance and version, by one `multi_last` direct get (ADR-31).
async fn load(client: &Client, id: &EntityId) -> Result<(i64, u64)> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await?;
    let query = serde_json::json!({ "multi_last": [subject::of_entity("account", id)], "batch": 1024 });
    let request = format!("$JS.API.DIRECT.GET.{EVENTS}");
    client.publish_with_reply(request, inbox, query.to_string().into()).await?;
    let (mut minor, mut version) = (0, 0);
    loop {
        let answer = answers.next().await.context("the connection is closed")?;
        match answer.status.map_or(200, |status| status.as_u16()) {
            200 => {
                let document: Document<MoneyDeposited> = serde_json::from_slice(&answer.payload)?;
                minor += document.data.amount.minor();
                let subject = answer.headers.as_ref().and_then(|headers| headers.get("Nats-Subject"));
                let subject = subject.and_then(|subject| EventSubject::parse(subject.as_str()));
                version = subject.context("an answer without a subject")?.version;
            }
            204 => return Ok((minor, version)),
            status => bail!("status {status}"),
        }
    }
}
