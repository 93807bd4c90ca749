//! Payment service: accounts and payments. Everything is wired here.

use std::sync::Arc;

use eventkit::{Consumer, NoSettings, OrderBy, Service, about};
use payment_service::adopter::PaymentAdopter;
use payment_service::cashier::Cashier;
use payment_service::gateway::SimulatedGateway;
use payment_service::http::Api;

use common::order::OrderCancelled;
use common::payment::PaymentProcessed;
use common::stock::StockReserved;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (mut service, _) = Service::start::<NoSettings>(about!(port = 8082), common::catalog()).await?;
    let log = service.log().clone();
    let (accounts, payments, list) = (log.store(), log.store(), service.view());
    let gateway = Arc::new(SimulatedGateway::default());

    let cashier = Cashier::new(log.clone(), accounts.clone(), payments.clone(), list.clone(), gateway);
    let adopter = PaymentAdopter::new(log, payments.clone());
    let consumer = Consumer::new("payment-service")
        .on::<StockReserved>(cashier.clone())
        .on::<OrderCancelled>(cashier)
        .adopt::<PaymentProcessed>(adopter)
        // A warehouse's events are one entity's; what must wait for one another is one order's.
        .ordered_by(OrderBy::Correlation)
        // A gateway's outage should pass before a payment is given up.
        .max_attempts(10);
    service.consume(consumer);
    service.serve(Api::new(accounts, payments, list).routes());
    service.run().await
}
