//! The rules of the stock.

use common::stock::{
    StockEvent, StockLine, StockReceived, StockRejected, StockReleased, StockReserved, StockShipped,
    StockShortage,
};
use consumer_inventory::stock::{
    Level, MAX_RECEIVED, Reservation, SETTLED_REMEMBERED, Stock, StockCommand, StockRejection,
};
use jetkit::Aggregate;
use jetkit::testing::{aggregate_laws, given};
use proptest::prelude::*;

use jetkit::testing::id;

fn lines(lines: &[(&str, u32)]) -> Vec<StockLine> {
    lines
        .iter()
        .map(|(product, quantity)| StockLine { product_id: id(product), quantity: *quantity })
        .collect()
}

fn received(product: &str, quantity: u32) -> StockEvent {
    StockReceived { warehouse: id("main"), product_id: id(product), quantity }.into()
}

fn reserved(order: &str, held: &[(&str, u32)]) -> StockEvent {
    StockReserved { warehouse: id("main"), order_id: id(order), lines: lines(held) }.into()
}

fn rejected(order: &str, shortages: &[(&str, u32, u32)]) -> StockEvent {
    let shortage = |(product, requested, available): &(&str, u32, u32)| StockShortage {
        product_id: id(product),
        requested: *requested,
        available: *available,
    };
    let shortages = shortages.iter().map(shortage).collect();
    StockRejected { warehouse: id("main"), order_id: id(order), shortages }.into()
}

fn released(order: &str, held: &[(&str, u32)]) -> StockEvent {
    StockReleased { warehouse: id("main"), order_id: id(order), lines: lines(held) }.into()
}

fn shipped(order: &str, held: &[(&str, u32)]) -> StockEvent {
    StockShipped { warehouse: id("main"), order_id: id(order), lines: lines(held) }.into()
}

fn receive(product: &str, quantity: u32) -> StockCommand {
    StockCommand::Receive { warehouse: id("main"), product_id: id(product), quantity }
}

fn reserve(order: &str, wanted: &[(&str, u32)]) -> StockCommand {
    StockCommand::Reserve { warehouse: id("main"), order_id: id(order), lines: lines(wanted) }
}

fn release(order: &str) -> StockCommand {
    StockCommand::Release { warehouse: id("main"), order_id: id(order) }
}

fn ship(order: &str) -> StockCommand {
    StockCommand::Ship { warehouse: id("main"), order_id: id(order) }
}

#[test]
fn goods_come_in() {
    given::<Stock>([]).when(&receive("p-1", 5)).then([received("p-1", 5)]);
    given::<Stock>([]).when(&receive("p-1", 0)).then_rejected(StockRejection::NothingReceived);
}

#[test]
fn a_warehouse_counts_no_further_than_it_can() {
    let almost_full = (0..1_000).map(|_| received("p-1", 1_000_000_000));
    assert_eq!(MAX_RECEIVED, 1_000 * 1_000_000_000);
    given::<Stock>(almost_full.clone()).when(&receive("p-1", 1)).then_rejected(StockRejection::TooMuch);
    given::<Stock>(almost_full).when(&receive("p-2", 1)).then([received("p-2", 1)]);
}

#[test]
fn an_order_gets_all_of_its_lines() {
    given::<Stock>([received("p-1", 5), received("p-2", 1)])
        .when(&reserve("o-1", &[("p-2", 1), ("p-1", 2)]))
        .then([reserved("o-1", &[("p-1", 2), ("p-2", 1)])]);
}

#[test]
fn an_order_that_lacks_one_line_gets_none() {
    given::<Stock>([received("p-1", 5), received("p-2", 1)])
        .when(&reserve("o-1", &[("p-1", 2), ("p-2", 2), ("p-3", 1)]))
        .then([rejected("o-1", &[("p-2", 2, 1), ("p-3", 1, 0)])]);
}

#[test]
fn a_product_named_twice_is_counted_together() {
    let stock = [received("p-1", 5)];
    given::<Stock>(stock.clone())
        .when(&reserve("o-1", &[("p-1", 2), ("p-1", 3)]))
        .then([reserved("o-1", &[("p-1", 5)])]);
    given::<Stock>(stock.clone())
        .when(&reserve("o-1", &[("p-1", 3), ("p-1", 3)]))
        .then([rejected("o-1", &[("p-1", 6, 5)])]);
    given::<Stock>(stock)
        .when(&reserve("o-1", &[("p-1", u32::MAX), ("p-1", u32::MAX)]))
        .then([rejected("o-1", &[("p-1", u32::MAX, 5)])]);
}

#[test]
fn what_is_held_for_one_order_is_not_there_for_another() {
    given::<Stock>([received("p-1", 5), reserved("o-1", &[("p-1", 4)])])
        .when(&reserve("o-2", &[("p-1", 2)]))
        .then([rejected("o-2", &[("p-1", 2, 1)])]);
}

#[test]
fn a_second_reservation_for_the_same_order_holds_nothing_more() {
    let held = [received("p-1", 5), reserved("o-1", &[("p-1", 2)])];
    given::<Stock>(held.clone()).when(&reserve("o-1", &[("p-1", 2)])).then_nothing();
    for end in [released("o-1", &[("p-1", 2)]), shipped("o-1", &[("p-1", 2)])] {
        given::<Stock>(held.iter().cloned().chain([end])).when(&reserve("o-1", &[("p-1", 2)])).then_nothing();
    }
    given::<Stock>([rejected("o-1", &[("p-1", 2, 0)]), received("p-1", 5)])
        .when(&reserve("o-1", &[("p-1", 2)]))
        .then_nothing();
}

#[test]
fn a_release_gives_back_what_was_held_once() {
    let held = [received("p-1", 5), reserved("o-1", &[("p-1", 2)])];
    given::<Stock>(held.clone()).when(&release("o-1")).then([released("o-1", &[("p-1", 2)])]);
    given::<Stock>(held.into_iter().chain([released("o-1", &[("p-1", 2)])]))
        .when(&release("o-1"))
        .then_nothing();
    given::<Stock>([rejected("o-1", &[("p-1", 2, 0)])]).when(&release("o-1")).then_nothing();
}

#[test]
fn a_reservation_that_comes_after_its_release_holds_nothing() {
    given::<Stock>([received("p-1", 5)]).when(&release("o-1")).then([released("o-1", &[])]);
    given::<Stock>([received("p-1", 5), released("o-1", &[])])
        .when(&reserve("o-1", &[("p-1", 2)]))
        .then_nothing();
}

#[test]
fn what_is_held_ships_once() {
    let held = [received("p-1", 5), reserved("o-1", &[("p-1", 2)])];
    given::<Stock>(held.clone()).when(&ship("o-1")).then([shipped("o-1", &[("p-1", 2)])]);
    given::<Stock>(held.into_iter().chain([shipped("o-1", &[("p-1", 2)])])).when(&ship("o-1")).then_nothing();
}

#[test]
fn what_is_not_held_does_not_ship() {
    let refused = |because| StockRejection::NothingHeld { order_id: id("o-1"), because };
    given::<Stock>([]).when(&ship("o-1")).then_rejected(refused("it was never reserved"));
    given::<Stock>([rejected("o-1", &[])]).when(&ship("o-1")).then_rejected(refused("there was not enough"));
    given::<Stock>([released("o-1", &[])]).when(&ship("o-1")).then_rejected(refused("it was given back"));
}

#[test]
fn settled_orders_are_forgotten_at_last_and_open_ones_never() {
    let mut stock = Stock::default();
    stock.apply(&received("p-1", 1));
    stock.apply(&reserved("open", &[("p-1", 1)]));
    for n in 0..=SETTLED_REMEMBERED {
        stock.apply(&released(&format!("o-{n}"), &[]));
    }
    assert_eq!(stock.reservation(&id("o-0")), None);
    assert_eq!(stock.reservation(&id("o-1")), Some(&Reservation::Released));
    assert_eq!(stock.reservation(&id("open")), Some(&Reservation::Reserved(lines(&[("p-1", 1)]))));
}

fn any_command() -> impl Strategy<Value = StockCommand> {
    let product = || prop::sample::select(vec!["p-1", "p-2", "p-3"]);
    let order = || prop::sample::select(vec!["o-1", "o-2", "o-3", "o-4", "o-5"]);
    prop_oneof![
        (product(), 0..20_u32).prop_map(|(product, quantity)| receive(product, quantity)),
        (order(), prop::collection::vec((product(), 0..10_u32), 0..4))
            .prop_map(|(order, wanted)| reserve(order, &wanted)),
        order().prop_map(release),
        order().prop_map(ship),
    ]
}

proptest! {
    #[test]
    fn nothing_is_ever_lost_or_made_up(commands in prop::collection::vec(any_command(), 0..80)) {
        let given = commands.len();
        let (stock, history) = aggregate_laws(commands, |_: &Stock| {});
        prop_assert!(history.len() <= given, "a decision is one event");
        for (product, level) in stock.products() {
            let came_in: u64 = history.iter().map(|event| match event {
                StockEvent::Received(e) if e.product_id == *product => u64::from(e.quantity),
                _ => 0,
            }).sum();
            prop_assert_eq!(level.received(), came_in);
            let held: u64 = ["o-1", "o-2", "o-3", "o-4", "o-5"].iter().map(|order| match stock.reservation(&id(order)) {
                Some(Reservation::Reserved(held)) => {
                    held.iter().filter(|line| line.product_id == *product).map(|line| u64::from(line.quantity)).sum()
                }
                _ => 0,
            }).sum();
            prop_assert_eq!(level.reserved, held);
        }
    }
}

#[test]
fn a_level_adds_up() {
    let level = Level { on_hand: 1, reserved: 2, shipped: 3 };
    assert_eq!(level.received(), 6);
}
