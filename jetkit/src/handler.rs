//! What a consumer's author writes: a handler per event, which returns and never touches acks.

use std::future::Future;
use std::sync::Arc;

use crate::{Event, ExecuteError, PublishError, Recorded, StoreError};

/// Reacts to one type of event. Implement it on one struct for as many event types as belong together.
///
/// The same event may be handled more than once (a crash between the effect and its mark), so an effect needs a
/// key of its own: commands given with [`Recorded::cause`] have one by themselves, and [`crate::Cause::derive`] makes one for
/// an effect outside. The event's id alone is none: another producer may use it twice.
pub trait Handler<E: Event>: Send + Sync + 'static {
    /// Handles one event. `Ok` means done for good. `?` on any error means "try again later"; `.or_reject()?` means "this
    /// will never work" and sends the event to the dead letters at once, as `?` does with [`StoreError::TooLarge`],
    /// [`StoreError::CauseReused`] and [`PublishError::TooLarge`]. `.or_unavailable("smtp")?` means "what every event needs is
    /// down": no attempt is used up, and the consumer stops until it is back, as after `?` with [`StoreError::Unavailable`]
    /// and [`PublishError::Unavailable`].
    fn handle(&self, event: Recorded<E>) -> impl Future<Output = HandlerResult> + Send;
}

impl<E: Event, H: Handler<E>> Handler<E> for Arc<H> {
    fn handle(&self, event: Recorded<E>) -> impl Future<Output = HandlerResult> + Send {
        H::handle(self, event)
    }
}

/// What a handler returns.
pub type HandlerResult = Result<(), HandlerError>;

/// Why an event was not handled.
#[derive(Debug)]
pub enum HandlerError {
    /// It may work later: tried again with growing delays, until the attempts are used up.
    Retry(anyhow::Error),
    /// It will never work: a dead letter at once.
    Reject(anyhow::Error),
    /// Not now, and only this event: an answer of the dependency about it that may be another one in a while. Uses up no attempt;
    /// tried again with delays of minutes, and as often as [`crate::Consumer::postponements`] says.
    Postpone(anyhow::Error),
    /// Something that events of this consumer need is down, and this event is not to blame. It uses up no attempt and never
    /// leads to a dead letter: the consumer's circuit opens until one event gets through.
    Unavailable {
        /// What is down, in a word: `smtp`. A label of metrics.
        dependency: &'static str,
        /// How that was noticed.
        error: anyhow::Error,
    },
}

impl HandlerError {
    /// Refuses the event for good.
    pub fn reject(reason: impl Into<anyhow::Error>) -> Self {
        Self::Reject(reason.into())
    }

    /// Puts the event off, and no other.
    pub fn postpone(reason: impl Into<anyhow::Error>) -> Self {
        Self::Postpone(reason.into())
    }

    /// Says that `dependency` is down.
    pub fn unavailable(dependency: &'static str, error: impl Into<anyhow::Error>) -> Self {
        Self::Unavailable { dependency, error: error.into() }
    }
}

/// What handlers depend on when they give commands and read the log.
const EVENT_LOG: &str = "event log";

impl<E: Into<anyhow::Error>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let error = error.into();
        // What is too large to be recorded, or is another event's command, is so next time.
        let is_final = error.chain().any(|cause| {
            matches!(cause.downcast_ref(), Some(StoreError::TooLarge(_) | StoreError::CauseReused { .. }))
                || matches!(cause.downcast_ref(), Some(PublishError::TooLarge(_)))
        });
        let is_unavailable = || {
            error.chain().any(|cause| {
                matches!(cause.downcast_ref(), Some(StoreError::Unavailable(_)))
                    || matches!(cause.downcast_ref(), Some(PublishError::Unavailable(_)))
            })
        };
        match is_final {
            true => Self::Reject(error),
            false if is_unavailable() => Self::Unavailable { dependency: EVENT_LOG, error },
            false => Self::Retry(error),
        }
    }
}

/// Spells giving up: `parse(address).or_reject()?`.
pub trait OrReject<T> {
    /// Turns an error into one that is not worth a retry.
    fn or_reject(self) -> Result<T, HandlerError>;
}

impl<T, E: Into<anyhow::Error>> OrReject<T> for Result<T, E> {
    fn or_reject(self) -> Result<T, HandlerError> {
        self.map_err(HandlerError::reject)
    }
}

/// Spells that a dependency is down: `connect().await.or_unavailable("smtp")?`. Say it of what is wrong with the
/// dependency for every event, not of its answer about this one.
pub trait OrUnavailable<T> {
    /// Turns an error into one that is the dependency's and not the event's.
    fn or_unavailable(self, dependency: &'static str) -> Result<T, HandlerError>;
}

impl<T, E: Into<anyhow::Error>> OrUnavailable<T> for Result<T, E> {
    fn or_unavailable(self, dependency: &'static str) -> Result<T, HandlerError> {
        self.map_err(|error| HandlerError::unavailable(dependency, error))
    }
}

/// Spells what a command's refusal means in a handler: `store.execute(…).await.reject_refusal()?`.
pub trait RejectRefusal<T> {
    /// A refusal by the rules of an aggregate will be the same next time, and is not worth a retry. Everything else that
    /// can go wrong with a command is.
    fn reject_refusal(self) -> Result<T, HandlerError>;
}

impl<T, R> RejectRefusal<T> for Result<T, ExecuteError<R>>
where
    R: std::error::Error + Send + Sync + 'static,
{
    fn reject_refusal(self) -> Result<T, HandlerError> {
        self.map_err(|error| match error {
            ExecuteError::Rejected(refusal) => HandlerError::reject(refusal),
            failure => failure.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_refusal_is_final_and_a_conflict_is_not() {
        #[derive(Debug, thiserror::Error)]
        #[error("no")]
        struct No;

        let of = |error: ExecuteError<No>| Err::<(), _>(error).reject_refusal().unwrap_err();
        assert!(matches!(of(ExecuteError::Rejected(No)), HandlerError::Reject(_)));
        assert!(matches!(of(ExecuteError::Conflict { attempts: 64 }), HandlerError::Retry(_)));
        let away = StoreError::Unavailable("away".to_owned());
        assert!(matches!(of(away.into()), HandlerError::Unavailable { dependency: "event log", .. }));
    }

    #[test]
    fn a_dependency_that_is_down_is_named() {
        let down = Err::<(), _>(anyhow::anyhow!("refused")).or_unavailable("smtp").unwrap_err();
        assert!(matches!(down, HandlerError::Unavailable { dependency: "smtp", .. }));
    }

    #[test]
    fn what_can_never_be_recorded_is_not_tried_again() {
        let of = |failure: StoreError| {
            let failure: ExecuteError<std::convert::Infallible> = failure.into();
            HandlerError::from(Err::<(), _>(failure).context("recording").unwrap_err())
        };
        assert!(matches!(of(StoreError::TooLarge("much".to_owned())), HandlerError::Reject(_)));
        let away = of(StoreError::Unavailable("away".to_owned()));
        assert!(matches!(away, HandlerError::Unavailable { .. }), "{away:?}");
        let id = crate::EntityId::new("a").unwrap();
        assert!(matches!(of(StoreError::CauseReused { entity: "lamp", id }), HandlerError::Reject(_)));
        let direct = HandlerError::from(StoreError::TooLarge("much".to_owned()));
        assert!(matches!(direct, HandlerError::Reject(_)));
        let published = HandlerError::from(PublishError::TooLarge("much".to_owned()));
        assert!(matches!(published, HandlerError::Reject(_)));
        let away = HandlerError::from(PublishError::Unavailable("away".to_owned()));
        assert!(matches!(away, HandlerError::Unavailable { .. }), "{away:?}");
    }
}
