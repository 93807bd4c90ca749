//! The HTTP API: users and orders. It translates and decides nothing.

mod order;
mod user;

use jetkit::http::{HttpApi, Routes};
use jetkit::{EventStore, ReadModel};
use utoipa_axum::routes;

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

impl HttpApi for Api {
    fn described() -> Routes<Self> {
        Routes::new()
            .routes(routes!(user::list, user::create))
            .routes(routes!(user::show, user::update))
            .routes(routes!(user::set_status))
            .routes(routes!(user::history))
            .routes(routes!(order::list, order::place))
            .routes(routes!(order::show))
            .routes(routes!(order::history))
            .routes(routes!(order::ship))
            .routes(routes!(order::cancel))
    }
}
