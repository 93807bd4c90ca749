//! A payment service on a nats-server of its own, without sockets; and the shop around it, played by the test.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::money::{Currency, Money};
use common::order::{
    CancelReason, CardToken, OrderCancelled, OrderEvent, OrderItem, OrderPlaced, PaymentMethod,
};
use common::stock::{StockEvent, StockReserved};
use futures::future::BoxFuture;
use jetkit::http::HttpApi as _;
use jetkit::testing::{Harness, Routes, cause, id};
use jetkit::{EntityId, EventStore, Recorded};
use payment_service::account::{Account, AccountCommand};
use payment_service::adopter::PaymentAdopter;
use payment_service::cashier::Cashier;
use payment_service::gateway::{Charge, Charged, GatewayError, PaymentGateway};
use payment_service::http::Api;
use payment_service::payment::{Payment, PaymentStatus};

pub(crate) fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD).unwrap()
}

pub(crate) fn account(account: &str) -> PaymentMethod {
    PaymentMethod::Account { account_id: id(account) }
}

pub(crate) fn card(token: &str) -> PaymentMethod {
    PaymentMethod::Card { token: CardToken(token.to_owned()) }
}

pub(crate) struct TestService {
    pub(crate) harness: Harness,
    pub(crate) accounts: EventStore<Account>,
    pub(crate) payments: EventStore<Payment>,
    pub(crate) gateway: Arc<Bank>,
    pub(crate) cashier: Cashier,
    pub(crate) adopter: PaymentAdopter,
    pub(crate) http: Routes,
}

impl TestService {
    pub(crate) async fn start() -> Self {
        Self::on(Harness::start(&common::catalog()).await)
    }

    /// The service is gone, and another one starts that remembers nothing: only the server has kept what it had.
    pub(crate) async fn restarted(self) -> Self {
        Self::on(Harness::on(self.harness.server, &common::catalog()).await)
    }

    fn on(harness: Harness) -> Self {
        let log = &harness.log;
        let (accounts, payments, bills) = (log.store::<Account>(), log.store::<Payment>(), log.store());
        let gateway = Arc::new(Bank::default());
        let at: Arc<dyn PaymentGateway> = gateway.clone();
        let cashier = Cashier::new(log.clone(), accounts.clone(), bills.clone(), payments.clone(), at)
            .gateway_answers_within(Duration::from_millis(200));
        let adopter = PaymentAdopter::new(log.clone(), bills, payments.clone());
        let (account_list, payment_list) = (harness.read_model(), harness.read_model());
        let http = Routes::new(Api { accounts: accounts.clone(), account_list, payment_list }.routes());
        Self { harness, accounts, payments, gateway, cashier, adopter, http }
    }

    pub(crate) async fn open(&self, account: &str, minor: i64) {
        let account_id = id(account);
        let command = AccountCommand::Open {
            account_id: account_id.clone(),
            owner: "Alice".to_owned(),
            initial_balance: usd(minor),
        };
        self.accounts.execute(&account_id, &command, &cause()).await.unwrap();
    }

    pub(crate) async fn balance(&self, account: &str) -> i64 {
        self.accounts.load(&id(account)).await.unwrap().state.ledger().unwrap().balance.minor()
    }

    pub(crate) async fn status(&self, payment: &str) -> Option<PaymentStatus> {
        self.payments.load(&id(payment)).await.unwrap().state.status()
    }

    /// An order over 30.00 USD is placed.
    pub(crate) async fn place(&self, order: &str, payment_method: PaymentMethod) {
        let item = OrderItem {
            product_id: id("lamp"),
            product_name: "Lamp".to_owned(),
            quantity: 3,
            unit_price: usd(1000),
        };
        let placed = OrderPlaced {
            order_id: id(order),
            customer_id: id("c"),
            customer_email: None,
            items: vec![item],
            total: usd(3000),
            payment_method,
        };
        self.harness.happens::<OrderEvent, _>(placed).await;
    }

    pub(crate) async fn reserve(&self, order: &str) -> Recorded<StockReserved> {
        let reserved = StockReserved { warehouse: id("main"), order_id: id(order), lines: vec![] };
        self.harness.happens::<StockEvent, _>(reserved).await
    }

    pub(crate) async fn cancel(&self, order: &str) -> Recorded<OrderCancelled> {
        let cancelled = OrderCancelled { order_id: id(order), reason: CancelReason::Requested, detail: None };
        self.harness.happens::<OrderEvent, _>(cancelled).await
    }
}

/// A gateway that keeps books, and lets a test do something between the taking and the answer.
#[derive(Default)]
pub(crate) struct Bank {
    /// What is taken and not given back.
    taken: Mutex<BTreeMap<EntityId, Money>>,
    calls: Mutex<Vec<String>>,
    after_taking: Mutex<Option<BoxFuture<'static, ()>>>,
    /// It cannot be reached.
    down: AtomicBool,
    /// It takes calls and answers none.
    silent: AtomicBool,
}

impl Bank {
    pub(crate) fn taken(&self) -> Vec<(String, i64)> {
        self.taken.lock().unwrap().iter().map(|(id, money)| (id.to_string(), money.minor())).collect()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    pub(crate) fn after_taking(&self, this: impl Future<Output = ()> + Send + 'static) {
        *self.after_taking.lock().unwrap() = Some(Box::pin(this));
    }
}

impl PaymentGateway for Bank {
    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Charged, GatewayError>> {
        Box::pin(async move {
            self.calls.lock().unwrap().push(format!("charge {}", charge.payment_id));
            if self.down.load(Ordering::SeqCst) {
                return Err(GatewayError::Unavailable);
            }
            if self.silent.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if charge.token.0 == "tok_declined" {
                return Ok(Charged::Declined { code: "card_declined" });
            }
            self.taken.lock().unwrap().insert(charge.payment_id.clone(), charge.amount);
            let meanwhile = self.after_taking.lock().unwrap().take();
            if let Some(meanwhile) = meanwhile {
                meanwhile.await;
            }
            Ok(Charged::Approved { reference: "ref".to_owned() })
        })
    }

    fn refund<'a>(&'a self, payment_id: &'a EntityId) -> BoxFuture<'a, Result<(), GatewayError>> {
        self.calls.lock().unwrap().push(format!("refund {payment_id}"));
        self.taken.lock().unwrap().remove(payment_id);
        Box::pin(async { Ok(()) })
    }
}
