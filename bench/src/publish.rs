//! Publishing with acknowledgements: [`jetkit::Publisher`], and async-nats' `send_publish`.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use common::order::OrderPlaced;
use futures::future::try_join_all;
use jetkit::{Cause, EventId, EventLog};

use crate::measure::{Sample, Stopwatch};
use crate::raw;
use crate::scenario::Run;

fn orders(run: &Run) -> Result<Vec<OrderPlaced>> {
    (0..run.messages).map(raw::order).collect()
}

/// The kit: `in_flight` callers, each with one message at a time.
pub(crate) async fn kit(run: Run, in_flight: usize) -> Result<Sample> {
    let orders = Mutex::new(orders(&run)?.into_iter());
    let publisher = EventLog::new(run.client.clone(), "/bench").publisher();
    let next = || orders.lock().unwrap_or_else(PoisonError::into_inner).next();
    let caller = async || -> Result<()> {
        while let Some(order) = next() {
            publisher.publish(&order, &Cause::request(EventId::generate())).await?;
        }
        Ok(())
    };
    let watch = Stopwatch::start(run.server)?;
    if in_flight == 1 {
        caller().await?;
    } else {
        try_join_all((0..in_flight).map(|_| caller())).await?;
    }
    watch.stop(run.messages)
}

/// By hand: a queue of `in_flight` acknowledgements, the oldest awaited first. (Faster than a future a message.)
pub(crate) async fn raw(run: Run, in_flight: usize, with_ids: bool) -> Result<Sample> {
    let orders = orders(&run)?;
    let js = run.jetstream();
    let mut waiting = VecDeque::with_capacity(in_flight);
    let watch = Stopwatch::start(run.server)?;
    for order in orders {
        let (subject, message) =
            if with_ids { raw::order_message(&order, 0)? } else { raw::order_message_without_id(&order, 0)? };
        waiting.push_back(js.send_publish(subject, message).await?);
        if waiting.len() >= in_flight
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.await?;
        }
    }
    for ack in waiting {
        ack.await?;
    }
    watch.stop(run.messages)
}
