//! The traffic: accounts, users, stock, and orders that take every path; an order of another producer; a poison message.

mod plan;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use common::money::{Currency, Money};
use common::order::CancelReason;
use futures::{StreamExt, TryStreamExt};
use jetkit::EntityId;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use self::plan::{Path, Planned};
use super::{Progress, Shop};

/// What was asked of the shop, and what is to become of it.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Every order that the shop accepted.
    pub placed: Vec<Placed>,
    /// Orders that it refused.
    pub refused: Vec<EntityId>,
    /// The accounts.
    pub accounts: Vec<AccountOfOurs>,
    /// What came into the warehouse, by product.
    pub received: BTreeMap<EntityId, u64>,
    /// How many users were created.
    pub users: usize,
    /// What was published on `order.placed` and is no event.
    pub poison: Vec<Vec<u8>>,
}

/// An order that the shop accepted.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Which.
    pub order_id: EntityId,
    /// What it tries out, in words.
    pub path: &'static str,
    /// What is to become of it.
    pub ending: Ending,
}

/// What becomes of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Paid, and waiting to be shipped.
    Confirmed,
    /// On its way.
    Shipped,
    /// Off, for this reason.
    Cancelled(CancelReason),
}

/// An account that the traffic opened.
#[derive(Debug, Clone)]
pub struct AccountOfOurs {
    /// Which.
    pub account_id: EntityId,
    /// What was put in less what was taken out by hand.
    pub put_in: Money,
}

/// Who gives the orders, under names that no other run has.
struct Customers<'a> {
    shop: &'a Shop,
    progress: &'a Progress,
    tag: String,
    users: Vec<String>,
    suspended: String,
}

impl Traffic {
    /// Drives `orders` orders through the shop, `at_once` of them at a time, and waits until each has come to its end or patience ends: the audit
    /// tells which did not. Fails if the shop refuses what it must accept.
    pub async fn drive(shop: &Shop, orders: usize, at_once: usize, progress: &Progress) -> Result<Self> {
        let tag = Uuid::new_v4().simple().to_string();
        let tag = tag.get(..8).unwrap_or(&tag).to_owned();
        let plan = plan::plan(&tag, orders);
        let mut traffic = Self::default();

        progress.step("opening accounts, creating users, receiving stock");
        let mut customers = Customers { shop, progress, tag, users: Vec::new(), suspended: String::new() };
        customers.open_accounts(orders, &mut traffic).await?;
        customers.create_users(&mut traffic).await?;
        customers.receive_stock(&plan, &mut traffic).await?;

        progress.orders(orders + 1);
        customers.publish_poison(&mut traffic).await?;
        let customers = &customers;
        let own = futures::stream::iter(&plan)
            .map(|order| customers.live(order))
            .buffer_unordered(at_once)
            .try_collect::<Vec<Placed>>();
        let (placed, adopted) = tokio::try_join!(own, customers.live_elsewhere())?;
        traffic.placed = placed;
        traffic.placed.push(adopted);
        traffic.refused.push(customers.order_while_suspended().await?);
        Ok(traffic)
    }
}

impl Customers<'_> {
    async fn open_accounts(&self, orders: usize, traffic: &mut Traffic) -> Result<()> {
        let rich = i64::try_from(orders)?.saturating_mul(100_000);
        for (name, currency, initial) in [
            ("a", Currency::USD, rich),
            ("b", Currency::USD, rich),
            ("eur", Currency::EUR, rich),
            ("poor", Currency::USD, 500),
        ] {
            let account_id = EntityId::new(format!("{}-{name}", self.tag))?;
            let money = |minor| Money::new(minor, currency);
            let (initial, deposited, withdrawn) = (money(initial)?, money(25_050)?, money(25_025)?);
            let open = json!({
                "type": "OpenAccount", "owner": format!("Customer {name}"),
                "initial_balance": initial.amount(), "currency": currency,
            });
            let path = format!("/accounts/{account_id}");
            self.shop.post("payment-service", &path, "open", &open).await?.expect(201)?;
            for (kind, amount) in [("Deposit", deposited), ("Withdraw", withdrawn)] {
                let change = json!({"type": kind, "amount": amount.amount()});
                self.shop.post("payment-service", &path, kind, &change).await?.expect(200)?;
            }
            let put_in = initial.plus(deposited)?.minus(withdrawn)?;
            traffic.accounts.push(AccountOfOurs { account_id, put_in });
        }
        Ok(())
    }

    /// Four who order, one of them under a new address; and one who may not.
    async fn create_users(&mut self, traffic: &mut Traffic) -> Result<()> {
        let tag = &self.tag;
        let mut created = Vec::new();
        for name in ["alice", "bob", "carol", "dave", "mallory"] {
            let user = json!({"username": name, "email": format!("{name}-{tag}@example.com")});
            let key = format!("{tag}-{name}");
            let user = self.shop.post("order-service", "/users", &key, &user).await?.expect(201)?;
            created.push(user.text("user_id")?.to_owned());
        }
        traffic.users += created.len();
        let suspended = created.pop().context("users")?;
        let status = json!({"status": "Suspended"});
        let path = format!("/users/{suspended}/status");
        self.shop.post("order-service", &path, "suspend", &status).await?.expect(200)?;
        let moved = json!({"email": format!("bob-{tag}@example.net")});
        let path = format!("/users/{}", created.get(1).context("users")?);
        self.shop.write(Method::PATCH, "order-service", &path, "move", &moved).await?.expect(200)?;
        (self.users, self.suspended) = (created, suspended);
        Ok(())
    }

    async fn receive_stock(&self, plan: &[Planned], traffic: &mut Traffic) -> Result<()> {
        for (product_id, quantity) in plan::needed(plan) {
            let product_id = EntityId::new(product_id)?;
            // In two deliveries, one of them announced twice.
            let (first, second) = (quantity / 2, quantity - quantity / 2);
            for (delivery, received) in [(1, first), (2, second), (2, second)] {
                if received > 0 {
                    let path = format!("/stock/{product_id}/receipts");
                    let key = format!("{}-{delivery}", self.tag);
                    let receipt = json!({"received": received});
                    let answer = self.shop.post("consumer-inventory", &path, &key, &receipt);
                    answer.await?.expect(200)?;
                }
            }
            traffic.received.insert(product_id, u64::from(quantity));
        }
        Ok(())
    }

    /// One order, from its first request to its end.
    async fn live(&self, order: &Planned) -> Result<Placed> {
        let Planned { order_id, path, .. } = order;
        let body = self.body(order);
        // Some clients are not sure that they were heard.
        for _ in 0..if order.number.is_multiple_of(7) { 2 } else { 1 } {
            let key = format!("place-{order_id}");
            self.shop.post("order-service", "/orders", &key, &body).await?.expect(201)?;
        }
        self.progress.one_placed();
        if matches!(path, Path::CancelledWhenPaid | Path::ShippedByAccount | Path::ShippedByCard) {
            self.until(order_id, &["Confirmed", "Cancelled"]).await?;
        }
        match path {
            Path::CancelledAtOnce | Path::CancelledWhenPaid => {
                let why = json!({"reason": "ordered by mistake"});
                let cancel = format!("/orders/{order_id}/cancel");
                self.shop.post("order-service", &cancel, "cancel", &why).await?.expect(200)?;
            }
            Path::ShippedByAccount | Path::ShippedByCard => {
                let parcel = json!({"carrier": "UPS", "tracking_number": format!("1Z-{order_id}")});
                let ship = format!("/orders/{order_id}/ship");
                self.shop.post("order-service", &ship, "ship", &parcel).await?.expect(200)?;
            }
            _ => {}
        }
        self.until(order_id, &[path.ending().status()]).await?;
        self.progress.one_ended();
        Ok(Placed { order_id: order_id.clone(), path: path.words(), ending: path.ending() })
    }

    fn body(&self, order: &Planned) -> Value {
        let tag = &self.tag;
        let (account, currency) = match order.path {
            Path::AccountInEuro => ("eur", "EUR"),
            Path::PoorAccount => ("poor", "USD"),
            Path::UnknownAccount => ("unknown", "USD"),
            _ => (if order.number.is_multiple_of(2) { "a" } else { "b" }, "USD"),
        };
        let payment_method = match order.path.card() {
            Some(token) => json!({"type": "card", "token": token}),
            None => json!({"type": "account", "account_id": format!("{tag}-{account}")}),
        };
        let items: Vec<_> = order.lines.iter().map(plan::Line::body).collect();
        let mut body = json!({
            "order_id": order.order_id, "currency": currency, "items": items, "payment_method": payment_method,
        });
        // Two of three are users of the shop, and it knows their address.
        if let Some(user) = self.users.get(order.number % (self.users.len() * 3 / 2).max(1)) {
            body["customer_id"] = json!(user);
        } else {
            let guest = format!("guest-{tag}-{}", order.number % 5);
            body["customer_email"] = json!(format!("{guest}@example.org"));
            body["customer_id"] = json!(guest);
        }
        body
    }

    async fn order_while_suspended(&self) -> Result<EntityId> {
        let order_id = EntityId::new(format!("{}-suspended", self.tag))?;
        let order = json!({
            "order_id": order_id, "customer_id": self.suspended, "items": [plan::MUG.times(1).body()],
            "payment_method": {"type": "card", "token": "tok_visa"},
        });
        let key = format!("place-{order_id}");
        self.shop.post("order-service", "/orders", &key, &order).await?.expect(422)?;
        Ok(order_id)
    }

    /// An order of another producer, in the flat form of the first generation: placed, paid and shipped elsewhere.
    async fn live_elsewhere(&self) -> Result<Placed> {
        let order_id = EntityId::new(format!("{}-flat", self.tag))?;
        let lamp = plan::LAMP;
        let placed = json!({
            "order_id": order_id, "customer_id": format!("elsewhere-{}", self.tag),
            "customer_email": format!("elsewhere-{}@example.com", self.tag), "total_amount": lamp.price_as_float(),
            "items": [{"product_id": lamp.id, "product_name": lamp.name, "quantity": 1, "price": lamp.price_as_float()}],
        });
        let paid = json!({
            "order_id": order_id, "payment_id": format!("{order_id}-payment"), "amount": lamp.price_as_float(),
            "payment_method": "credit_card", "status": "SUCCESS",
        });
        let shipped = json!({"order_id": order_id, "carrier": "DHL", "tracking_number": "JD-1"});
        self.publish_flat("order.placed", "OrderPlaced", placed, &order_id, "Placed").await?;
        self.progress.one_placed();
        self.publish_flat("payment.processed", "PaymentProcessed", paid, &order_id, "Confirmed").await?;
        self.publish_flat("order.shipped", "OrderShipped", shipped, &order_id, "Shipped").await?;
        self.progress.one_ended();
        Ok(Placed { order_id, path: "another producer's, in the flat form", ending: Ending::Shipped })
    }

    /// Publishes a flat event until its order stands at `status`. Core NATS promises nothing, so a producer that cares
    /// publishes again, with the same id.
    async fn publish_flat(
        &self,
        subject: &str,
        event_type: &str,
        mut body: Value,
        order_id: &EntityId,
        status: &str,
    ) -> Result<()> {
        body["event_id"] = json!(Uuid::new_v4());
        body["event_type"] = json!(event_type);
        body["version"] = json!(1);
        body["timestamp"] = json!(chrono::Utc::now());
        let body = serde_json::to_vec(&body)?;
        let impatient = self.shop.clone().with_patience(self.shop.patience() / 5);
        for _ in 0..5 {
            self.shop.publish(subject, &body).await?;
            if until(&impatient, order_id, &[status, "Cancelled"]).await? {
                break;
            }
        }
        Ok(())
    }

    async fn publish_poison(&self, traffic: &mut Traffic) -> Result<()> {
        let poison =
            format!("{{\"event_type\":\"OrderPlaced\",\"order_id\":\"{}-poison\", and no JSON", self.tag);
        self.shop.publish_once("order.placed", &format!("{}-poison", self.tag), poison.as_bytes()).await?;
        traffic.poison.push(poison.into_bytes());
        Ok(())
    }

    async fn until(&self, order_id: &EntityId, statuses: &[&str]) -> Result<bool> {
        until(self.shop, order_id, statuses).await
    }
}

/// Waits until an order stands at one of these; false when patience ends.
async fn until(shop: &Shop, order_id: &EntityId, statuses: &[&str]) -> Result<bool> {
    let path = format!("/orders/{order_id}");
    let reached = shop.wait_for(async || {
        let order: Option<Value> = shop.find("order-service", &path).await?;
        let status = order.as_ref().and_then(|order| order.get("status")?.as_str());
        Ok(status.filter(|status| statuses.contains(status)).map(drop))
    });
    Ok(reached.await?.is_some())
}

impl Ending {
    /// What order-service calls it.
    pub fn status(self) -> &'static str {
        match self {
            Self::Confirmed => "Confirmed",
            Self::Shipped => "Shipped",
            Self::Cancelled(_) => "Cancelled",
        }
    }
}
