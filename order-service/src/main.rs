//! Order service: users and orders. Everything is wired here.

use eventkit::{NoSettings, Service, about};
use order_service::adopter::OrderAdopter;
use order_service::http::Api;
use order_service::saga::OrderSaga;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (mut service, _) = Service::start::<NoSettings>(about!(port = 8081), common::catalog()).await?;
    let log = service.log().clone();
    let (users, orders) = (log.store(), log.store());
    let (user_list, order_list) = (service.view(), service.view());

    let saga = OrderSaga::new(orders.clone());
    let adopter = OrderAdopter::new(orders.clone());
    service.consume(order_service::consumer(saga, adopter));
    service.serve(Api { users, orders, user_list, order_list }.routes());
    service.run().await
}
