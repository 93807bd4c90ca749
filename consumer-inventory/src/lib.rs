//! Reserves, releases and ships stock: [`stock`] has the rules, [`storekeeper`] applies them to what orders do,
//! [`stock_list`] is what readers see, [`http`] lets goods in and readers look. `main.rs` wires them.

pub mod http;
pub mod stock;
pub mod stock_list;
pub mod storekeeper;

use common::order::{OrderCancelled, OrderPlaced, OrderShipped};
use jetkit::Consumer;

/// The one consumer. Its name is the durable's: renaming it handles the whole log again.
pub fn consumer(storekeeper: storekeeper::Storekeeper) -> Consumer {
    Consumer::new("consumer-inventory")
        .on::<OrderPlaced>(storekeeper.clone())
        .on::<OrderCancelled>(storekeeper.clone())
        .on::<OrderShipped>(storekeeper)
}
