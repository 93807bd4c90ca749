//! An order service on a nats-server of its own, without sockets; and the shop around it, played by the test.

use std::path::Path;
use std::time::Duration;

use common::money::{Currency, Money};
use common::payment::{PaymentEvent, PaymentMethodKind, PaymentOutcome, PaymentProcessed};
use common::stock::{StockEvent, StockRejected, StockShortage};
use jetkit::http::HttpApi as _;
use jetkit::testing::{Harness, Routes, Running, SOON, eventually, id};
use jetkit::{EventLog, EventStore, ReadModel};
use order_service::adopter::OrderAdopter;
use order_service::http::Api;
use order_service::order::{Order, OrderStatus};
use order_service::order_list::OrderList;
use order_service::overdue::Overdue;
use order_service::saga::{OrderSaga, Patience};
use serde_json::{Value, json};

pub(crate) fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD).unwrap()
}

/// The body of an order over 39.98 USD.
pub(crate) fn order() -> Value {
    json!({
        "customer_id": "guest-1",
        "customer_email": "guest@example.com",
        "items": [{"product_id": "lamp", "product_name": "Lamp", "quantity": 2, "price": 19.99}],
        "payment_method": {"type": "account", "account_id": "acc"},
    })
}

pub(crate) struct TestService {
    pub(crate) harness: Harness,
    pub(crate) orders: EventStore<Order>,
    pub(crate) http: Routes,
    _running: Running,
}

impl TestService {
    pub(crate) async fn start() -> Self {
        let hour = Duration::from_hours(1);
        Self::with_patience(Patience { ours: hour, outside: hour }).await
    }

    pub(crate) async fn with_patience(patience: Patience) -> Self {
        let harness = Harness::start(&common::catalog()).await;
        let orders = harness.log.store::<Order>();
        let (saga, adopter) = (OrderSaga::new(orders.clone(), patience), OrderAdopter::new(orders.clone()));
        let consumer = order_service::consumer(saga, adopter)
            .retry_delays(Duration::from_millis(20), Duration::from_millis(100));
        let running = harness.run(consumer);
        let order_list = harness.read_model();
        tokio::spawn(Overdue::new(&harness.log, order_list.clone(), patience).watch());
        let http = routes(&harness.log, harness.dir(), order_list);
        Self { harness, orders, http, _running: running }
    }

    /// Places an order under that id.
    pub(crate) async fn place(&self, order_id: &str) {
        let mut body = order();
        body["order_id"] = order_id.into();
        assert_eq!(self.http.post("/orders", &body).await.status, 201);
    }

    /// Places an order, and it is paid.
    pub(crate) async fn confirm(&self, order_id: &str) {
        self.place(order_id).await;
        self.pay(order_id, order_id, PaymentOutcome::Success).await;
        self.becomes(order_id, OrderStatus::Confirmed).await;
    }

    /// Payment service reports a payment over 39.98 USD.
    pub(crate) async fn pay(&self, payment_id: &str, order_id: &str, status: PaymentOutcome) {
        let processed = PaymentProcessed {
            payment_id: id(payment_id),
            order_id: id(order_id),
            amount: usd(3998),
            payment_method: PaymentMethodKind::Card,
            status,
            failure: (status == PaymentOutcome::Failed).then(|| "card_declined".to_owned()),
            reference: None,
        };
        self.harness.happens::<PaymentEvent, _>(processed).await;
    }

    /// The warehouse reports that a lamp is missing.
    pub(crate) async fn reject(&self, order_id: &str) {
        let shortages = vec![StockShortage { product_id: id("lamp"), requested: 2, available: 1 }];
        let rejected = StockRejected { warehouse: id("main"), order_id: id(order_id), shortages };
        self.harness.happens::<StockEvent, _>(rejected).await;
    }

    pub(crate) async fn becomes(&self, order_id: &str, status: OrderStatus) {
        eventually(SOON, || async {
            let order = self.orders.load(&id(order_id)).await.unwrap();
            (order.state.status() == Some(status)).then_some(())
        })
        .await;
    }

    /// Waits until everything that was published is handled, and returns how many dead letters there are.
    pub(crate) async fn dead_letters(&self) -> u64 {
        self.harness.dead_letters(order_service::CONSUMER).await
    }
}

/// The routes, with a list of users of their own.
pub(crate) fn routes(log: &EventLog, dir: &Path, order_list: ReadModel<OrderList>) -> Routes {
    let user_list = ReadModel::follow(log, dir);
    Routes::new(Api { users: log.store(), orders: log.store(), user_list, order_list }.routes())
}
