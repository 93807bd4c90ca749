//! Order service: users and orders. Everything is wired here.

use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use jetkit::http::HttpApi as _;
use jetkit::{Service, about};
use order_service::adopter::OrderAdopter;
use order_service::http::Api;
use order_service::order::Order;
use order_service::order_list::OrderList;
use order_service::overdue::Overdue;
use order_service::saga::{OrderSaga, Patience};
use order_service::user::User;
use order_service::user_list::UserList;

/// Settings of order-service.
#[derive(Debug, Args)]
struct Settings {
    /// How many seconds an order waits for its stock and its payment before it is cancelled
    #[arg(long, env = "ORDER_PATIENCE_SECS", default_value_t = 15 * 60, value_parser = seconds())]
    order_patience_secs: u64,

    /// The same for an order that is paid outside the shop
    #[arg(long, env = "OUTSIDE_ORDER_PATIENCE_SECS", default_value_t = 24 * 60 * 60, value_parser = seconds())]
    outside_order_patience_secs: u64,
}

/// From a second to a year.
fn seconds() -> RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=365 * 24 * 60 * 60)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (mut service, settings) = Service::start::<Settings>(about!(port = 8081), common::catalog()).await?;
    let users = service.log().store::<User>();
    let orders = service.log().store::<Order>();
    let user_list = service.read_model::<UserList>()?;
    let order_list = service.read_model::<OrderList>()?;

    let patience = Patience {
        ours: Duration::from_secs(settings.order_patience_secs),
        outside: Duration::from_secs(settings.outside_order_patience_secs),
    };
    service.spawn("overdue orders", Overdue::new(service.log(), order_list.clone(), patience).watch());
    let saga = OrderSaga::new(orders.clone(), patience);
    let adopter = OrderAdopter::new(orders.clone());
    service.consume(order_service::consumer(saga, adopter));
    service.serve(Api { users, orders, user_list, order_list }.routes());
    service.query("order.get", "/orders");
    service.query("user.get", "/users");
    service.run().await
}
