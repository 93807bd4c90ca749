//! Order service: users and orders. Everything is wired here.

use common::order::{OrderPlaced, OrderShipped};
use common::payment::PaymentProcessed;
use common::stock::StockRejected;
use eventkit::{Consumer, NoSettings, OrderBy, Service, about};
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
    let consumer = Consumer::new("order-service")
        .on::<PaymentProcessed>(saga.clone())
        .on::<StockRejected>(saga)
        .adopt::<OrderPlaced>(adopter.clone())
        .adopt::<OrderShipped>(adopter)
        // A warehouse's events are one entity's; what must wait for one another is one order's.
        .ordered_by(OrderBy::Correlation);
    service.consume(consumer);
    service.serve(Api { users, orders, user_list, order_list }.routes());
    service.run().await
}
