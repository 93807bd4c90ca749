//! A net under the timers. The server keeps them in one stream, which can be lost apart from the log: an order that still
//! waits long after its time gets its timer again, and so is cancelled.

use std::time::Duration;

use jetkit::{Cause, EntityId, EventId, EventLog, ReadModel, Timers};

use crate::order_list::{OrderList, OrderSummary};
use crate::saga::{OrderOverdue, Patience};

/// Added to an order's time before its timer counts as lost.
const GRACE: Duration = Duration::from_secs(5);

/// How many orders are read at once.
const AT_ONCE: usize = 500;

/// Finds the orders whose timers were lost.
#[derive(Debug)]
pub struct Overdue {
    orders: ReadModel<OrderList>,
    timers: Timers,
    patience: Patience,
}

impl Overdue {
    /// Looks among these orders.
    pub fn new(log: &EventLog, orders: ReadModel<OrderList>, patience: Patience) -> Self {
        Self { orders, timers: log.timers(crate::CONSUMER), patience }
    }

    /// Looks for as long as it is polled. An order is found between one and two times its patience after it was placed, or
    /// after this service was started. No clock is compared with another one for that.
    pub async fn watch(self) -> anyhow::Result<()> {
        self.orders.caught_up().await;
        let Patience { ours, outside } = self.patience;
        tokio::join!(self.watch_those(false, ours), self.watch_those(true, outside));
        Ok(())
    }

    async fn watch_those(&self, paid_outside: bool, patience: Duration) {
        loop {
            let placed_by_now = self.orders.watermark();
            tokio::time::sleep(patience + GRACE).await;
            if let Err(error) = self.remind(paid_outside, placed_by_now).await {
                tracing::warn!(error = format!("{error:#}"), "lost timers cannot be set again; trying later");
            }
        }
    }

    /// Sets the timer of every order that was placed up to this sequence and waits still. One whose timer has come
    /// meanwhile is cancelled once: the order answers that it is.
    async fn remind(&self, paid_outside: bool, placed_up_to: u64) -> anyhow::Result<()> {
        let mut after = 0;
        loop {
            let places = after..=placed_up_to;
            let waiting = self
                .orders
                .read(move |tables| OrderSummary::waiting(tables, paid_outside, places, AT_ONCE))
                .await?
                .value;
            for (place, order_id) in &waiting {
                tracing::warn!(order.id = %order_id, "the timer of this order was lost; it is set again");
                self.set(order_id).await?;
                after = place + 1;
            }
            if waiting.len() < AT_ONCE {
                return Ok(());
            }
        }
    }

    async fn set(&self, order_id: &EntityId) -> anyhow::Result<()> {
        let overdue = OrderOverdue { order_id: order_id.clone() };
        let cause = Cause::request(EventId::generate());
        Ok(self.timers.set(Duration::ZERO, &overdue, &cause).await?)
    }
}
