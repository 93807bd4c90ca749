//! The contract: every event of the shop, declared once. One file per entity; read `order` first.
//!
//! A change here is a change for every service. Fields may be added with `#[serde(default)]`; anything that an old
//! event or an old reader would not survive needs a new version, an upcast and a golden file
//! (`tests/golden/<type>.v<version>.json`, which then never changes).

pub mod account;
pub mod bill;
pub mod email;
mod first_generation;
pub mod mail;
pub mod money;
pub mod order;
pub mod payment;
pub mod stock;
pub mod text;
pub mod user;

use jetkit::{Catalog, EventSet as _, events};

use account::{AccountOpened, MoneyDeposited, MoneyWithdrawn};
use bill::{BillClosed, BillPaidOutside};
use mail::{MailAttempted, MailSent, MailSkipped};
use order::{OrderCancelled, OrderConfirmed, OrderPlaced, OrderShipped};
use payment::{PaymentProcessed, PaymentRefunded, PaymentVoided};
use stock::{StockReceived, StockRejected, StockReleased, StockReserved, StockShipped};
use user::{UserCreated, UserStatusChanged, UserUpdated};

events! {
    /// Everything that can happen in the shop.
    pub enum ShopEvent {
        UserCreated(UserCreated),
        UserUpdated(UserUpdated),
        UserStatusChanged(UserStatusChanged),
        OrderPlaced(OrderPlaced),
        OrderConfirmed(OrderConfirmed),
        OrderShipped(OrderShipped),
        OrderCancelled(OrderCancelled),
        StockReceived(StockReceived),
        StockReserved(StockReserved),
        StockRejected(StockRejected),
        StockReleased(StockReleased),
        StockShipped(StockShipped),
        PaymentProcessed(PaymentProcessed),
        PaymentRefunded(PaymentRefunded),
        PaymentVoided(PaymentVoided),
        BillPaidOutside(BillPaidOutside),
        BillClosed(BillClosed),
        AccountOpened(AccountOpened),
        MoneyDeposited(MoneyDeposited),
        MoneyWithdrawn(MoneyWithdrawn),
        MailAttempted(MailAttempted),
        MailSent(MailSent),
        MailSkipped(MailSkipped),
    }
}

/// Every event of the shop, as data: what the stream holds, and what tools offer.
pub fn catalog() -> Catalog {
    ShopEvent::catalog()
}
