//! Orders: every accepted one ended exactly once, the way it should.

use std::collections::BTreeMap;

use common::ShopEvent;
use common::order::OrderPlaced;
use jetkit::{EntityId, Recorded};

use super::{Check, Ledger};
use crate::demo::Ending;

/// One order's history on the log.
#[derive(Debug, Default)]
pub(super) struct Story<'a> {
    pub(super) placed: Option<&'a Recorded<OrderPlaced>>,
    /// Its events in order, as one word each.
    chain: Vec<&'static str>,
    pub(super) ending: Option<Ending>,
}

/// A placed event of its own, to refer to.
pub(super) fn placed_events(ledger: &Ledger) -> Vec<Recorded<OrderPlaced>> {
    let events = ledger.events();
    let placed = events.filter_map(|event| match &event.event {
        ShopEvent::OrderPlaced(placed) => Some(event.clone().map(|_| placed.clone())),
        _ => None,
    });
    placed.collect()
}

/// Every order on the log.
pub(super) fn stories<'a>(
    ledger: &Ledger,
    placed: &'a [Recorded<OrderPlaced>],
) -> BTreeMap<EntityId, Story<'a>> {
    let mut stories: BTreeMap<EntityId, Story<'a>> = BTreeMap::new();
    for event in placed {
        stories.entry(event.order_id.clone()).or_default().placed = Some(event);
    }
    for event in ledger.events() {
        let (order_id, word, ending) = match &event.event {
            ShopEvent::OrderPlaced(e) => (&e.order_id, "placed", None),
            ShopEvent::OrderConfirmed(e) => (&e.order_id, "confirmed", Some(Ending::Confirmed)),
            ShopEvent::OrderShipped(e) => (&e.order_id, "shipped", Some(Ending::Shipped)),
            ShopEvent::OrderCancelled(e) => (&e.order_id, "cancelled", Some(Ending::Cancelled(e.reason))),
            _ => continue,
        };
        let story = stories.entry(order_id.clone()).or_default();
        story.chain.push(word);
        story.ending = ending;
    }
    stories
}

pub(super) fn check(ledger: &Ledger) -> Check {
    let mut check = Check::new("orders");
    let placed = placed_events(ledger);
    let stories = stories(ledger, &placed);
    for (order_id, story) in &stories {
        let chain = story.chain.join(", ");
        match &*chain {
            "placed, confirmed"
            | "placed, confirmed, shipped"
            | "placed, cancelled"
            | "placed, confirmed, cancelled" => {}
            // One that was there before may wait for something for ever, such as another producer's payment.
            "placed" if story.placed.is_some_and(|placed| placed.sequence <= ledger.before.log) => {}
            "placed" => check.wrong.push(format!("order {order_id} has not come to an end")),
            _ => check.wrong.push(format!("order {order_id} has an impossible history: {chain}")),
        }
    }
    for order in &ledger.traffic.placed {
        let (order_id, wanted) = (&order.order_id, order.ending);
        let Some(story) = stories.get(order_id) else {
            check.wrong.push(format!("order {order_id} was accepted and is not on the log"));
            continue;
        };
        check.holds(story.ending == Some(wanted), || {
            format!("order {order_id} ({}) should end as {wanted:?}, not {:?}", order.path, story.ending)
        });
    }
    for order_id in &ledger.traffic.refused {
        check.holds(!stories.contains_key(order_id), || {
            format!("order {order_id} was refused and is on the log")
        });
    }
    compare_with_list(&mut check, ledger, &stories);

    let (mut confirmed, mut shipped, mut cancelled) = (0, 0, 0);
    for story in stories.values() {
        match story.ending {
            Some(Ending::Confirmed) => confirmed += 1,
            Some(Ending::Shipped) => shipped += 1,
            Some(Ending::Cancelled(_)) => cancelled += 1,
            None => {}
        }
    }
    check.seen = format!(
        "{} on the log: {confirmed} confirmed, {shipped} shipped, {cancelled} cancelled, each once",
        stories.len()
    );
    check
}

/// What order-service says must be what the log says.
fn compare_with_list(check: &mut Check, ledger: &Ledger, stories: &BTreeMap<EntityId, Story<'_>>) {
    let mut listed = BTreeMap::new();
    for order in &ledger.orders {
        let before = listed.insert(&order.order_id, order);
        check.holds(before.is_none(), || format!("order-service lists order {} twice", order.order_id));
    }
    for (order_id, story) in stories {
        let status = story.ending.map_or("Placed", Ending::status);
        let version = story.chain.len() as u64;
        let agrees =
            listed.remove(order_id).is_some_and(|order| order.status == status && order.version == version);
        check.holds(agrees, || {
            format!("order-service does not list order {order_id} as {status} after {version} events")
        });
    }
    for order_id in listed.into_keys() {
        check.wrong.push(format!("order-service lists order {order_id}, which is not on the log"));
    }
}
