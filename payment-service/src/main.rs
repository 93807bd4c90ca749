//! Payment service: accounts and payments. Everything is wired here.

use std::sync::Arc;

use eventkit::{NoSettings, Service, about};
use payment_service::adopter::PaymentAdopter;
use payment_service::cashier::Cashier;
use payment_service::gateway::SimulatedGateway;
use payment_service::http::Api;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (mut service, _) = Service::start::<NoSettings>(about!(port = 8082), common::catalog()).await?;
    let log = service.log().clone();
    let (accounts, bills, payments) = (log.store(), log.store(), log.store());
    let (account_list, payment_list) = (service.read_model()?, service.read_model()?);
    let gateway = Arc::new(SimulatedGateway::default());

    let cashier = Cashier::new(log.clone(), accounts.clone(), bills.clone(), payments.clone(), gateway);
    let adopter = PaymentAdopter::new(log, bills, payments);
    service.consume(payment_service::consumer(cashier, adopter));
    service.serve(Api { accounts, account_list, payment_list }.routes());
    service.query("account.get", "/accounts");
    service.run().await
}
