//! Named tasks, of which none may end unnoticed.

use std::collections::HashMap;
use std::future::{Future, pending};

use anyhow::anyhow;
use tokio::task::{Id, JoinError, JoinSet};
use tracing::Instrument;

/// Tasks that run for as long as the service does.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    running: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, String>,
}

impl Tasks {
    pub(crate) fn spawn(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let name = name.into();
        let span = tracing::info_span!("task", task.name = name);
        let id = self.running.spawn(task.instrument(span)).id();
        self.names.insert(id, name);
    }

    /// Waits for the first task that ends, which it should not have, and says how. For ever if there are none.
    pub(crate) async fn first_end(&mut self) -> anyhow::Error {
        match self.running.join_next_with_id().await {
            Some(ended) => self.failure(ended).unwrap_or_else(|name| anyhow!("{name} ended by itself")),
            None => pending().await,
        }
    }

    /// Waits until all have ended, which they were told to; the first failure among them.
    pub(crate) async fn all_ended(&mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        while let Some(ended) = self.running.join_next_with_id().await {
            if let Ok(failure) = self.failure(ended) {
                outcome = outcome.and(Err(failure));
            }
        }
        outcome
    }

    /// The tasks that have not ended yet.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.values().cloned().collect();
        names.sort();
        names
    }

    /// Drops them all where they stand.
    pub(crate) fn abort(&mut self) {
        self.running.abort_all();
    }

    /// How a task failed, or the name of one that did not.
    fn failure(
        &mut self,
        ended: Result<(Id, anyhow::Result<()>), JoinError>,
    ) -> Result<anyhow::Error, String> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let name = self.names.remove(&id).unwrap_or_default();
        match ended {
            Ok((_, Ok(()))) => Err(name),
            Ok((_, Err(error))) => Ok(error.context(format!("{name} failed"))),
            Err(error) => Ok(anyhow!("{name} panicked: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_in_peace_is_a_failure_all_the_same() {
        let mut tasks = Tasks::default();
        tasks.spawn("endless", pending());
        tasks.spawn("short", async { Ok(()) });
        assert_eq!(tasks.first_end().await.to_string(), "short ended by itself");
    }

    #[tokio::test]
    async fn a_panic_is_reported_with_the_tasks_name() {
        let mut tasks = Tasks::default();
        tasks.spawn("clumsy", async { panic!("dropped it") });
        let failure = tasks.first_end().await.to_string();
        assert!(failure.starts_with("clumsy panicked") && failure.contains("dropped it"), "{failure}");
    }

    #[tokio::test]
    async fn after_the_stop_ending_is_what_tasks_should_do() {
        let mut tasks = Tasks::default();
        tasks.spawn("good", async { Ok(()) });
        tasks.all_ended().await.unwrap();
        tasks.spawn("bad", async { Err(anyhow!("could not ack")) });
        assert_eq!(format!("{:#}", tasks.all_ended().await.unwrap_err()), "bad failed: could not ack");
    }
}
