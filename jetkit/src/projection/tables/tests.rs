use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn lamps() -> Connection {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch("CREATE TABLE lamps (id TEXT PRIMARY KEY, place INTEGER NOT NULL UNIQUE, room TEXT)")
        .unwrap();
    db
}

fn fit(db: &Connection, id: &str, place: i64, room: &str) {
    Tables::of(db).run("INSERT OR IGNORE INTO lamps VALUES (?1, ?2, ?3)", (id, place, room)).unwrap();
}

/// The lamps in the hall, or everywhere.
fn page(
    db: &Connection,
    room: Option<&'static str>,
    order: Order<'_>,
    page: &PageQuery,
) -> rusqlite::Result<Page<String>> {
    let matching = Conditions::default().equal("room", room);
    Tables::of(db).page(List { columns: "id", from: "lamps", matching, order }, page, |row| row.get("id"))
}

const BY_PLACE: Order<'_> = Order::Ascending("place");

#[test]
fn a_page_is_a_window_on_what_matches_and_knows_how_much_that_is() {
    let db = lamps();
    for (place, room) in [(1, "hall"), (2, "bath"), (3, "hall"), (4, "hall"), (5, "a%b")] {
        fit(&db, &place.to_string(), place, room);
    }
    let ask = |matching: Conditions, number: usize| {
        let list = List { columns: "place", from: "lamps", matching, order: Order::Descending("place") };
        let page =
            Tables::of(&db).page(list, &PageQuery::number(number, 2), |row| row.get::<_, i64>(0)).unwrap();
        (page.total, page.items)
    };
    let room = |room: Option<&'static str>| Conditions::default().equal("room", room);
    assert_eq!(ask(room(None), 1), (5, vec![5, 4]));
    assert_eq!(ask(room(None), 3), (5, vec![1]));
    assert_eq!(ask(room(Some("hall")), 2), (3, vec![1]));
    assert_eq!(ask(room(Some("hall")).unequal("place", Some(3)), 1), (2, vec![4, 1]));
    assert_eq!(ask(Conditions::default().contains("room", Some("%")), 1), (1, vec![5]));
    assert_eq!(ask(room(None), usize::MAX), (5, vec![]));
}

#[test]
fn the_end_of_a_list_has_no_next_page_and_neither_has_a_ranking() {
    let db = lamps();
    for place in 1..=4 {
        fit(&db, &place.to_string(), place, "hall");
    }
    let first = page(&db, None, BY_PLACE, &PageQuery::number(1, 2)).unwrap();
    assert_eq!((&*first.items, first.page, first.total), (&["1".to_owned(), "2".to_owned()][..], Some(1), 4));
    let last = page(&db, None, BY_PLACE, &PageQuery::after(first.next.clone().unwrap(), 2)).unwrap();
    assert_eq!((&*last.items, last.page, last.total), (&["3".to_owned(), "4".to_owned()][..], None, 4));
    assert_eq!(last.next, None);
    let ranking = Order::Ranking("room, place DESC");
    let ranked = page(&db, None, ranking, &PageQuery::number(1, 3)).unwrap();
    assert_eq!((ranked.items, ranked.next), (["4", "3", "2"].map(str::to_owned).to_vec(), None));
}

#[test]
fn a_cursor_of_another_list_or_with_other_filters_is_refused() {
    let db = lamps();
    for place in 1..=4 {
        fit(&db, &place.to_string(), place, "hall");
    }
    let cursor = page(&db, Some("hall"), BY_PLACE, &PageQuery::number(1, 2)).unwrap().next.unwrap();
    let go_on = PageQuery::after(cursor, 1);
    assert_eq!(page(&db, Some("hall"), BY_PLACE, &go_on).unwrap().items, ["3"]);
    let refusal = |room, order| match page(&db, room, order, &go_on) {
        Err(rusqlite::Error::ToSqlConversionFailure(reason)) => *reason.downcast::<CursorError>().unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(None, BY_PLACE), CursorError::Foreign);
    assert_eq!(refusal(Some("bath"), BY_PLACE), CursorError::Foreign);
    assert_eq!(refusal(Some("hall"), Order::Descending("place")), CursorError::Foreign);
    assert_eq!(refusal(Some("hall"), Order::Ascending("id")), CursorError::Foreign);
    assert_eq!(refusal(Some("hall"), Order::Ranking("place")), CursorError::Ranking);
}

/// What happens between two pages.
#[derive(Debug, Clone)]
enum Change {
    Fit(u8, bool),
    Remove(u8),
    MoveTo(u8, bool),
}

fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let change = prop_oneof![
        (any::<u8>(), any::<bool>()).prop_map(|(lamp, hall)| Change::Fit(lamp, hall)),
        any::<u8>().prop_map(Change::Remove),
        (any::<u8>(), any::<bool>()).prop_map(|(lamp, hall)| Change::MoveTo(lamp, hall)),
    ];
    prop::collection::vec(prop::collection::vec(change, 0..12), 0..40)
}

fn room(hall: bool) -> &'static str {
    if hall { "hall" } else { "bath" }
}

fn change(db: &Connection, change: &Change) {
    let lamp = |number: u8| format!("l-{}", number.reverse_bits());
    match change {
        Change::Fit(number, hall) => fit(db, &lamp(*number), (*number).into(), room(*hall)),
        Change::Remove(number) => {
            Tables::of(db).run("DELETE FROM lamps WHERE id = ?1", [lamp(*number)]).unwrap();
        }
        Change::MoveTo(number, hall) => {
            let update = "UPDATE lamps SET room = ?2 WHERE id = ?1";
            Tables::of(db).run(update, (lamp(*number), room(*hall))).unwrap();
        }
    }
}

fn in_hall(db: &Connection) -> BTreeSet<String> {
    let all = Tables::of(db).all("SELECT id FROM lamps WHERE room = 'hall'", [], |row| row.get(0));
    all.unwrap().into_iter().collect()
}

proptest! {
    #[test]
    fn what_matches_throughout_is_seen_once_whatever_is_written_between_pages(
        there in prop::collection::btree_map(any::<u8>(), any::<bool>(), 0..80),
        between in changes(),
        per_page in prop::collection::vec(1..=7usize, 1..4),
        order in prop::sample::select(vec![
            BY_PLACE, Order::Descending("place"), Order::Ascending("id"), Order::Descending("id"),
        ]),
    ) {
        let db = lamps();
        for (lamp, hall) in &there {
            change(&db, &Change::Fit(*lamp, *hall));
        }
        let mut throughout = in_hall(&db);
        let (mut seen, mut begin) = (BTreeMap::new(), Some(PageQuery::number(1, per_page[0])));
        let mut written = between.iter();
        let mut sizes = per_page.iter().cycle();
        while let Some(query) = begin {
            let found = page(&db, Some("hall"), order, &query).unwrap();
            for lamp in found.items {
                *seen.entry(lamp).or_insert(0) += 1;
            }
            begin = found.next.map(|next| PageQuery::after(next, *sizes.next().unwrap()));
            for one in written.next().into_iter().flatten() {
                change(&db, one);
                if begin.is_some() {
                    throughout = &throughout & &in_hall(&db);
                }
            }
        }
        for lamp in &throughout {
            prop_assert_eq!(seen.get(lamp), Some(&1), "{}", lamp);
        }
        // A lamp that is taken away and fitted again has the same key: it too is seen once at most.
        prop_assert!(seen.values().all(|times| *times == 1));
    }
}
