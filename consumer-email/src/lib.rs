//! Tells customers by mail what becomes of their orders. [`mailer`] is the story of one mail: [`letter`] composes it,
//! [`mail`] has the rules that it is sent once, [`transport`] sends it ([`smtp`], or [`eml`] files without a server).
//! [`mail_list`] and [`http`] show what was sent. `main.rs` wires them.

pub mod eml;
pub mod http;
pub mod letter;
pub mod mail;
pub mod mail_list;
pub mod mailer;
pub mod smtp;
pub mod transport;
