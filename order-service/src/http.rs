//! The HTTP API: users and orders. It translates and decides nothing.

mod order;
mod user;

use axum::Router;
use axum::routing::{get, post};
use eventkit::{EventStore, ReadModel};

use crate::order::Order;
use crate::order_list::OrderList;
use crate::user::User;
use crate::user_list::UserList;

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    /// The users.
    pub users: EventStore<User>,
    /// The orders.
    pub orders: EventStore<Order>,
    /// Users to search.
    pub user_list: ReadModel<UserList>,
    /// Orders to filter.
    pub order_list: ReadModel<OrderList>,
}

impl Api {
    /// The routes. A test calls them through [`eventkit::http::complete`].
    pub fn routes(self) -> Router {
        Router::new()
            .route("/users", get(user::list).post(user::create))
            .route("/users/{id}", get(user::show).patch(user::update))
            .route("/users/{id}/status", post(user::set_status))
            .route("/users/{id}/events", get(user::history))
            .route("/orders", get(order::list).post(order::place))
            .route("/orders/{id}", get(order::show))
            .route("/orders/{id}/events", get(order::history))
            .route("/orders/{id}/ship", post(order::ship))
            .route("/orders/{id}/cancel", post(order::cancel))
            .with_state(self)
    }
}
