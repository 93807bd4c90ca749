//! The fold of the stream into entries.

use consumer_dlq::dead_letters::{DeadLetters, Entry, Filed, Filter, News, Status};
use jetkit::FailureClass;
use jetkit::http::PageQuery;
use jetkit::testing::Folded;

use crate::letter;

const ID: &str = "consumer-email-EVENTS-7";

/// The sequences of the originals that a filter takes.
fn list(letters: &Folded<DeadLetters>, filter: Filter) -> Vec<u64> {
    let page = letters.read(|tables| Entry::list(tables, filter, &PageQuery::number(1, 100)));
    page.items.iter().map(|entry| entry.sequence).collect()
}

fn filed(sequence: u64, news: News, original: u64, redrives: u32) -> Filed {
    Filed { sequence, news, letter: letter(original, redrives) }
}

fn after(news: &[(News, u32)]) -> Entry {
    let filed = (1..).zip(news).map(|(at, (news, redrives))| filed(at, *news, 7, *redrives));
    let letters = Folded::<DeadLetters>::of(filed);
    let entry = letters.read(|tables| Entry::find(tables, ID)).unwrap();
    assert_eq!(list(&letters, Filter::default()).len(), usize::from(entry.status != Status::Dismissed));
    entry
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
    let news = [filed(1, News::Redriven, 7, 1), filed(2, News::Dismissed, 7, 0)];
    let letters = Folded::<DeadLetters>::of(news);
    assert_eq!(letters.read(|tables| Entry::find(tables, ID)), None);
    assert_eq!(News::on("dlq.events.consumer-email.order.placed"), Some(News::GivenUp));
    assert_eq!(News::on("dlq.redrive.consumer-email"), Some(News::Redriven));
    assert_eq!(News::on("dlq.dismissed.consumer-email"), Some(News::Dismissed));
    for unknown in ["dlq.other.x", "dlq", "order.placed"] {
        assert_eq!(News::on(unknown), None, "{unknown}");
    }
}

#[test]
fn the_latest_comes_first_and_filters_leave_out_the_rest() {
    let letters = Folded::<DeadLetters>::of([
        filed(1, News::GivenUp, 5, 0),
        filed(2, News::GivenUp, 6, 0),
        filed(3, News::GivenUp, 7, 0),
        filed(4, News::Redriven, 5, 1),
        filed(5, News::GivenUp, 5, 1),
        filed(6, News::Dismissed, 6, 0),
    ]);
    let list = |filter| list(&letters, filter);
    let (oldest, total) = letters.read(|tables| Entry::oldest(tables, Filter::default(), 1));
    assert_eq!((oldest[0].sequence, total), (5, 2));

    assert_eq!(list(Filter::default()), [7, 5]);
    assert_eq!(list(Filter { status: Some(Status::Dismissed), ..Filter::default() }), [6]);
    assert_eq!(list(Filter { consumer: Some("consumer-email".into()), ..Filter::default() }), [7, 5]);
    assert_eq!(list(Filter { consumer: Some("consumer-mail".into()), ..Filter::default() }), [0; 0]);
    assert_eq!(list(Filter { event_type: Some("order.placed".into()), ..Filter::default() }), [7, 5]);
    assert_eq!(list(Filter { event_type: Some("order".into()), ..Filter::default() }), [0; 0]);
    assert_eq!(list(Filter { class: Some(FailureClass::Crashed), ..Filter::default() }), [0; 0]);
}

#[test]
fn a_reader_who_follows_cursors_sees_each_letter_once_though_some_fail_again() {
    let mut letters = Folded::<DeadLetters>::of((1..=6).map(|n| filed(n, News::GivenUp, n, 0)));
    let (mut seen, mut page) = (Vec::new(), PageQuery::number(1, 2));
    let (mut at, mut redrive) = (6, 0);
    loop {
        let found = letters.read(|tables| Entry::list(tables, Filter::default(), &page));
        seen.extend(found.items.iter().map(|entry| entry.sequence));
        let Some(next) = found.next else { break };
        page = PageQuery::after(next, 2);
        redrive += 1;
        // The oldest is tried again and fails again, and a new one comes.
        for (news, original, redrives) in
            [(News::Redriven, 1, redrive), (News::GivenUp, 1, redrive), (News::GivenUp, at + 100, 0)]
        {
            at += 1;
            letters.apply(&filed(at, news, original, redrives)).unwrap();
        }
    }
    assert_eq!(seen, [6, 5, 4, 3, 2, 1]);
}
