//! What every idempotency set must do, whatever it is kept in.

use std::sync::Arc;
use std::time::Duration;

use chrono::{SubsecRound, Utc};
use futures::future::{BoxFuture, join_all};

use super::eventually;
use crate::inbox::{Claim, Ended, Inbox, Key, Turn};

/// How long the set under test must let a claim live: long enough for a slow machine, short enough to wait for.
pub const CONFORMANCE_LEASE: Duration = Duration::from_secs(2);

const SOON: Duration = Duration::from_secs(20);

/// Runs every check. `replica` opens the set as one more replica would; its lease must be [`CONFORMANCE_LEASE`].
pub async fn inbox_conformance(replica: impl Fn() -> BoxFuture<'static, Arc<dyn Inbox>>) {
    let (one, two) = (replica().await, replica().await);
    a_first_delivery_is_granted(&*one).await;
    what_is_done_is_done_everywhere_and_for_good(&*one, &*two, &replica).await;
    what_waited_here_for_long_is_claimed_and_not_counted(&*one).await;
    of_many_claimants_one_is_granted(&one, &two).await;
    a_failed_attempt_is_counted_and_the_next_need_not_wait(&*one, &*two).await;
    an_attempt_that_never_ends_is_counted_and_suspect(&*one, &*two).await;
    what_is_done_after_a_claim_is_done(&*one, &*two).await;
}

fn key(name: &str) -> Key {
    Key::of_event(name)
}

async fn granted(inbox: &dyn Inbox, key: Key, turn: Turn) -> crate::inbox::Grant {
    match inbox.claim(key, turn).await.expect("the set answers") {
        Claim::Granted(grant) => grant,
        other => panic!("{other:?} where a grant was expected"),
    }
}

async fn a_first_delivery_is_granted(inbox: &dyn Inbox) {
    let grant = granted(inbox, key("first"), Turn::First).await;
    assert_eq!((grant.attempt, grant.unfinished, grant.first_failed_at), (1, false, None));
}

async fn what_is_done_is_done_everywhere_and_for_good(
    one: &dyn Inbox,
    two: &dyn Inbox,
    replica: &impl Fn() -> BoxFuture<'static, Arc<dyn Inbox>>,
) {
    one.done(&[key("done")]).await.expect("the set takes a mark");
    for turn in [Turn::First, Turn::Again] {
        assert_eq!(one.claim(key("done"), turn).await.expect("the set answers"), Claim::Done);
    }
    assert_eq!(
        two.claim(key("done"), Turn::Again).await.expect("the set answers"),
        Claim::Done,
        "a redelivery elsewhere"
    );
    let late = replica().await;
    assert_eq!(
        late.claim(key("done"), Turn::First).await.expect("the set answers"),
        Claim::Done,
        "after a restart"
    );
}

async fn what_waited_here_for_long_is_claimed_and_not_counted(one: &dyn Inbox) {
    assert_eq!(granted(one, key("late"), Turn::Late).await.attempt, 1);
    assert_eq!(one.claim(key("late"), Turn::Again).await.expect("the set answers"), Claim::Held);
}

async fn of_many_claimants_one_is_granted(one: &Arc<dyn Inbox>, two: &Arc<dyn Inbox>) {
    let claims = (0..10).flat_map(|_| [Arc::clone(one), Arc::clone(two)]);
    let claims = claims.map(|inbox| async move { inbox.claim(key("contended"), Turn::Again).await });
    let answers: Vec<_> =
        join_all(claims).await.into_iter().map(|answer| answer.expect("the set answers")).collect();
    let granted = answers.iter().filter(|answer| matches!(answer, Claim::Granted(_))).count();
    let held = answers.iter().filter(|answer| **answer == Claim::Held).count();
    assert_eq!((granted, held), (1, 19), "held means wait, never run");
}

async fn a_failed_attempt_is_counted_and_the_next_need_not_wait(one: &dyn Inbox, two: &dyn Inbox) {
    let failed_at = Utc::now().trunc_subsecs(3);
    let second = granted(one, key("failing"), Turn::Again).await;
    assert_eq!(second.attempt, 2, "before a redelivery there was a first delivery");
    let ended = Ended { attempts: second.attempt, postponed: 7, first_failed_at: failed_at };
    one.release(key("failing"), ended).await.expect("the set takes a release");
    let third = eventually(SOON, || async {
        match two.claim(key("failing"), Turn::Again).await {
            Ok(Claim::Granted(grant)) => Some(grant),
            _ => None,
        }
    })
    .await;
    assert_eq!((third.attempt, third.unfinished, third.first_failed_at), (3, false, Some(failed_at)));
    assert_eq!(third.postponed, 7);
    let given_back = Ended { attempts: 0, ..ended };
    one.release(key("failing"), given_back).await.expect("the set takes a release");
    let first = eventually(SOON, || async {
        match one.claim(key("failing"), Turn::Again).await {
            Ok(Claim::Granted(grant)) => Some(grant.attempt),
            _ => None,
        }
    });
    assert_eq!(first.await, 1, "what was given back does not count");
}

async fn an_attempt_that_never_ends_is_counted_and_suspect(one: &dyn Inbox, two: &dyn Inbox) {
    let second = granted(one, key("killer"), Turn::Again).await;
    assert!(!one.is_suspect(key("killer")), "it may still be running");
    assert_eq!(one.claim(key("killer"), Turn::Again).await.expect("the set answers"), Claim::Held);
    eventually(SOON, || async { two.is_suspect(key("killer")).then_some(()) }).await;
    let third = granted(two, key("killer"), Turn::Again).await;
    assert_eq!((second.attempt, third.attempt, third.unfinished), (2, 3, true));
}

async fn what_is_done_after_a_claim_is_done(one: &dyn Inbox, two: &dyn Inbox) {
    granted(one, key("claimed"), Turn::Again).await;
    one.done(&[key("claimed")]).await.expect("the set takes a mark");
    assert_eq!(one.claim(key("claimed"), Turn::Again).await.expect("the set answers"), Claim::Done);
    // The other replica may have to wait for the news, but never runs it.
    eventually(SOON, || async {
        match two.claim(key("claimed"), Turn::Again).await {
            Ok(Claim::Done) => Some(()),
            Ok(Claim::Held) | Err(_) => None,
            Ok(Claim::Granted(_)) => panic!("a handled event was granted again"),
        }
    })
    .await;
}
