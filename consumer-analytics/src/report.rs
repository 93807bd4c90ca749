//! The numbers as readers get them.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use common::money::Currency;
use eventkit::EntityId;
use serde::{Deserialize, Serialize};

use crate::durations::DurationReport;
use crate::shop_metrics::{OrderStatus, ShopMetrics};
use crate::sums::{CurrencyAmount, Decimal};

/// The shop on one page. Money is per currency; `revenue`, `average_order_value` and `currency` are set where everything
/// was in one.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The log position of the last event that is counted.
    pub sequence: u64,
    /// How many orders there are, by where they stand.
    pub orders: OrderCounts,
    /// The currency of the following, if there is only one.
    pub currency: Option<Currency>,
    /// What was paid less what was given back.
    pub revenue: Option<Decimal>,
    /// The value of the orders placed divided by their number.
    pub average_order_value: Option<Decimal>,
    /// The same and more, per currency.
    pub money: Vec<MoneySummary>,
    /// How many customers ordered.
    pub customers: usize,
    /// How many products were ordered.
    pub products: usize,
    /// How payments went.
    pub payments: PaymentCounts,
    /// From an order to its first successful payment.
    pub time_to_payment: DurationReport,
}

/// How many orders there are.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct OrderCounts {
    /// All.
    pub total: i64,
    /// Waiting for stock or payment.
    pub placed: i64,
    /// Reserved and paid.
    pub confirmed: i64,
    /// On their way.
    pub shipped: i64,
    /// Off.
    pub cancelled: i64,
}

/// The money in one currency.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct MoneySummary {
    /// Which.
    pub currency: Currency,
    /// How many orders are in it.
    pub orders: i64,
    /// Their value.
    pub ordered: Decimal,
    /// Their value divided by their number, rounded half to even.
    pub average_order_value: Option<Decimal>,
    /// What was paid.
    pub paid: Decimal,
    /// What was given back.
    pub refunded: Decimal,
    /// What was paid less what was given back.
    pub revenue: Decimal,
}

/// How payments went.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct PaymentCounts {
    /// Tried.
    pub total: i64,
    /// Took the money.
    pub succeeded: i64,
    /// Took nothing.
    pub failed: i64,
    /// Given back.
    pub refunds: i64,
    /// Never tried, because the order was cancelled first.
    pub voided: i64,
    /// Succeeded of total, 0 to 1, to four decimals.
    pub success_rate: Option<Decimal>,
}

/// Payments by method, and why they failed.
#[derive(Debug, Serialize)]
pub struct PaymentReport {
    /// How they went.
    #[serde(flatten)]
    pub counts: PaymentCounts,
    /// By method, the most used first.
    pub methods: Vec<MethodReport>,
    /// Why they failed, the most frequent first.
    pub failures: Vec<FailureReport>,
    /// From an order to its first successful payment.
    pub time_to_payment: DurationReport,
}

/// The payments by one method.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct MethodReport {
    /// `account`, `card`, or another producer's word.
    pub method: String,
    /// Tried.
    pub total: i64,
    /// Took the money.
    pub succeeded: i64,
    /// Took nothing.
    pub failed: i64,
    /// Of all payments, 0 to 1, to four decimals.
    pub share: Option<Decimal>,
    /// Succeeded of total.
    pub success_rate: Option<Decimal>,
    /// What was paid by it.
    pub paid: Vec<CurrencyAmount>,
}

/// The payments that failed for one reason.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FailureReport {
    /// The code.
    pub reason: String,
    /// How many.
    pub count: i64,
}

/// One product.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ProductReport {
    /// Which.
    pub product_id: EntityId,
    /// Its name in the latest order.
    pub name: String,
    /// How many orders it is in.
    pub orders: i64,
    /// How many were ordered, whatever became of the orders.
    pub units_ordered: i64,
    /// How many were paid for and not given back.
    pub units_sold: i64,
    /// What they brought.
    pub revenue: Vec<CurrencyAmount>,
}

/// One customer.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct CustomerReport {
    /// Who.
    pub customer_id: EntityId,
    /// How many orders.
    pub orders: i64,
    /// How many of them are off.
    pub cancelled: i64,
    /// The value of the orders.
    pub ordered: Vec<CurrencyAmount>,
    /// What they paid less what they got back.
    pub paid: Vec<CurrencyAmount>,
    /// When they last ordered.
    pub last_order_at: Option<DateTime<Utc>>,
}

/// What products come in order of, the highest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProductOrder {
    /// `units_ordered`
    #[default]
    UnitsOrdered,
    /// `units_sold`
    UnitsSold,
    /// `orders`
    Orders,
}

impl ShopMetrics {
    /// The shop on one page, as of `sequence`.
    pub fn summary(&self, sequence: u64) -> Summary {
        let money = self.money();
        let single = match money.as_slice() {
            [single] => Some(single),
            _ => None,
        };
        Summary {
            sequence,
            orders: self.order_counts(),
            currency: single.map(|single| single.currency),
            revenue: single.map(|single| single.revenue),
            average_order_value: single.and_then(|single| single.average_order_value),
            customers: self.totals.customers.len(),
            products: self.totals.products.len(),
            payments: self.payment_counts(),
            time_to_payment: self.totals.time_to_payment.report(),
            money,
        }
    }

    /// How payments went, by method, and why they failed.
    pub fn payment_report(&self) -> PaymentReport {
        let counts = self.payment_counts();
        let mut methods: Vec<_> = self
            .payments
            .methods
            .iter()
            .map(|(name, method)| {
                let total = method.succeeded + method.failed;
                MethodReport {
                    method: name.clone(),
                    total,
                    succeeded: method.succeeded,
                    failed: method.failed,
                    share: Decimal::share(total, counts.total),
                    success_rate: Decimal::share(method.succeeded, total),
                    paid: method.paid.amounts(),
                }
            })
            .collect();
        methods.sort_by_key(|method| Reverse(method.total));
        let failures = self.payments.failures.iter();
        let mut failures: Vec<_> =
            failures.map(|(reason, count)| FailureReport { reason: reason.clone(), count: *count }).collect();
        failures.sort_by_key(|failure| Reverse(failure.count));
        PaymentReport { counts, methods, failures, time_to_payment: self.totals.time_to_payment.report() }
    }

    /// Every product.
    pub fn products(&self, order: ProductOrder) -> Vec<ProductReport> {
        let mut products: Vec<_> = self
            .totals
            .products
            .iter()
            .map(|(product_id, product)| ProductReport {
                product_id: product_id.clone(),
                name: product.name.clone(),
                orders: product.orders,
                units_ordered: product.units_ordered,
                units_sold: product.units_sold,
                revenue: product.revenue.amounts(),
            })
            .collect();
        let rank = |product: &ProductReport| match order {
            ProductOrder::UnitsOrdered => product.units_ordered,
            ProductOrder::UnitsSold => product.units_sold,
            ProductOrder::Orders => product.orders,
        };
        products.sort_by(|a, b| (rank(b), &a.product_id).cmp(&(rank(a), &b.product_id)));
        products
    }

    /// Every customer who ordered, the one with the most orders first.
    pub fn customers(&self) -> Vec<CustomerReport> {
        let mut customers: Vec<_> = self
            .totals
            .customers
            .iter()
            .map(|(customer_id, customer)| CustomerReport {
                customer_id: customer_id.clone(),
                orders: customer.orders,
                cancelled: customer.cancelled,
                ordered: customer.ordered.amounts(),
                paid: customer.paid.amounts(),
                last_order_at: customer.last_order_at,
            })
            .collect();
        customers.sort_by(|a, b| (b.orders, &a.customer_id).cmp(&(a.orders, &b.customer_id)));
        customers
    }

    fn order_counts(&self) -> OrderCounts {
        let count = |status| self.totals.by_status.get(&status).copied().unwrap_or(0);
        OrderCounts {
            total: self.totals.orders,
            placed: count(OrderStatus::Placed),
            confirmed: count(OrderStatus::Confirmed),
            shipped: count(OrderStatus::Shipped),
            cancelled: count(OrderStatus::Cancelled),
        }
    }

    fn payment_counts(&self) -> PaymentCounts {
        let payments = &self.payments;
        let total = payments.succeeded + payments.failed;
        PaymentCounts {
            total,
            succeeded: payments.succeeded,
            failed: payments.failed,
            refunds: payments.refunds,
            voided: payments.voided,
            success_rate: Decimal::share(payments.succeeded, total),
        }
    }

    fn money(&self) -> Vec<MoneySummary> {
        let (totals, payments) = (&self.totals, &self.payments);
        let mut revenue = payments.paid.clone();
        revenue.add_all(&payments.refunded, -1);
        let mut currencies: Vec<Currency> = totals.ordered.currencies().chain(revenue.currencies()).collect();
        currencies.sort_unstable();
        currencies.dedup();
        let summary = |currency: Currency| {
            let orders = totals.orders_in.get(&currency).copied().unwrap_or(0);
            let ordered = totals.ordered.of(currency);
            MoneySummary {
                currency,
                orders,
                ordered,
                average_order_value: ordered.divided_by(orders),
                paid: payments.paid.of(currency),
                refunded: payments.refunded.of(currency),
                revenue: revenue.of(currency),
            }
        };
        currencies.into_iter().map(summary).collect()
    }
}
