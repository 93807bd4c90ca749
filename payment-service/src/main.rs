//! Payment service: accounts and payments. Everything is wired here.

use std::sync::Arc;

use jetkit::http::HttpApi as _;
use jetkit::{NoSettings, Service, about};
use payment_service::account::Account;
use payment_service::account_list::AccountList;
use payment_service::adopter::PaymentAdopter;
use payment_service::bill::Bill;
use payment_service::cashier::Cashier;
use payment_service::gateway::SimulatedGateway;
use payment_service::http::Api;
use payment_service::payment::Payment;
use payment_service::payment_list::PaymentList;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (mut service, _) = Service::start::<NoSettings>(about!(port = 8082), common::catalog()).await?;
    let log = service.log().clone();
    let accounts = log.store::<Account>();
    let bills = log.store::<Bill>();
    let payments = log.store::<Payment>();
    let account_list = service.read_model::<AccountList>()?;
    let payment_list = service.read_model::<PaymentList>()?;

    let gateway = Arc::new(SimulatedGateway::default());
    let cashier = Cashier::new(log.clone(), accounts.clone(), bills.clone(), payments.clone(), gateway);
    let adopter = PaymentAdopter::new(log, bills, payments);
    service.consume(payment_service::consumer(cashier, adopter));
    service.serve(Api { accounts, account_list, payment_list }.routes());
    service.query("account.get", "/accounts");
    service.run().await
}
