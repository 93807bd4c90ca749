//! Analytics: the numbers that consumer-analytics shows are those that the log gives.
//!
//! They are computed another way here: not event by event, but from what every order and payment has become.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};
use common::ShopEvent;
use common::money::{Amount, Currency, Money};
use common::order::{OrderItem, OrderPlaced};
use common::payment::{PaymentOutcome, PaymentProcessed};
use jetkit::{EntityId, Recorded};
use serde::Deserialize;

use super::{Check, Ledger, orders};
use crate::demo::{Ending, Shop};

/// What consumer-analytics says, as far as the log gives it.
#[derive(Debug, Clone, Default)]
pub struct Analytics {
    pub(super) summary: Summary,
    pub(super) days: Vec<DayNumbers>,
    pub(super) methods: Vec<MethodNumbers>,
    pub(super) failures: Vec<Failure>,
    pub(super) products: Vec<ProductNumbers>,
    pub(super) customers: Vec<CustomerNumbers>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct Summary {
    pub(super) orders: OrderCounts,
    pub(super) money: Vec<MoneySummary>,
    customers: usize,
    products: usize,
    payments: PaymentCounts,
    time_to_payment: Durations,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct OrderCounts {
    pub(super) total: i64,
    placed: i64,
    confirmed: i64,
    shipped: i64,
    cancelled: i64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct MoneySummary {
    currency: Currency,
    orders: i64,
    ordered: Amount,
    average_order_value: Option<Amount>,
    paid: Amount,
    refunded: Amount,
    pub(super) revenue: Amount,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct PaymentCounts {
    total: i64,
    succeeded: i64,
    failed: i64,
    refunds: i64,
    voided: i64,
    success_rate: Option<Amount>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct Durations {
    count: i64,
    average_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct DayNumbers {
    day: NaiveDate,
    pub(super) orders: i64,
    cancelled: i64,
    money: Vec<MoneySummary>,
    payments: PaymentCounts,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct MethodNumbers {
    method: String,
    total: i64,
    pub(super) succeeded: i64,
    failed: i64,
    paid: Vec<CurrencyAmount>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Failure {
    reason: String,
    count: i64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct ProductNumbers {
    product_id: EntityId,
    orders: i64,
    units_ordered: i64,
    pub(super) units_sold: i64,
    revenue: Vec<CurrencyAmount>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct CustomerNumbers {
    customer_id: EntityId,
    orders: i64,
    cancelled: i64,
    ordered: Vec<CurrencyAmount>,
    paid: Vec<CurrencyAmount>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct CurrencyAmount {
    currency: Currency,
    amount: Amount,
}

impl Analytics {
    /// Asks consumer-analytics.
    pub(in crate::demo) async fn read(shop: &Shop) -> Result<Self> {
        #[derive(Deserialize)]
        struct Payments {
            methods: Vec<MethodNumbers>,
            failures: Vec<Failure>,
        }
        const SERVICE: &str = "consumer-analytics";
        let Payments { methods, failures } = shop.get(SERVICE, "/metrics/payments").await?;
        let analytics = Self {
            summary: shop.get(SERVICE, "/metrics/summary").await?,
            days: shop.list(SERVICE, "/metrics/days").await?,
            methods,
            failures,
            products: shop.list(SERVICE, "/metrics/products").await?,
            customers: shop.list(SERVICE, "/metrics/customers").await?,
        };
        Ok(analytics.sorted())
    }

    /// What the log gives.
    pub(super) fn of(ledger: &Ledger) -> Self {
        let placed = orders::placed_events(ledger);
        let payments = PaymentFate::all(ledger);
        let orders = Fate::all(ledger, &placed, &payments);
        let products = products(&orders);
        let customers = customers(&orders);
        let analytics = Self {
            summary: Summary {
                orders: order_counts(&orders),
                money: money(&orders, &payments, |_| true),
                customers: customers.len(),
                products: products.len(),
                payments: payment_counts(ledger, &payments, |_| true),
                time_to_payment: time_to_payment(&orders),
            },
            days: days(ledger, &orders, &payments),
            methods: methods(&payments),
            failures: failures(&payments),
            products,
            customers,
        };
        analytics.sorted()
    }

    fn sorted(mut self) -> Self {
        self.summary.money.sort_by_key(|money| money.currency);
        self.days.sort_by_key(|day| day.day);
        for day in &mut self.days {
            day.money.sort_by_key(|money| money.currency);
        }
        self.methods.sort_by(|a, b| a.method.cmp(&b.method));
        self.failures.sort_by(|a, b| a.reason.cmp(&b.reason));
        self.products.sort_by(|a, b| a.product_id.cmp(&b.product_id));
        self.customers.sort_by(|a, b| a.customer_id.cmp(&b.customer_id));
        self
    }
}

pub(super) fn check(ledger: &Ledger) -> Check {
    let mut check = Check::new("analytics");
    let (by_log, said) = (Analytics::of(ledger), &ledger.analytics);
    check.holds(by_log.summary == said.summary, || {
        format!("the summary: the log gives {:?}, consumer-analytics says {:?}", by_log.summary, said.summary)
    });
    compare(&mut check, "days", &by_log.days, &said.days);
    compare(&mut check, "payment methods", &by_log.methods, &said.methods);
    compare(&mut check, "payment failures", &by_log.failures, &said.failures);
    compare(&mut check, "products", &by_log.products, &said.products);
    compare(&mut check, "customers", &by_log.customers, &said.customers);
    let revenue = by_log.summary.money.iter().map(|money| format!("{} {}", money.revenue, money.currency));
    check.seen = format!(
        "{} orders, {} products, {} customers, revenue {}",
        by_log.summary.orders.total,
        by_log.products.len(),
        by_log.customers.len(),
        revenue.collect::<Vec<_>>().join(" and ")
    );
    check
}

fn compare<T: PartialEq + std::fmt::Debug>(check: &mut Check, what: &str, by_log: &[T], said: &[T]) {
    for row in by_log.iter().filter(|row| !said.contains(row)) {
        check.wrong.push(format!("{what}: consumer-analytics does not say {row:?}"));
    }
    for row in said.iter().filter(|row| !by_log.contains(row)) {
        check.wrong.push(format!("{what}: consumer-analytics says {row:?}"));
    }
    check.holds(by_log.len() == said.len(), || {
        format!("{what}: {} by the log, {} said", by_log.len(), said.len())
    });
}

/// What a payment has become.
struct PaymentFate {
    processed: Recorded<PaymentProcessed>,
    refunded_at: Option<DateTime<Utc>>,
}

impl PaymentFate {
    fn all(ledger: &Ledger) -> Vec<Self> {
        let refunded: HashMap<_, _> = ledger
            .events()
            .filter_map(|event| match &event.event {
                ShopEvent::PaymentRefunded(e) => Some((&e.payment_id, event.meta.time)),
                _ => None,
            })
            .collect();
        let processed = ledger.events().filter_map(|event| match &event.event {
            ShopEvent::PaymentProcessed(e) => Some(Self {
                processed: event.clone().map(|_| e.clone()),
                refunded_at: refunded.get(&e.payment_id).copied(),
            }),
            _ => None,
        });
        processed.collect()
    }

    fn succeeded(&self) -> bool {
        self.processed.status == PaymentOutcome::Success
    }

    /// What was kept of it.
    fn kept(&self) -> Option<Money> {
        (self.succeeded() && self.refunded_at.is_none()).then_some(self.processed.amount)
    }
}

/// What an order has become.
struct Fate<'a> {
    placed: &'a Recorded<OrderPlaced>,
    ending: Option<Ending>,
    payments: Vec<&'a PaymentFate>,
}

impl<'a> Fate<'a> {
    fn all(ledger: &Ledger, placed: &'a [Recorded<OrderPlaced>], payments: &'a [PaymentFate]) -> Vec<Self> {
        let mut of_order: HashMap<&EntityId, Vec<&PaymentFate>> = HashMap::new();
        for payment in payments {
            of_order.entry(&payment.processed.order_id).or_default().push(payment);
        }
        let mut stories = orders::stories(ledger, placed);
        let fate = |placed: &'a Recorded<OrderPlaced>| Self {
            placed,
            ending: stories.remove(&placed.order_id).and_then(|story| story.ending),
            payments: of_order.remove(&placed.order_id).unwrap_or_default(),
        };
        placed.iter().map(fate).collect()
    }

    fn is_sold(&self) -> bool {
        self.payments.iter().any(|payment| payment.kept().is_some())
    }

    fn is_cancelled(&self) -> bool {
        matches!(self.ending, Some(Ending::Cancelled(_)))
    }
}

/// Amounts added up per currency, the currencies in order. Those that come to nothing are left out.
fn sums(amounts: impl IntoIterator<Item = Money>) -> Vec<CurrencyAmount> {
    let mut sums: BTreeMap<Currency, i64> = BTreeMap::new();
    for amount in amounts {
        *sums.entry(amount.currency()).or_default() += amount.minor();
    }
    let sums = sums.into_iter().filter(|(_, minor)| *minor != 0);
    sums.map(|(currency, minor)| CurrencyAmount { currency, amount: exact(minor, currency) }).collect()
}

/// No sum here is beyond the largest amount of money.
fn exact(minor: i64, currency: Currency) -> Amount {
    Money::new(minor, currency).unwrap_or(Money::zero(currency)).amount()
}

fn sum_in(currency: Currency, amounts: impl IntoIterator<Item = Money>) -> i64 {
    amounts.into_iter().filter(|amount| amount.currency() == currency).map(Money::minor).sum()
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

/// `n / d`, to the nearest whole number, and to the even one of two as near. Neither is negative.
fn divided(n: i64, d: i64) -> i64 {
    let (floor, rest) = (n / d, n % d);
    let up = rest * 2 > d || (rest * 2 == d && floor % 2 == 1);
    floor + i64::from(up)
}

fn order_counts(orders: &[Fate<'_>]) -> OrderCounts {
    let of = |wanted: fn(&Fate<'_>) -> bool| count(orders.iter().filter(|order| wanted(order)).count());
    OrderCounts {
        total: count(orders.len()),
        placed: of(|order| order.ending.is_none()),
        confirmed: of(|order| order.ending == Some(Ending::Confirmed)),
        shipped: of(|order| order.ending == Some(Ending::Shipped)),
        cancelled: of(|order| matches!(order.ending, Some(Ending::Cancelled(_)))),
    }
}

/// What happened on each day on which anything did.
fn days(ledger: &Ledger, orders: &[Fate<'_>], payments: &[PaymentFate]) -> Vec<DayNumbers> {
    let time_of = |event: &Recorded<ShopEvent>| match &event.event {
        ShopEvent::OrderPlaced(_)
        | ShopEvent::OrderCancelled(_)
        | ShopEvent::PaymentProcessed(_)
        | ShopEvent::PaymentRefunded(_)
        | ShopEvent::PaymentVoided(_) => Some(event.meta.time),
        _ => None,
    };
    let days: BTreeSet<NaiveDate> = ledger.events().filter_map(time_of).map(|at| at.date_naive()).collect();
    let numbers = |day: NaiveDate| {
        let on_it = |at: DateTime<Utc>| at.date_naive() == day;
        let cancelled = |event: &&Recorded<ShopEvent>| {
            matches!(event.event, ShopEvent::OrderCancelled(_)) && on_it(event.meta.time)
        };
        DayNumbers {
            day,
            orders: count(orders.iter().filter(|order| on_it(order.placed.meta.time)).count()),
            cancelled: count(ledger.events().filter(cancelled).count()),
            money: money(orders, payments, on_it),
            payments: payment_counts(ledger, payments, on_it),
        }
    };
    days.into_iter().map(numbers).collect()
}

/// The money that moved at the times that count.
fn money(
    orders: &[Fate<'_>],
    payments: &[PaymentFate],
    counts: impl Fn(DateTime<Utc>) -> bool,
) -> Vec<MoneySummary> {
    let placed = || orders.iter().filter(|order| counts(order.placed.meta.time));
    let totals = || placed().map(|order| order.placed.total);
    let taken = || payments.iter().filter(|payment| payment.succeeded());
    let paid = || {
        taken().filter(|payment| counts(payment.processed.meta.time)).map(|payment| payment.processed.amount)
    };
    let refunded = || {
        taken()
            .filter(|payment| payment.refunded_at.is_some_and(&counts))
            .map(|payment| payment.processed.amount)
    };
    let currencies: BTreeSet<Currency> =
        totals().chain(paid()).chain(refunded()).map(Money::currency).collect();
    let summary = |currency| {
        let orders = count(totals().filter(|total| total.currency() == currency).count());
        let ordered = sum_in(currency, totals());
        let (paid, refunded) = (sum_in(currency, paid()), sum_in(currency, refunded()));
        MoneySummary {
            currency,
            orders,
            ordered: exact(ordered, currency),
            average_order_value: (orders > 0).then(|| exact(divided(ordered, orders), currency)),
            paid: exact(paid, currency),
            refunded: exact(refunded, currency),
            revenue: exact(paid - refunded, currency),
        }
    };
    currencies.into_iter().map(summary).collect()
}

fn payment_counts(
    ledger: &Ledger,
    payments: &[PaymentFate],
    counts: impl Fn(DateTime<Utc>) -> bool,
) -> PaymentCounts {
    let tried = || payments.iter().filter(|payment| counts(payment.processed.meta.time));
    let total = count(tried().count());
    let succeeded = count(tried().filter(|payment| payment.succeeded()).count());
    let events = |wanted: fn(&ShopEvent) -> bool| {
        count(ledger.events().filter(|e| wanted(&e.event) && counts(e.meta.time)).count())
    };
    let rate = || {
        let rate = divided(succeeded * 10_000, total);
        format!("{}.{:04}", rate / 10_000, rate % 10_000).parse().ok()
    };
    PaymentCounts {
        total,
        succeeded,
        failed: total - succeeded,
        refunds: events(|event| matches!(event, ShopEvent::PaymentRefunded(_))),
        voided: events(|event| matches!(event, ShopEvent::PaymentVoided(_))),
        success_rate: if total > 0 { rate() } else { None },
    }
}

fn time_to_payment(orders: &[Fate<'_>]) -> Durations {
    let durations: Vec<i64> = orders
        .iter()
        .filter_map(|order| {
            let first = order.payments.iter().find(|payment| payment.succeeded())?;
            Some((first.processed.stored_at - order.placed.stored_at).num_milliseconds().max(0))
        })
        .collect();
    let (sum, count) = (durations.iter().sum(), count(durations.len()));
    Durations { count, average_ms: (count > 0).then(|| divided(sum, count)) }
}

fn methods(payments: &[PaymentFate]) -> Vec<MethodNumbers> {
    let names: BTreeSet<&str> = payments.iter().map(|p| p.processed.payment_method.label()).collect();
    let method = |name: &str| {
        let with = || payments.iter().filter(|p| p.processed.payment_method.label() == name);
        let taken = || with().filter(|payment| payment.succeeded());
        let (total, succeeded) = (count(with().count()), count(taken().count()));
        let paid = sums(taken().map(|payment| payment.processed.amount));
        MethodNumbers { method: name.to_owned(), total, succeeded, failed: total - succeeded, paid }
    };
    names.into_iter().map(method).collect()
}

fn failures(payments: &[PaymentFate]) -> Vec<Failure> {
    let mut failures: BTreeMap<&str, i64> = BTreeMap::new();
    for payment in payments.iter().filter(|payment| !payment.succeeded()) {
        *failures.entry(payment.processed.failure.as_deref().unwrap_or("unknown")).or_default() += 1;
    }
    failures.into_iter().map(|(reason, count)| Failure { reason: reason.to_owned(), count }).collect()
}

fn products(orders: &[Fate<'_>]) -> Vec<ProductNumbers> {
    let lines = || orders.iter().flat_map(|order| order.placed.items.iter().map(move |item| (order, item)));
    let ids: BTreeSet<&EntityId> = lines().map(|(_, item)| &item.product_id).collect();
    let product = |id: &EntityId| {
        let ordered = || lines().filter(|(_, item)| item.product_id == *id);
        let sold = || ordered().filter(|(order, _)| order.is_sold());
        let of_order: BTreeSet<_> = ordered().map(|(order, _)| &order.placed.order_id).collect();
        ProductNumbers {
            product_id: id.clone(),
            orders: count(of_order.len()),
            units_ordered: ordered().map(|(_, item)| i64::from(item.quantity)).sum(),
            units_sold: sold().map(|(_, item)| i64::from(item.quantity)).sum(),
            revenue: sums(
                sold().filter_map(|(_, item): (_, &OrderItem)| item.unit_price.times(item.quantity).ok()),
            ),
        }
    };
    ids.into_iter().map(product).collect()
}

fn customers(orders: &[Fate<'_>]) -> Vec<CustomerNumbers> {
    let ids: BTreeSet<&EntityId> = orders.iter().map(|order| &order.placed.customer_id).collect();
    let customer = |id: &EntityId| {
        let own = || orders.iter().filter(|order| order.placed.customer_id == *id);
        CustomerNumbers {
            customer_id: id.clone(),
            orders: count(own().count()),
            cancelled: count(own().filter(|order| order.is_cancelled()).count()),
            ordered: sums(own().map(|order| order.placed.total)),
            paid: sums(own().flat_map(|order| &order.payments).filter_map(|payment| payment.kept())),
        }
    };
    ids.into_iter().map(customer).collect()
}
