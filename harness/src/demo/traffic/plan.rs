//! Which orders are placed. Pure.

use std::collections::BTreeMap;

use common::money::{Currency, Money};
use common::order::CancelReason;
use jetkit::EntityId;
use serde_json::{Value, json};

use super::Ending;

/// What one order tries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Account,
    AccountInEuro,
    Card,
    CardGatewaySilent,
    CardGatewayAway,
    CardDeclined,
    PoorAccount,
    UnknownAccount,
    OutOfStock,
    CancelledAtOnce,
    CancelledWhenPaid,
    ShippedByAccount,
    ShippedByCard,
}

/// First one of each that takes its time or is enough once, then rounds of the others.
const ONCE: [Path; 3] = [Path::CardGatewaySilent, Path::CardGatewayAway, Path::UnknownAccount];
const ROUND: [Path; 10] = [
    Path::Account,
    Path::Card,
    Path::ShippedByAccount,
    Path::CardDeclined,
    Path::PoorAccount,
    Path::ShippedByCard,
    Path::OutOfStock,
    Path::CancelledWhenPaid,
    Path::AccountInEuro,
    Path::CancelledAtOnce,
];

impl Path {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Account => "paid by account",
            Self::AccountInEuro => "paid by account, in euro",
            Self::Card => "paid by card",
            Self::CardGatewaySilent => "paid by card, the gateway's first answer lost",
            Self::CardGatewayAway => "paid by card, the gateway away at first",
            Self::CardDeclined => "card declined",
            Self::PoorAccount => "insufficient balance",
            Self::UnknownAccount => "no such account",
            Self::OutOfStock => "out of stock",
            Self::CancelledAtOnce => "cancelled by the customer at once",
            Self::CancelledWhenPaid => "cancelled by the customer when paid",
            Self::ShippedByAccount => "paid by account and shipped",
            Self::ShippedByCard => "paid by card and shipped",
        }
    }

    pub(super) fn ending(self) -> Ending {
        match self {
            Self::Account
            | Self::AccountInEuro
            | Self::Card
            | Self::CardGatewaySilent
            | Self::CardGatewayAway => Ending::Confirmed,
            Self::ShippedByAccount | Self::ShippedByCard => Ending::Shipped,
            Self::CardDeclined | Self::PoorAccount | Self::UnknownAccount => {
                Ending::Cancelled(CancelReason::PaymentFailed)
            }
            Self::OutOfStock => Ending::Cancelled(CancelReason::OutOfStock),
            Self::CancelledAtOnce | Self::CancelledWhenPaid => Ending::Cancelled(CancelReason::Requested),
        }
    }

    /// The card's token, if it is paid by card (payment-service/src/gateway.rs says what each does).
    pub(super) fn card(self) -> Option<&'static str> {
        match self {
            Self::Card | Self::ShippedByCard | Self::CancelledAtOnce => Some("tok_visa"),
            Self::CardGatewaySilent => Some("tok_timeout"),
            Self::CardGatewayAway => Some("tok_outage"),
            Self::CardDeclined => Some("tok_declined"),
            _ => None,
        }
    }
}

/// One order to be placed.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) number: usize,
    pub(super) order_id: EntityId,
    pub(super) path: Path,
    pub(super) lines: Vec<Line>,
}

/// So many of one product.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    product: Product,
    quantity: u32,
}

/// Something to be sold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    price: i64,
}

pub(super) const LAMP: Product = Product { id: "lamp", name: "Lamp", price: 19_99 };
pub(super) const MUG: Product = Product { id: "mug", name: "Mug <blue & white>", price: 7_25 };
const CHAIR: Product = Product { id: "chair", name: "Chair", price: 89_50 };
const BOOK: Product = Product { id: "book", name: "Das Buch über Bücher", price: 12_00 };
const PRODUCTS: [Product; 4] = [LAMP, MUG, CHAIR, BOOK];
/// One comes in with each run, and nobody orders so few.
const UNICORN: Product = Product { id: "unicorn", name: "Unicorn", price: 9_99 };
const TOO_MANY_UNICORNS: u32 = 10_000;

impl Product {
    pub(super) fn times(self, quantity: u32) -> Line {
        Line { product: self, quantity }
    }

    /// As a first-generation producer would write it.
    pub(super) fn price_as_float(self) -> Value {
        Money::new(self.price, Currency::USD).map(Money::amount).map_or(Value::Null, |price| json!(price))
    }
}

impl Line {
    /// As a request has it; every other price is a text.
    pub(super) fn body(&self) -> Value {
        let Product { id, name, .. } = self.product;
        let price = self.product.price_as_float();
        let price = if self.quantity.is_multiple_of(2) { json!(price.to_string()) } else { price };
        json!({"product_id": id, "product_name": name, "quantity": self.quantity, "price": price})
    }
}

/// So many orders on every path, under names of this run.
pub(super) fn plan(tag: &str, orders: usize) -> Vec<Planned> {
    let paths = ONCE.into_iter().chain(ROUND.into_iter().cycle()).take(orders).enumerate();
    let planned = paths.filter_map(|(number, path)| {
        let mut lines: Vec<_> = (0..=number % 3)
            .zip(PRODUCTS.iter().cycle().skip(number % PRODUCTS.len()))
            .zip(1_u32..)
            .map(|((_, product), quantity)| product.times(quantity))
            .collect();
        if path == Path::OutOfStock {
            lines.push(UNICORN.times(TOO_MANY_UNICORNS));
        }
        let order_id = EntityId::new(format!("{tag}-{number}")).ok()?;
        Some(Planned { number, order_id, path, lines })
    });
    planned.collect()
}

/// What must be in stock for all of it: enough for every order at once, some over, and one unicorn.
pub(super) fn needed(plan: &[Planned]) -> BTreeMap<&'static str, u32> {
    let mut needed: BTreeMap<_, _> = PRODUCTS.iter().map(|product| (product.id, 10)).collect();
    for line in plan.iter().flat_map(|order| &order.lines) {
        if let Some(quantity) = needed.get_mut(line.product.id) {
            *quantity += line.quantity;
        }
    }
    needed.insert(UNICORN.id, 1);
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_orders_take_every_path() {
        let plan = plan("t", 30);
        assert_eq!(plan.len(), 30);
        for path in ONCE.into_iter().chain(ROUND) {
            assert!(plan.iter().any(|order| order.path == path), "nothing is {}", path.words());
        }
    }

    #[test]
    fn the_poor_account_is_too_poor_for_every_order() {
        for order in plan("t", 5000).iter().filter(|order| order.path == Path::PoorAccount) {
            let total: i64 = order.lines.iter().map(|l| l.product.price * i64::from(l.quantity)).sum();
            assert!(total > 525, "{order:?}");
        }
    }
}
