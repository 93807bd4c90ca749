//! Orders meet the stock, through the consumer runtime on a real nats-server.

use std::time::Duration;

use common::order::{CancelReason, OrderCancelled, OrderEvent, OrderPlaced, OrderShipped};
use common::stock::{StockEvent, StockReceived};
use consumer_inventory::stock::{Reservation, SETTLED_REMEMBERED, Stock};
use consumer_inventory::storekeeper::Storekeeper;
use jetkit::testing::{Anything, cause, happened, id};
use jetkit::{Cause, EventId, ExpectedVersion, Handler, HandlerError, Recorded};

use crate::{harness, keeper, order, warehouse};

fn cancelled(order_id: &str) -> Recorded<OrderCancelled> {
    happened(OrderCancelled { order_id: id(order_id), reason: CancelReason::Requested, detail: None })
}

fn shipped(order_id: &str) -> Recorded<OrderShipped> {
    happened(OrderShipped { order_id: id(order_id), carrier: "Post".into(), tracking_number: "T-1".into() })
}

async fn receive(keeper: &Storekeeper, product: &str, quantity: u32) {
    keeper.receive(id(product), quantity, ExpectedVersion::Any, &cause()).await.unwrap();
}

#[tokio::test]
async fn an_order_is_reserved_and_shipped() {
    let harness = harness().await;
    let keeper = keeper(&harness);
    receive(&keeper, "p-1", 5).await;
    keeper.handle(happened(order("o-1", &[("p-1", 2)]))).await.unwrap();
    keeper.handle(shipped("o-1")).await.unwrap();

    let stock = warehouse(&harness).await;
    assert_eq!(stock.reservation(&id("o-1")), Some(&Reservation::Shipped));
    let level = stock.product(&id("p-1")).unwrap();
    assert_eq!((level.on_hand, level.reserved, level.shipped), (3, 0, 2));
}

#[tokio::test]
async fn a_redelivery_reserves_nothing_more() {
    let harness = harness().await;
    let placed: Recorded<OrderPlaced> = happened(order("o-1", &[("p-1", 2)]));
    for _ in 0..3 {
        let keeper = keeper(&harness); // a process that remembers nothing
        keeper.handle(placed.clone()).await.unwrap();
    }
    let history = harness.log.store::<Stock>().history(&id("main")).await.unwrap();
    assert_eq!(history.len(), 1);
    assert!(matches!(history[0].event, StockEvent::Rejected(_)), "there is no stock");
    assert_eq!(history[0].meta.causation_id.as_ref(), Some(&placed.meta.id));
}

#[tokio::test]
async fn orders_under_one_event_id_are_each_reserved_or_rejected() {
    let harness = harness().await;
    let keeper = keeper(&harness);
    receive(&keeper, "p-1", 5).await;
    let running = harness.run(consumer_inventory::consumer(keeper));
    // As order-service adopts them: each on its own subject, under the id that its producer gave it.
    let event_id = EventId::generate();
    for (order_id, source, quantity) in [("o-1", "/one", 2), ("o-2", "/one", 2), ("o-3", "/two", 4)] {
        let mut placed = happened(order(order_id, &[("p-1", quantity)]));
        placed.meta.id = event_id.clone();
        placed.meta.source = source.to_owned();
        let adopting = Cause::adopting(&placed);
        let orders = harness.log.store::<Anything<OrderEvent>>();
        orders.execute(&id(order_id), &placed.event.into(), &adopting).await.unwrap();
    }
    harness.handled("consumer-inventory").await;
    let stock = warehouse(&harness).await;
    for order_id in ["o-1", "o-2"] {
        let held = stock.reservation(&id(order_id));
        assert!(matches!(held, Some(Reservation::Reserved(_))), "{order_id}: {held:?}");
    }
    assert_eq!(stock.reservation(&id("o-3")), Some(&Reservation::Rejected));
    assert_eq!(stock.product(&id("p-1")).unwrap().reserved, 4);
    running.stop().await;
}

#[tokio::test]
async fn an_order_cancelled_before_it_is_reserved_holds_nothing() {
    let harness = harness().await;
    let keeper = keeper(&harness);
    receive(&keeper, "p-1", 5).await;
    keeper.handle(cancelled("o-1")).await.unwrap();
    keeper.handle(happened(order("o-1", &[("p-1", 2)]))).await.unwrap();
    let stock = warehouse(&harness).await;
    assert_eq!(stock.product(&id("p-1")).unwrap().on_hand, 5);
    assert_eq!(stock.reservation(&id("o-1")), Some(&Reservation::Released));
}

#[tokio::test]
async fn what_comes_when_its_order_is_long_forgotten_moves_no_stock() {
    let harness = harness().await;
    // It remembers neither of the two orders.
    let keeper = keeper(&harness);
    receive(&keeper, "p-1", 5).await;
    for order_id in ["o-1", "o-2"] {
        harness.happens::<OrderEvent, _>(order(order_id, &[("p-1", 2)])).await;
    }
    harness.happens::<OrderEvent, _>(cancelled("o-1").event).await;
    harness.happens::<OrderEvent, _>(shipped("o-2").event).await;
    // Nothing says yet that it was shipped before, whatever its producer's clock says.
    let refused = keeper.handle(by_another_clock(shipped("o-2"))).await;
    assert!(matches!(refused, Err(HandlerError::Reject(_))), "{refused:?}");
    // So much that it may be forgotten.
    for _ in 0..SETTLED_REMEMBERED {
        harness.client.publish("stock.counted.elsewhere.0", "".into()).await.unwrap();
    }
    harness.client.flush().await.unwrap();
    receive(&keeper, "p-2", 1).await;
    for order_id in ["o-1", "o-2"] {
        keeper.handle(by_another_clock(happened(order(order_id, &[("p-1", 2)])))).await.unwrap();
    }
    keeper.handle(by_another_clock(shipped("o-2"))).await.unwrap();
    keeper.handle(by_another_clock(cancelled("o-1"))).await.unwrap();
    let stock = warehouse(&harness).await;
    let level = stock.product(&id("p-1")).unwrap();
    assert_eq!((level.on_hand, level.reserved, level.shipped), (5, 0, 0));

    // One that is still open is served, however long ago it was placed.
    harness.happens::<OrderEvent, _>(order("o-3", &[("p-1", 1)])).await;
    keeper.handle(by_another_clock(happened(order("o-3", &[("p-1", 1)])))).await.unwrap();
    let stock = warehouse(&harness).await;
    assert_eq!(stock.product(&id("p-1")).unwrap().reserved, 1);
}

/// The same of a producer whose clock is a thousand years ahead.
fn by_another_clock<E>(mut event: Recorded<E>) -> Recorded<E> {
    event.meta.time += chrono::TimeDelta::days(365_000);
    event
}

#[tokio::test]
async fn an_order_settled_before_it_is_reserved_moves_the_stock_that_its_history_says() {
    let harness = harness().await;
    let keeper = keeper(&harness);
    receive(&keeper, "p-1", 5).await;
    harness.happens::<OrderEvent, _>(order("o-1", &[("p-1", 2)])).await;
    harness.happens::<OrderEvent, _>(cancelled("o-1").event).await;
    harness.happens::<OrderEvent, _>(order("o-2", &[("p-1", 1)])).await;
    harness.happens::<OrderEvent, _>(shipped("o-2").event).await;
    for (order_id, quantity) in [("o-1", 2), ("o-2", 1)] {
        keeper.handle(happened(order(order_id, &[("p-1", quantity)]))).await.unwrap();
    }
    keeper.handle(cancelled("o-1")).await.unwrap();
    keeper.handle(shipped("o-2")).await.unwrap();
    let history = harness.log.store::<Stock>().history(&id("main")).await.unwrap();
    let reserved = history.iter().filter(|recorded| matches!(recorded.event, StockEvent::Reserved(_)));
    assert_eq!(reserved.count(), 1, "nothing is held for an order that is cancelled already");
    let stock = warehouse(&harness).await;
    let level = stock.product(&id("p-1")).unwrap();
    assert_eq!((level.on_hand, level.reserved, level.shipped), (4, 0, 1));
}

#[tokio::test]
async fn shipping_what_is_not_held_is_rejected_and_not_retried() {
    let harness = harness().await;
    let keeper = keeper(&harness);
    assert!(matches!(keeper.handle(shipped("o-1")).await, Err(HandlerError::Reject(_))));
}

#[tokio::test]
async fn replicas_never_reserve_more_than_there_is() {
    let harness = harness().await;
    let replicas = [keeper(&harness), keeper(&harness)];
    receive(&replicas[0], "p-1", 10).await;
    let mut orders = tokio::task::JoinSet::new();
    for n in 0..30 {
        let keeper = replicas[n % 2].clone();
        orders.spawn(async move {
            keeper.handle(happened(order(&format!("o-{n}"), &[("p-1", 1)]))).await.unwrap();
        });
    }
    tokio::time::timeout(Duration::from_secs(30), orders.join_all()).await.unwrap();

    let history = harness.log.store::<Stock>().history(&id("main")).await.unwrap();
    let count = |is: fn(&StockEvent) -> bool| history.iter().filter(|recorded| is(&recorded.event)).count();
    assert_eq!(count(|event| matches!(event, StockEvent::Reserved(_))), 10);
    assert_eq!(count(|event| matches!(event, StockEvent::Rejected(_))), 20);
    assert_eq!(count(|event| matches!(event, StockEvent::Received(StockReceived { quantity: 10, .. }))), 1);
}

#[tokio::test]
async fn the_consumer_follows_orders_on_the_log() {
    let harness = harness().await;
    let keeper = keeper(&harness);
    receive(&keeper, "p-1", 5).await;
    let running = harness.run(consumer_inventory::consumer(keeper));

    harness.happens::<OrderEvent, _>(order("o-1", &[("p-1", 2)])).await;
    harness.happens::<OrderEvent, _>(order("o-2", &[("p-1", 1)])).await;
    harness.happens::<OrderEvent, _>(order("o-3", &[("p-1", 4)])).await;
    harness.happens::<OrderEvent, _>(cancelled("o-1").event).await;
    harness.happens::<OrderEvent, _>(shipped("o-2").event).await;

    harness.handled("consumer-inventory").await;
    let stock = warehouse(&harness).await;
    assert_eq!(stock.reservation(&id("o-1")), Some(&Reservation::Released));
    assert_eq!(stock.reservation(&id("o-2")), Some(&Reservation::Shipped));
    assert!(stock.reservation(&id("o-3")).is_some());
    let level = stock.product(&id("p-1")).unwrap();
    assert_eq!(level.received(), 5);
    running.stop().await;
}
