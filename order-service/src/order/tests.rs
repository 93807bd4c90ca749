//! What an order allows, as given, when, then.

use super::*;
use common::email::AddressFlaw;
use common::money::Currency;
use jetkit::testing::{aggregate_laws, given};
use proptest::prelude::*;

fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

fn eur(minor: i64) -> Money {
    Money::new(minor, Currency::EUR).unwrap()
}

fn item(quantity: u32, price: i64) -> OrderItem {
    OrderItem { product_id: id("lamp"), product_name: "Lamp".to_owned(), quantity, unit_price: eur(price) }
}

fn order() -> OrderPlaced {
    OrderPlaced {
        order_id: id("o-1"),
        customer_id: id("c-1"),
        customer_email: Some("c@example.com".to_owned()),
        items: vec![item(2, 1000), item(1, 500)],
        total: eur(2500),
        payment_method: PaymentMethod::Account { account_id: id("acc") },
    }
}

fn confirmed() -> OrderEvent {
    OrderConfirmed { order_id: id("o-1"), payment_id: id("p-1") }.into()
}

fn shipped() -> OrderEvent {
    OrderShipped { order_id: id("o-1"), carrier: "DHL".to_owned(), tracking_number: "T1".to_owned() }.into()
}

fn cancelled(reason: CancelReason) -> OrderEvent {
    OrderCancelled { order_id: id("o-1"), reason, detail: None }.into()
}

fn confirm(payment: &str, amount: Money) -> OrderCommand {
    OrderCommand::Confirm { payment_id: id(payment), amount }
}

fn ship(tracking_number: &str) -> OrderCommand {
    OrderCommand::Ship { carrier: "DHL".to_owned(), tracking_number: tracking_number.to_owned() }
}

fn cancel(reason: CancelReason) -> OrderCommand {
    OrderCommand::Cancel { reason, detail: None }
}

#[test]
fn an_order_is_placed_once() {
    let place = OrderCommand::Place(order());
    given::<Order>([]).when(&place).then([order().into()]);
    given::<Order>([order().into()]).when(&place).then_nothing();
    given::<Order>([order().into(), confirmed(), shipped()]).when(&place).then_nothing();
    let other = OrderPlaced { customer_id: id("c-2"), ..order() };
    given::<Order>([order().into()])
        .when(&OrderCommand::Place(other))
        .then_rejected(OrderRejection::DifferentOrder);
}

#[test]
fn an_order_that_makes_no_sense_is_not_placed() {
    let named = |name: &str| OrderItem { product_name: name.to_owned(), ..item(1, 2500) };
    let dollars = OrderItem { unit_price: Money::new(500, Currency::USD).unwrap(), ..item(1, 1) };
    let card = |token: &str| PaymentMethod::Card { token: CardToken(token.to_owned()) };
    let most = Money::MAX_MAJOR * 100;
    for (flawed, flaw) in [
        (OrderPlaced { items: vec![], ..order() }, OrderFlaw::Items),
        (OrderPlaced { items: vec![item(1, 1); 101], ..order() }, OrderFlaw::Items),
        (OrderPlaced { items: vec![item(0, 1)], ..order() }, OrderFlaw::Quantity),
        (OrderPlaced { items: vec![item(10_001, 1)], ..order() }, OrderFlaw::Quantity),
        (OrderPlaced { items: vec![item(1, 0)], ..order() }, OrderFlaw::Price),
        (OrderPlaced { items: vec![item(1, -1)], ..order() }, OrderFlaw::Price),
        (OrderPlaced { items: vec![item(1, 1), dollars], ..order() }, OrderFlaw::Currency),
        (OrderPlaced { items: vec![item(2, most)], ..order() }, OrderFlaw::TooLarge),
        (
            OrderPlaced { total: eur(2499), ..order() },
            OrderFlaw::Total { items: eur(2500), total: eur(2499) },
        ),
        (OrderPlaced { items: vec![named("")], ..order() }, OrderFlaw::ProductName),
        (OrderPlaced { items: vec![named("\u{200b}\u{3164}")], ..order() }, OrderFlaw::ProductName),
        (OrderPlaced { items: vec![named("La\u{202e}pm")], ..order() }, OrderFlaw::ProductName),
        (OrderPlaced { items: vec![named("Lamp\u{2028}Cup")], ..order() }, OrderFlaw::ProductName),
        (
            OrderPlaced { customer_email: Some("nobody".to_owned()), ..order() },
            OrderFlaw::Email(AddressFlaw::Shape),
        ),
        (OrderPlaced { payment_method: card(""), ..order() }, OrderFlaw::CardToken),
        (OrderPlaced { payment_method: card("a b"), ..order() }, OrderFlaw::CardToken),
    ] {
        given::<Order>([]).when(&OrderCommand::Place(flawed)).then_rejected(flaw.into());
    }
}

#[test]
fn the_largest_order_fits_into_an_event_and_into_a_request() {
    let longest = OrderItem {
        product_id: id(&"p".repeat(EntityId::MAX_LEN)),
        // Four bytes each.
        product_name: "𝄞".repeat(MAX_NAME_CHARS),
        ..item(MAX_QUANTITY, 99_999)
    };
    let items = vec![longest; MAX_ITEMS];
    let total = total(&items).unwrap();
    let payment_method = PaymentMethod::Card { token: CardToken("t".repeat(MAX_NAME_CHARS)) };
    let largest = OrderPlaced { items, total, payment_method, ..order() };
    given::<Order>([]).when(&OrderCommand::Place(largest.clone())).then([largest.clone().into()]);
    let bytes = serde_json::to_vec(&largest).unwrap().len();
    let room = usize::try_from(jetkit::provision::MAX_EVENT_BYTES).unwrap();
    assert!(bytes < room / 2, "{bytes} of {room}: the envelope and the headers have room");
    assert!(bytes < jetkit::http::MAX_BODY_BYTES / 2, "{bytes}");
}

#[test]
fn an_order_of_old_with_a_name_and_an_address_refused_today_goes_on() {
    let items = vec![OrderItem { product_name: "La\u{202e}pm\u{200b}".to_owned(), ..item(1, 2500) }];
    let old = OrderPlaced { items, customer_email: Some("jörg@example.com".to_owned()), ..order() };
    given::<Order>([old.clone().into()]).when(&OrderCommand::Place(old.clone())).then_nothing();
    given::<Order>([old.into()]).when(&confirm("p-1", eur(2500))).then([confirmed()]);
}

#[test]
fn an_order_paid_outside_may_cost_other_than_its_items() {
    let outside =
        |total| OrderPlaced { total: eur(total), payment_method: PaymentMethod::External {}, ..order() };
    for total in [0, 2000, 3000] {
        given::<Order>([]).when(&OrderCommand::Place(outside(total))).then([outside(total).into()]);
    }
    given::<Order>([])
        .when(&OrderCommand::Place(outside(-1)))
        .then_rejected(OrderFlaw::Total { items: eur(2500), total: eur(-1) }.into());
}

#[test]
fn a_payment_confirms_an_order_once() {
    given::<Order>([order().into()]).when(&confirm("p-1", eur(2500))).then([confirmed()]);
    given::<Order>([order().into(), confirmed()]).when(&confirm("p-1", eur(2500))).then_nothing();
    given::<Order>([order().into(), confirmed(), shipped()]).when(&confirm("p-1", eur(2500))).then_nothing();
    given::<Order>([order().into(), confirmed()])
        .when(&confirm("p-2", eur(2500)))
        .then_rejected(OrderRejection::AlreadyPaid { by: id("p-1") });
    given::<Order>([]).when(&confirm("p-1", eur(2500))).then_rejected(OrderRejection::Unknown);
}

#[test]
fn too_little_money_does_not_confirm_an_order() {
    for paid in [eur(2499), Money::new(2500, Currency::USD).unwrap()] {
        given::<Order>([order().into()])
            .when(&confirm("p-1", paid))
            .then_rejected(OrderRejection::Underpaid { total: eur(2500), paid });
    }
}

#[test]
fn a_payment_for_a_cancelled_order_confirms_nothing() {
    given::<Order>([order().into(), cancelled(CancelReason::Requested)])
        .when(&confirm("p-1", eur(2500)))
        .then_nothing();
}

#[test]
fn only_a_confirmed_order_is_shipped_and_only_once() {
    given::<Order>([order().into(), confirmed()]).when(&ship("T1")).then([shipped()]);
    given::<Order>([order().into(), confirmed(), shipped()]).when(&ship("T1")).then_nothing();
    given::<Order>([order().into(), confirmed(), shipped()])
        .when(&ship("T2"))
        .then_rejected(OrderRejection::AlreadyShipped);
    given::<Order>([order().into()]).when(&ship("T1")).then_rejected(OrderRejection::NotConfirmed);
    given::<Order>([order().into(), confirmed(), cancelled(CancelReason::Requested)])
        .when(&ship("T1"))
        .then_rejected(OrderRejection::Cancelled);
    given::<Order>([]).when(&ship("T1")).then_rejected(OrderRejection::Unknown);
    given::<Order>([order().into(), confirmed()]).when(&ship(" ")).then_rejected(OrderFlaw::Shipping.into());
}

#[test]
fn an_order_is_cancelled_until_it_is_shipped() {
    for reason in [CancelReason::Requested, CancelReason::OutOfStock] {
        given::<Order>([order().into()]).when(&cancel(reason)).then([cancelled(reason)]);
        given::<Order>([order().into(), confirmed()]).when(&cancel(reason)).then([cancelled(reason)]);
        given::<Order>([order().into(), cancelled(reason)]).when(&cancel(reason)).then_nothing();
        given::<Order>([order().into(), confirmed(), shipped()])
            .when(&cancel(reason))
            .then_rejected(OrderRejection::AlreadyShipped);
    }
    given::<Order>([]).when(&cancel(CancelReason::Requested)).then_rejected(OrderRejection::Unknown);
}

#[test]
fn texts_are_shown_as_they_are_so_they_hold_no_control_characters() {
    for text in ["a\nb", "a\0b", "\u{1b}[31m", "a\u{85}b", "\u{7f}"] {
        let items = vec![OrderItem { product_name: text.to_owned(), ..item(1, 2500) }];
        for payment_method in [order().payment_method, PaymentMethod::External {}] {
            let place = OrderCommand::Place(OrderPlaced { items: items.clone(), payment_method, ..order() });
            given::<Order>([]).when(&place).then_rejected(OrderFlaw::ProductName.into());
        }
        for (carrier, tracking_number) in [(text, "T1"), ("DHL", text)] {
            let (carrier, tracking_number) = (carrier.to_owned(), tracking_number.to_owned());
            given::<Order>([order().into(), confirmed()])
                .when(&OrderCommand::Ship { carrier, tracking_number })
                .then_rejected(OrderFlaw::Shipping.into());
        }
        given::<Order>([order().into()])
            .when(&OrderCommand::Cancel { reason: CancelReason::Requested, detail: Some(text.to_owned()) })
            .then_rejected(OrderFlaw::Detail.into());
    }
}

#[test]
fn a_failed_or_late_payment_cancels_only_what_is_not_paid() {
    for reason in [CancelReason::PaymentFailed, CancelReason::TimedOut] {
        given::<Order>([order().into()]).when(&cancel(reason)).then([cancelled(reason)]);
        given::<Order>([order().into(), confirmed()]).when(&cancel(reason)).then_nothing();
        given::<Order>([order().into(), confirmed(), shipped()]).when(&cancel(reason)).then_nothing();
    }
}

proptest! {
    #[test]
    fn an_order_ends_at_most_once(choices in proptest::collection::vec(0_u8..8, 0..30)) {
        let commands = choices.into_iter().map(|choice| match choice {
            0 | 1 => OrderCommand::Place(order()),
            2 => confirm("p-1", eur(2500)),
            3 => confirm("p-2", eur(2500)),
            4 => ship("T1"),
            5 => cancel(CancelReason::Requested),
            6 => cancel(CancelReason::PaymentFailed),
            _ => cancel(CancelReason::OutOfStock),
        });
        let (_, log) = aggregate_laws(commands, |_: &Order| {});
        let count = |of: fn(&OrderEvent) -> bool| log.iter().filter(|event| of(event)).count();
        let ends = count(|e| matches!(e, OrderEvent::Shipped(_) | OrderEvent::Cancelled(_)));
        prop_assert!(ends <= 1);
        prop_assert!(count(|e| matches!(e, OrderEvent::Confirmed(_))) <= 1);
        if ends == 1 {
            prop_assert!(matches!(log.last(), Some(OrderEvent::Shipped(_) | OrderEvent::Cancelled(_))));
        }
        if let Some(at) = log.iter().position(|e| matches!(e, OrderEvent::Shipped(_))) {
            prop_assert!(matches!(log[at - 1], OrderEvent::Confirmed(_)));
        }
    }
}
