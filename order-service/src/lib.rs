//! Order service: users and orders, and the saga that moves an order on.
//!
//! Read first: `order` and `user` are the rules, without I/O; `saga` reacts to stock and payments; `main.rs` wires it
//! all.

pub mod adopter;
pub mod email;
pub mod http;
pub mod order;
pub mod order_list;
pub mod saga;
pub mod user;
pub mod user_list;
