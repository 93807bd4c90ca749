//! The fold of the stream into entries.

use consumer_dlq::dead_letters::{DeadLetters, Entry, Filter, News, Status};
use eventkit::FailureClass;

use crate::letter;

const ID: &str = "consumer-email-EVENTS-7";

fn after(news: &[(News, u32)]) -> Entry {
    let mut letters = DeadLetters::default();
    for (at, (news, redrives)) in (1..).zip(news) {
        letters.apply(at, *news, &letter(7, *redrives));
    }
    assert_eq!(
        letters.list(&Filter { status: None, ..Filter::default() }).count(),
        usize::from(letters.get(ID).unwrap().status != Status::Dismissed)
    );
    letters.get(ID).unwrap().clone()
}

#[test]
fn a_dead_letter_is_open_until_it_is_redriven_or_dismissed() {
    use News::{Dismissed, GivenUp, Redriven};
    for (news, status, redrives) in [
        (vec![(GivenUp, 0)], Status::Open, 0),
        (vec![(GivenUp, 0), (Redriven, 1)], Status::Redriven, 1),
        (vec![(GivenUp, 0), (Dismissed, 0)], Status::Dismissed, 0),
        (vec![(GivenUp, 0), (Redriven, 1), (GivenUp, 1)], Status::Open, 1),
        (vec![(GivenUp, 0), (Redriven, 1), (GivenUp, 1), (Redriven, 2)], Status::Redriven, 2),
        (vec![(GivenUp, 0), (Redriven, 1), (Dismissed, 0)], Status::Dismissed, 1),
        (vec![(GivenUp, 0), (Dismissed, 0), (Redriven, 1)], Status::Redriven, 1),
    ] {
        let entry = after(&news);
        assert_eq!((entry.status, entry.redrives), (status, redrives), "{news:?}");
    }
}

#[test]
fn the_same_news_twice_change_nothing() {
    use News::{Dismissed, GivenUp, Redriven};
    for news in [
        vec![(GivenUp, 0), (GivenUp, 0)],
        vec![(GivenUp, 0), (Redriven, 1), (GivenUp, 0)],
        vec![(GivenUp, 0), (Redriven, 1), (Redriven, 1)],
        vec![(GivenUp, 0), (Redriven, 1), (GivenUp, 1), (Redriven, 1)],
        vec![(GivenUp, 0), (Dismissed, 0), (GivenUp, 0)],
    ] {
        let (once, twice) = (after(&news[..news.len() - 1]), after(&news));
        assert_eq!(once, twice, "{news:?}");
    }
}

#[test]
fn news_of_what_nobody_knows_are_left_out() {
    let mut letters = DeadLetters::default();
    letters.apply(1, News::Redriven, &letter(7, 1));
    letters.apply(2, News::Dismissed, &letter(7, 0));
    assert_eq!(letters.get(ID), None);
    assert_eq!(News::on("dlq.events.consumer-email.order.placed"), Some(News::GivenUp));
    assert_eq!(News::on("dlq.redrive.consumer-email"), Some(News::Redriven));
    assert_eq!(News::on("dlq.dismissed.consumer-email"), Some(News::Dismissed));
    for unknown in ["dlq.other.x", "dlq", "order.placed"] {
        assert_eq!(News::on(unknown), None, "{unknown}");
    }
}

#[test]
fn the_latest_failure_comes_first_and_filters_leave_out_the_rest() {
    let mut letters = DeadLetters::default();
    for (at, original) in (1..).zip([5, 6, 7]) {
        letters.apply(at, News::GivenUp, &letter(original, 0));
    }
    letters.apply(4, News::Redriven, &letter(5, 1));
    letters.apply(5, News::GivenUp, &letter(5, 1));
    letters.apply(6, News::Dismissed, &letter(6, 0));
    let list = |filter: Filter| -> Vec<u64> { letters.list(&filter).map(|entry| entry.sequence).collect() };

    assert_eq!(list(Filter::default()), [5, 7]);
    assert_eq!(list(Filter { status: Some(Status::Dismissed), ..Filter::default() }), [6]);
    assert_eq!(list(Filter { consumer: Some("consumer-email".into()), ..Filter::default() }), [5, 7]);
    assert_eq!(list(Filter { consumer: Some("consumer-mail".into()), ..Filter::default() }), [0; 0]);
    assert_eq!(list(Filter { event_type: Some("order.placed".into()), ..Filter::default() }), [5, 7]);
    assert_eq!(list(Filter { event_type: Some("order".into()), ..Filter::default() }), [0; 0]);
    assert_eq!(list(Filter { class: Some(FailureClass::Crashed), ..Filter::default() }), [0; 0]);
}
