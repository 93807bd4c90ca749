//! The whole system as processes, black box: orders in, an audit of everything at the end.

mod cluster;
mod crashes;
mod documents;
mod identities;
mod orders;
mod outsider;
mod pages;
mod storm;
