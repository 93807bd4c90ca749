//! The shop in numbers: [`shop_metrics`] folds the log into them, [`report`] is how readers get them, [`http`] serves
//! them and the dashboard. [`sums`] and [`durations`] are their exact arithmetic. `main.rs` wires them.

mod counters;
pub mod durations;
pub mod http;
pub mod report;
pub mod shop_metrics;
pub mod sums;
