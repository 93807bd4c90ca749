//! Reserves, releases and ships stock: [`stock`] has the rules, [`storekeeper`] applies them to what orders do,
//! [`stock_list`] is what readers see, [`http`] lets goods in and readers look. `main.rs` wires them.

pub mod http;
pub mod stock;
pub mod stock_list;
pub mod storekeeper;
