//! Two processes with sixteen tasks each take money from one account that has too little for all of them, while
//! servers are killed. What was accepted must be what left the account, and nothing else may have happened.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::str::FromStr;
use std::time::Duration;

use common::account::AccountEvent;
use jetkit::testing::{NatsCluster, NatsServer, cause, id, spawn_tied, tied_command};
use jetkit::{Cause, EventId, EventLog, EventStore, ExecuteError, StoreError, provision};
use payment_service::account::{Account, AccountCommand, AccountRejection};
use tokio::sync::mpsc;

use crate::test_service::usd;

const PROCESSES: usize = 2;
const TASKS: usize = 16;
const ROUNDS: usize = 3;
/// How many withdrawals a task asks for in one round.
const EACH: usize = 6;
/// How many outcomes of a round are awaited before a server is killed: most of the round is then still to come.
const BEFORE_A_KILL: usize = 20;
/// How often a task asks again for what it does not know the outcome of.
const PATIENCE: usize = 100;
/// How long a round may take. It is bounded by elections, not by the work.
const ROUND_DEADLINE: Duration = Duration::from_mins(2);

/// What became of one withdrawal, on a line from a process to the test.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    /// The id of the request that it was for.
    cause: String,
    minor: i64,
    /// The version that it became; 0 for a refused one.
    version: u64,
    /// How often the command was given until the outcome was known.
    given: usize,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, minor, version, given } = self;
        write!(f, "outcome: {cause} {minor} {version} {given}")
    }
}

impl FromStr for Outcome {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        // The test harness may have begun the line.
        let mut words = line.split_once("outcome: ").ok_or(())?.1.split(' ');
        let mut next = || words.next().unwrap();
        Ok(Self {
            cause: next().to_owned(),
            minor: next().parse().unwrap(),
            version: next().parse().unwrap(),
            given: next().parse().unwrap(),
        })
    }
}

/// What a task asks for: 1 to 97 cents.
fn amount(process: usize, task: usize, round: usize, turn: usize) -> i64 {
    i64::try_from(1 + (process * 41 + task * 7 + round * 29 + turn * 13) % 97).unwrap()
}

/// Three quarters of what will be asked for.
fn enough_for_most() -> i64 {
    let mut all = 0;
    for process in 0..PROCESSES {
        for task in 0..TASKS {
            for round in 0..ROUNDS {
                all += (0..EACH).map(|turn| amount(process, task, round, turn)).sum::<i64>();
            }
        }
    }
    all * 3 / 4
}

async fn withdraw(store: &EventStore<Account>, cause: &str, minor: i64) -> Outcome {
    let command = AccountCommand::Withdraw { amount: usd(minor) };
    let why = Cause::request(EventId::new(cause).unwrap());
    for given in 1..=PATIENCE {
        let version = match store.execute(&id("acc"), &command, &why).await {
            Ok(executed) => executed.version,
            Err(ExecuteError::Rejected(AccountRejection::InsufficientFunds { .. })) => 0,
            // Perhaps it was stored: the same command under the same cause finds out.
            Err(ExecuteError::Conflict { .. } | ExecuteError::Store(StoreError::Unavailable(_))) => continue,
            Err(other) => panic!("{other}"),
        };
        return Outcome { cause: cause.to_owned(), minor, version, given };
    }
    panic!("{cause} has no outcome after {PATIENCE} times");
}

/// One of the processes of the tests below. It does a round for every line that it reads.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_withdraws() {
    let Ok(urls) = std::env::var("WITHDRAWALS_TEST_CHILD_OF") else { return };
    let process: usize = std::env::var("WITHDRAWALS_TEST_CHILD").unwrap().parse().unwrap();
    let urls: Vec<_> = urls.split(',').collect();
    let log = EventLog::new(async_nats::connect(&urls[..]).await.unwrap(), "/test");
    let impatient = log.with_deadline(Duration::from_millis(500));
    // Half of the tasks queue at one store, as those of a service do. The others race with everybody, and give up
    // before a new leader can be there.
    let shared = log.store::<Account>();
    let stores: Vec<_> = (0..TASKS)
        .map(|task| if task % 2 == 0 { shared.clone() } else { impatient.store::<Account>() })
        .collect();
    for round in 0.. {
        let read = || std::io::stdin().read_line(&mut String::new());
        if tokio::task::spawn_blocking(read).await.unwrap().unwrap() == 0 {
            return;
        }
        let tasks = stores.iter().cloned().enumerate().map(|(task, store)| {
            tokio::spawn(async move {
                for turn in 0..EACH {
                    let cause = format!("p{process}-t{task}-r{round}-n{turn}");
                    println!("{}", withdraw(&store, &cause, amount(process, task, round, turn)).await);
                }
            })
        });
        futures::future::try_join_all(tasks.collect::<Vec<_>>()).await.unwrap();
    }
}

/// The processes, and what they have told so far.
struct Rush {
    children: Vec<(Child, ChildStdin)>,
    told: mpsc::UnboundedReceiver<Outcome>,
    outcomes: Vec<Outcome>,
}

impl Rush {
    /// Opens the account and starts the processes.
    async fn start(log: &EventLog, urls: &[String]) -> Self {
        let open = AccountCommand::Open {
            account_id: id("acc"),
            owner: "Alice".to_owned(),
            initial_balance: usd(enough_for_most()),
        };
        log.store::<Account>().execute(&id("acc"), &open, &cause()).await.unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        let children = (0..PROCESSES).map(|process| {
            let mut command = tied_command(std::env::current_exe().unwrap());
            command.args(["--exact", "withdrawals::child_that_withdraws", "--nocapture"]);
            command.env("WITHDRAWALS_TEST_CHILD_OF", urls.join(","));
            command.env("WITHDRAWALS_TEST_CHILD", process.to_string());
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = spawn_tied(command).unwrap();
            let (orders, lines) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
            let tell = tell.clone();
            std::thread::spawn(move || {
                let outcomes = lines.lines().map_while(Result::ok).filter_map(|line| line.parse().ok());
                outcomes.for_each(|outcome| drop(tell.send(outcome)));
            });
            (child, orders)
        });
        Self { children: children.collect(), told, outcomes: Vec::new() }
    }

    fn begin_round(&mut self) {
        for (_, orders) in &mut self.children {
            writeln!(orders, "go").unwrap();
        }
    }

    /// Waits for so many more outcomes.
    async fn outcomes(&mut self, count: usize) {
        let until = self.outcomes.len() + count;
        while self.outcomes.len() < until {
            let next = tokio::time::timeout(ROUND_DEADLINE, self.told.recv()).await;
            self.outcomes.push(next.expect("the round goes on").expect("both processes live"));
        }
    }

    /// Waits for the rest of a round of which so many outcomes are known.
    async fn finish_round(&mut self, known: usize) {
        self.outcomes(PROCESSES * TASKS * EACH - known).await;
    }

    /// Ends the processes and compares what they were told with what the log holds.
    async fn audit(mut self, log: &EventLog) -> Vec<Outcome> {
        for (mut child, orders) in std::mem::take(&mut self.children) {
            drop(orders);
            assert!(child.wait().unwrap().success());
        }
        assert_eq!(self.told.recv().await, None, "nothing is told twice");

        let accounts = log.store::<Account>();
        let history = accounts.history(&id("acc")).await.unwrap();
        let (mut balance, mut withdrawn) = (0, BTreeSet::new());
        for (recorded, version) in history.iter().zip(1..) {
            assert_eq!(recorded.version, version, "no version is missing and none is there twice");
            match &recorded.event {
                AccountEvent::Opened(opened) => balance = opened.initial_balance.minor(),
                AccountEvent::Deposited(_) => panic!("nobody deposits"),
                AccountEvent::Withdrawn(event) => {
                    balance -= event.amount.minor();
                    let cause = recorded.meta.causation_id.as_ref().unwrap().to_string();
                    withdrawn.insert((cause, event.amount.minor(), version));
                }
            }
            assert!(balance >= 0, "overdrawn at version {version}");
        }
        assert_eq!(withdrawn.len() + 1, history.len(), "no command was carried out twice");
        let (refused, accepted): (Vec<_>, Vec<_>) = self.outcomes.iter().partition(|o| o.version == 0);
        let told: BTreeSet<_> = accepted.iter().map(|o| (o.cause.clone(), o.minor, o.version)).collect();
        assert_eq!(withdrawn, told, "what happened (left), what was answered (right)");
        let left: i64 = accepted.iter().map(|o| o.minor).sum();
        assert_eq!(balance, enough_for_most() - left);
        assert_eq!(accounts.load(&id("acc")).await.unwrap().state.ledger().unwrap().balance.minor(), balance);
        assert!(!refused.is_empty(), "there was too little for all");
        assert!(
            refused.iter().all(|outcome| outcome.minor > balance),
            "what could be paid at the end was paid"
        );
        self.outcomes
    }
}

#[tokio::test]
async fn no_withdrawal_overdraws_or_is_lost_when_the_server_crashes() {
    let mut server = NatsServer::start().await;
    let client = server.client().await;
    provision::streams(&client, &common::catalog(), 1).await.unwrap();
    let log = EventLog::new(client, "/test");
    let mut rush = Rush::start(&log, &[server.url()]).await;
    for round in 0..ROUNDS {
        rush.begin_round();
        rush.outcomes(BEFORE_A_KILL).await;
        if round == 1 {
            server.restart().await;
        }
        rush.finish_round(BEFORE_A_KILL).await;
    }
    rush.audit(&log).await;
}

#[tokio::test]
async fn no_withdrawal_overdraws_or_is_lost_when_the_leader_is_killed_repeatedly() {
    let mut cluster = NatsCluster::start().await;
    let client = cluster.client().await;
    provision::streams(&client, &common::catalog(), 3).await.unwrap();
    let log = EventLog::new(client, "/test");
    let mut rush = Rush::start(&log, &cluster.urls()).await;
    for round in 0..ROUNDS {
        cluster.in_sync("EVENTS").await;
        let leader = cluster.leader_of("EVENTS").await;
        rush.begin_round();
        rush.outcomes(BEFORE_A_KILL).await;
        if round + 1 < ROUNDS {
            cluster.kill(leader);
            cluster.leader_of("EVENTS").await;
            cluster.restart(leader).await;
        }
        rush.finish_round(BEFORE_A_KILL).await;
    }
    cluster.in_sync("EVENTS").await;
    let outcomes = rush.audit(&log).await;
    assert!(outcomes.iter().any(|outcome| outcome.given > 1), "some outcome was not known at first");
}
