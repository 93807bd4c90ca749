//! An order service on a nats-server of its own, without sockets; and the shop around it, played by the test.

use std::time::Duration;

use common::money::{Currency, Money};
use common::payment::{PaymentEvent, PaymentMethodKind, PaymentOutcome, PaymentProcessed};
use common::stock::{StockEvent, StockRejected, StockShortage};
use jetkit::http::HttpApi as _;
use jetkit::testing::{NatsServer, Routes, eventually, records_anything};
use jetkit::{Cause, EntityId, EventId, EventLog, EventStore, ReadModel};
use order_service::adopter::OrderAdopter;
use order_service::http::Api;
use order_service::order::{Order, OrderStatus};
use order_service::overdue::Overdue;
use order_service::saga::{OrderSaga, Patience};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

const SOON: Duration = Duration::from_secs(10);

pub(crate) fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

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

pub(crate) struct Desk {
    _server: NatsServer,
    _dir: TempDir,
    _running: DropGuard,
    pub(crate) client: async_nats::Client,
    pub(crate) log: EventLog,
    pub(crate) orders: EventStore<Order>,
    pub(crate) http: Routes,
}

impl Desk {
    pub(crate) async fn start() -> Self {
        let hour = Duration::from_hours(1);
        Self::with_patience(Patience { ours: hour, outside: hour }).await
    }

    pub(crate) async fn with_patience(patience: Patience) -> Self {
        let server = NatsServer::start().await;
        let client = server.client().await;
        jetkit::provision::streams(&client, &common::catalog(), 1).await.unwrap();
        let log = EventLog::new(client.clone(), "/order-service");
        let orders = log.store::<Order>();
        let dir = TempDir::new().unwrap();
        let order_list = ReadModel::follow(&log, dir.path());
        let overdue = Overdue::new(&log, order_list.clone(), patience);
        let api = Api {
            users: log.store(),
            orders: orders.clone(),
            user_list: ReadModel::follow(&log, dir.path()),
            order_list,
        };
        let (saga, adopter) = (OrderSaga::new(orders.clone(), patience), OrderAdopter::new(orders.clone()));
        let consumer = order_service::consumer(saga, adopter)
            .retry_delays(Duration::from_millis(20), Duration::from_millis(100));
        let stop = CancellationToken::new();
        tokio::spawn(consumer.run(client.clone(), stop.clone()));
        tokio::spawn(stop.clone().run_until_cancelled_owned(overdue.watch()));
        let http = Routes::new(api.routes());
        Self { _server: server, _dir: dir, _running: stop.drop_guard(), client, log, orders, http }
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
        self.log.store::<AnyPayment>().execute(&id(payment_id), &processed.into(), &fresh()).await.unwrap();
    }

    /// The warehouse reports that a lamp is missing.
    pub(crate) async fn reject(&self, order_id: &str) {
        let shortages = vec![StockShortage { product_id: id("lamp"), requested: 2, available: 1 }];
        let rejected = StockRejected { warehouse: id("main"), order_id: id(order_id), shortages };
        self.log.store::<AnyStock>().execute(&id("main"), &rejected.into(), &fresh()).await.unwrap();
    }

    pub(crate) async fn becomes(&self, order_id: &str, status: OrderStatus) {
        eventually(SOON, || async {
            let order = self.orders.load(&id(order_id)).await.unwrap();
            (order.state.status() == Some(status)).then_some(())
        })
        .await;
    }

    /// Waits until everything that was published is handled for good, and tells how many dead letters there are.
    pub(crate) async fn dead_letters(&self) -> u64 {
        let js = async_nats::jetstream::new(self.client.clone());
        let events = js.get_stream("EVENTS").await.unwrap();
        eventually(SOON, || async {
            let info = events.consumer_info(order_service::CONSUMER).await.ok()?;
            // A message is stored, and its publisher told so, a moment before the consumer counts it as pending.
            let mut last = 0;
            for filter in &info.config.filter_subjects {
                let message = events.get_last_raw_message_by_subject(filter).await;
                last = last.max(message.map_or(0, |message| message.sequence));
            }
            (info.delivered.stream_sequence >= last && info.num_pending == 0 && info.num_ack_pending == 0)
                .then_some(())
        })
        .await;
        js.get_stream("DLQ").await.unwrap().cached_info().state.messages
    }
}

pub(crate) fn fresh() -> Cause {
    Cause::request(EventId::generate())
}

records_anything!(AnyPayment, "payment", PaymentEvent);
records_anything!(AnyStock, "stock", StockEvent);
