//! Stock: what came in is on hand, reserved or shipped; and what is reserved or shipped is what orders have.

use std::collections::BTreeMap;

use common::ShopEvent;
use jetkit::EntityId;

use super::{Check, Ledger, orders};
use crate::demo::{Ending, Stock};

pub(super) fn check(ledger: &Ledger) -> Check {
    let mut check = Check::new("stock");
    let expected = expected(ledger);
    let mut listed = BTreeMap::new();
    for stock in &ledger.stock {
        let id = &stock.product_id;
        check.holds(stock.received == stock.on_hand + stock.reserved + stock.shipped, || {
            format!("{id}: received {} is not on hand + reserved + shipped: {stock:?}", stock.received)
        });
        let before = listed.insert(id.clone(), stock);
        check.holds(before.is_none(), || format!("consumer-inventory lists {id} twice"));
    }
    for (id, wanted) in &expected {
        let found = listed.remove(id);
        check.holds(found == Some(wanted), || {
            format!("{id}: by receipts and orders {wanted:?}, consumer-inventory says {found:?}")
        });
    }
    for id in listed.into_keys() {
        check.wrong.push(format!("{id} is in stock, and none ever came in"));
    }
    for (id, wanted) in &ledger.traffic.received {
        let received = received(ledger, ledger.before.log).get(id).copied().unwrap_or(0);
        check.holds(received == *wanted, || {
            format!("{id}: {wanted} were delivered, {received} were received")
        });
    }
    let sum = |of: fn(&Stock) -> u64| ledger.stock.iter().map(of).sum::<u64>();
    check.seen = format!(
        "{} received = {} on hand + {} reserved + {} shipped",
        sum(|stock| stock.received),
        sum(|stock| stock.on_hand),
        sum(|stock| stock.reserved),
        sum(|stock| stock.shipped)
    );
    check
}

/// What came in after `since`, by product.
fn received(ledger: &Ledger, since: u64) -> BTreeMap<EntityId, u64> {
    let mut received = BTreeMap::new();
    for event in ledger.events().filter(|event| event.sequence > since) {
        if let ShopEvent::StockReceived(e) = &event.event {
            *received.entry(e.product_id.clone()).or_default() += u64::from(e.quantity);
        }
    }
    received
}

/// What must be there by the receipts and by what became of orders, not by what the warehouse wrote about them.
fn expected(ledger: &Ledger) -> BTreeMap<EntityId, Stock> {
    let level = |(id, received): (EntityId, u64)| {
        (id.clone(), Stock { product_id: id, on_hand: received, reserved: 0, shipped: 0, received })
    };
    let mut expected: BTreeMap<_, _> = received(ledger, 0).into_iter().map(level).collect();
    let waiting: Vec<&EntityId> = ledger
        .events()
        .filter_map(|event| match &event.event {
            ShopEvent::StockReserved(e) => Some(&e.order_id),
            _ => None,
        })
        .collect();
    let placed = orders::placed_events(ledger);
    for (order_id, story) in orders::stories(ledger, &placed) {
        let Some(order) = story.placed else { continue };
        for item in &order.items {
            let Some(stock) = expected.get_mut(&item.product_id) else { continue };
            let quantity = u64::from(item.quantity);
            match story.ending {
                Some(Ending::Confirmed) => stock.reserved += quantity,
                Some(Ending::Shipped) => stock.shipped += quantity,
                None if waiting.contains(&&order_id) => stock.reserved += quantity,
                Some(Ending::Cancelled(_)) | None => continue,
            }
            stock.on_hand = stock.on_hand.wrapping_sub(quantity); // more than there was shows as a difference
        }
    }
    expected
}
