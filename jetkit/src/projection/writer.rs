//! The one thread that writes a read model's file: batches as they come, each one transaction with its position.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_nats::Subject;
use chrono::{SecondsFormat, Utc};
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::file::{Files, Mark, Position, Unusable, is_damage, is_machine, settle, write_position};
use super::track::Progress;
use super::{Projection, Tables, integer};
use crate::failure::{causes, panic_message};

/// How long to wait after the machine failed (a full disk), before the same batch is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How many parked events a file describes. More are counted only.
const MAX_PARKED: u64 = 10_000;

/// The longest description of one, in bytes.
const MAX_REASON: usize = 2_000;

/// One message of the stream, read or not.
#[derive(Debug)]
pub(crate) struct Item<E> {
    pub(crate) mark: Mark,
    pub(crate) subject: Subject,
    /// Or why it cannot be read.
    pub(crate) event: Result<E, String>,
}

/// What the thread is asked to do, in this order.
#[derive(Debug)]
pub(crate) enum Work<E> {
    /// Take these in.
    Apply(Vec<Item<E>>),
    /// The stream is known to hold nothing else for this projection up to here.
    Passed(u64),
    /// Everything that there is was given.
    CaughtUp,
    /// Move the file, built until now, to its final place, and go on there.
    Settle(PathBuf, oneshot::Sender<anyhow::Result<()>>),
}

/// Why the thread has ended.
#[derive(Debug)]
pub(crate) enum WriterEnd {
    /// Nobody gives it work any more.
    Idle,
    /// The file is damaged.
    Damaged(rusqlite::Error),
    /// Something else, that will not pass.
    Failed(anyhow::Error),
}

/// What kept a batch from being written.
enum Trouble {
    /// An event: this one, if it was alone.
    Event(String),
    /// The machine, for now.
    Machine(rusqlite::Error),
    Damage(rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) {
            Self::Damage(error)
        } else if is_machine(&error) {
            Self::Machine(error)
        } else {
            Self::Event(error.to_string())
        }
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<rusqlite::Error>() {
            Ok(error) => error.into(),
            Err(error) => Self::Event(causes(&error).join(": ")),
        }
    }
}

pub(crate) struct Writer<P: Projection> {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    pub(crate) position: Position,
    pub(crate) files: Files,
    pub(crate) progress: Arc<Progress>,
    pub(crate) work: mpsc::Receiver<Work<P::Event>>,
}

impl<P: Projection> Writer<P> {
    /// Starts the thread. When it ends, the file is closed and the receiver hears why.
    pub(crate) fn start(self) -> anyhow::Result<oneshot::Receiver<WriterEnd>> {
        let (ended, end) = oneshot::channel();
        let write = move || {
            // Nobody may be interested any more.
            drop(ended.send(self.run()));
        };
        std::thread::Builder::new()
            .name(format!("write {}", P::NAME))
            .spawn(write)
            .context("starting a thread that writes a read model")?;
        Ok(end)
    }

    fn run(mut self) -> WriterEnd {
        while let Some(work) = self.work.blocking_recv() {
            match work {
                Work::Apply(items) => match self.take_in(&items) {
                    Ok(()) => self.progress.applied(items.len(), self.position),
                    Err(end) => return end,
                },
                Work::Passed(sequence) => self.progress.advance(sequence),
                Work::CaughtUp => self.progress.caught_up(),
                Work::Settle(path, done) => match self.settle(path) {
                    Ok(settled) => {
                        self = settled;
                        drop(done.send(Ok(())));
                    }
                    Err(error) => {
                        drop(done.send(Err(error)));
                        return WriterEnd::Idle;
                    }
                },
            }
        }
        WriterEnd::Idle
    }

    /// Takes a batch in, as long as it takes: together if it can be, or else one by one, so that only what cannot be taken
    /// in is parked.
    fn take_in(&mut self, items: &[Item<P::Event>]) -> Result<(), WriterEnd> {
        loop {
            let mut taken = self.together(items);
            if let Err(Trouble::Event(_)) = taken {
                taken = items.iter().try_for_each(|item| self.alone(item));
            }
            let failure = match taken {
                Ok(()) => {
                    self.progress.trouble(None);
                    return Ok(());
                }
                Err(Trouble::Damage(error)) => return Err(WriterEnd::Damaged(error)),
                Err(Trouble::Machine(error)) => error,
                Err(Trouble::Event(reason)) => {
                    return Err(WriterEnd::Failed(anyhow::anyhow!(
                        "an event cannot even be parked: {reason}"
                    )));
                }
            };
            warn!(projection.name = P::NAME, error = %failure, "a read model cannot be written; trying again");
            self.progress.trouble(Some(format!("cannot be written: {failure}")));
            std::thread::sleep(AGAIN_AFTER);
            if self.work.is_closed() {
                return Err(WriterEnd::Idle);
            }
        }
    }

    /// One transaction for all of them. What is at or below the position was taken in before.
    fn together(&mut self, items: &[Item<P::Event>]) -> Result<(), Trouble> {
        let (mut position, mut parked) = (self.position, Vec::new());
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for item in items.iter().filter(|item| item.mark.sequence > self.position.last.sequence) {
            match &item.event {
                Ok(event) => apply::<P>(&transaction, event)?,
                Err(reason) => {
                    park(&transaction, item, reason, &mut position)?;
                    parked.push((item, reason));
                }
            }
            position.last = item.mark;
        }
        write_position(&transaction, position)?;
        transaction.commit()?;
        self.position = position;
        for (item, reason) in parked {
            tell_parked(P::NAME, item, reason);
        }
        Ok(())
    }

    fn alone(&mut self, item: &Item<P::Event>) -> Result<(), Trouble> {
        match self.together(std::slice::from_ref(item)) {
            Err(Trouble::Event(reason)) => {
                let mut position = self.position;
                let transaction =
                    self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                park(&transaction, item, &reason, &mut position)?;
                position.last = item.mark;
                write_position(&transaction, position)?;
                transaction.commit()?;
                self.position = position;
                tell_parked(P::NAME, item, &reason);
                Ok(())
            }
            otherwise => otherwise,
        }
    }

    /// Closes the file, gives it its final name, and opens it there.
    fn settle(self, to: PathBuf) -> anyhow::Result<Self> {
        let Self { connection, path, files, progress, work, .. } = self;
        close(connection).context("closing a read model that was built")?;
        settle(&path, &to)?;
        let (connection, position) = files.open(&to).map_err(|unusable| match unusable {
            Unusable::Failed(error) => error,
            Unusable::Discard(reason) => anyhow::anyhow!("what was just built is unusable: {reason}"),
        })?;
        Ok(Self { connection, path: to, position, files, progress, work })
    }
}

/// Closes a file for good: there is nothing beside it afterwards.
pub(crate) fn close(connection: Connection) -> anyhow::Result<()> {
    connection.flush_prepared_statement_cache();
    connection.close().map_err(|(_, error)| error.into())
}

/// A panic is as good as an error: the transaction is rolled back either way.
fn apply<P: Projection>(db: &Connection, event: &P::Event) -> Result<(), Trouble> {
    let apply = AssertUnwindSafe(|| P::apply(&Tables::of(db), event));
    match catch_unwind(apply) {
        Ok(applied) => applied.map_err(Trouble::from),
        Err(panic) => Err(Trouble::Event(format!("panicked: {}", panic_message(&*panic)))),
    }
}

/// Leaves an event out, with the reason.
fn park<E>(db: &Connection, item: &Item<E>, reason: &str, position: &mut Position) -> Result<(), Trouble> {
    position.parked += 1;
    if position.parked <= MAX_PARKED {
        let now = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut insert = db.prepare_cached("INSERT INTO eventkit_parked VALUES (?1, ?2, ?3, ?4)")?;
        insert.execute((integer(item.mark.sequence), item.subject.as_str(), shortened(reason), now))?;
    }
    Ok(())
}

/// Said once the event is parked for good.
fn tell_parked<E>(projection: &'static str, item: &Item<E>, reason: &str) {
    error!(
        projection.name = projection,
        event.subject = %item.subject,
        event.sequence = item.mark.sequence,
        error = shortened(reason),
        "an event was parked: the read model goes on without it"
    );
}

fn shortened(reason: &str) -> &str {
    reason.get(..reason.floor_char_boundary(MAX_REASON)).unwrap_or(reason)
}
