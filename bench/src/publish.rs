//! Publishing with acknowledgements: [`eventkit::Publisher`], and async-nats' `send_publish`.

use std::collections::VecDeque;

use anyhow::Result;
use common::order::OrderPlaced;
use eventkit::{Cause, EventId, EventLog};
use futures::{StreamExt, TryStreamExt};

use crate::arena::Run;
use crate::measure::{Sample, Stopwatch};
use crate::raw;

fn orders(run: &Run) -> Result<Vec<OrderPlaced>> {
    (0..run.messages).map(raw::order).collect()
}

/// The kit: one future a message, `in_flight` of them at once.
pub(crate) async fn kit(run: Run, in_flight: usize) -> Result<Sample> {
    let orders = orders(&run)?;
    let publisher = EventLog::new(run.client.clone(), "/bench").publisher();
    let watch = Stopwatch::start(run.server)?;
    futures::stream::iter(orders)
        .map(|order| {
            let publisher = &publisher;
            async move { publisher.publish(&order, &Cause::request(EventId::generate())).await }
        })
        .buffer_unordered(in_flight)
        .try_for_each(|_receipt| std::future::ready(Ok(())))
        .await?;
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
