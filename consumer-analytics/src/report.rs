//! The numbers as readers get them.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use common::money::Currency;
use jetkit::EntityId;
use jetkit::http::{Page, PageQuery};
use jetkit::projection::{Conditions, List, Order, Tables, ToSql, Word, rusqlite};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::durations::{DurationReport, Durations};
use crate::shop_metrics::OrderStatus;
use crate::sums::{CurrencyAmount, Decimal};

/// The shop on one page.
#[derive(Debug, Serialize, ToSchema)]
pub struct Summary {
    /// The log position up to which everything is counted.
    pub sequence: u64,
    /// What is counted.
    #[serde(flatten)]
    pub totals: Totals,
}

/// The shop's totals.
#[derive(Debug, Serialize, ToSchema)]
pub struct Totals {
    /// How many orders there are, by where they stand.
    pub orders: OrderCounts,
    /// The money, and the payments.
    #[serde(flatten)]
    pub sales: Sales,
    /// How many customers ordered.
    pub customers: i64,
    /// How many products were ordered.
    pub products: i64,
    /// From an order to its first successful payment.
    pub time_to_payment: DurationReport,
}

/// What moved, ever or on one day. Money is per currency; `currency`, `revenue` and `average_order_value` are set where
/// everything was in one.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Sales {
    /// The currency of the following, if there is only one.
    pub currency: Option<Currency>,
    /// What was paid less what was given back.
    pub revenue: Option<Decimal>,
    /// The value of the orders placed divided by their number.
    pub average_order_value: Option<Decimal>,
    /// The same and more, per currency.
    pub money: Vec<MoneySummary>,
    /// How payments went.
    pub payments: PaymentCounts,
}

/// What happened on one day, in UTC.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DayReport {
    /// Which day.
    pub day: NaiveDate,
    /// How many orders were placed.
    pub orders: i64,
    /// How many orders were cancelled, whenever they were placed.
    pub cancelled: i64,
    /// The money, and the payments. Money that is given back counts on the day of that.
    #[serde(flatten)]
    pub sales: Sales,
}

/// How many orders there are.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
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
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
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
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
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
#[derive(Debug, Serialize, ToSchema)]
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
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
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
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailureReport {
    /// The code.
    pub reason: String,
    /// How many.
    pub count: i64,
}

/// One product.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
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
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
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
    pub last_order_at: DateTime<Utc>,
}

/// Rankings of products, the highest first. What is ranked moves, so a ranking has pages for people and no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProductRanking {
    /// `units_ordered`
    UnitsOrdered,
    /// `units_sold`
    UnitsSold,
    /// `orders`
    Orders,
}

/// Rankings of customers, the highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CustomerRanking {
    /// `orders`
    Orders,
}

/// The order of products: by a ranking, or by id.
fn order_of_products(ranking: Option<ProductRanking>) -> Order<'static> {
    match ranking {
        None => Order::Ascending("product_id"),
        Some(ProductRanking::UnitsOrdered) => Order::Ranking("units_ordered DESC, product_id"),
        Some(ProductRanking::UnitsSold) => Order::Ranking("units_sold DESC, product_id"),
        Some(ProductRanking::Orders) => Order::Ranking("orders DESC, product_id"),
    }
}

/// The same of customers.
fn order_of_customers(ranking: Option<CustomerRanking>) -> Order<'static> {
    match ranking {
        None => Order::Ascending("customer_id"),
        Some(CustomerRanking::Orders) => Order::Ranking("orders DESC, customer_id"),
    }
}

/// Every day that there is, as [`Sales::read`] wants it.
const EVER: (&str, &str) = ("0000-01-01", "9999-12-31");

impl Totals {
    /// Everything that was counted.
    pub fn read(tables: &Tables<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            orders: OrderCounts::read(tables)?,
            sales: Sales::read(tables, EVER)?,
            customers: number(tables, "SELECT count(*) FROM customers")?,
            products: number(tables, "SELECT count(*) FROM products")?,
            time_to_payment: time_to_payment(tables)?,
        })
    }
}

impl OrderCounts {
    fn read(tables: &Tables<'_>) -> rusqlite::Result<Self> {
        let (mut placed, mut confirmed, mut shipped, mut cancelled) = (0, 0, 0, 0);
        let statuses = tables.all("SELECT status, orders FROM statuses", [], |row| {
            Ok((row.get::<_, Word<_>>("status")?.0, row.get("orders")?))
        })?;
        for (status, orders) in statuses {
            match status {
                OrderStatus::Placed => placed = orders,
                OrderStatus::Confirmed => confirmed = orders,
                OrderStatus::Shipped => shipped = orders,
                OrderStatus::Cancelled => cancelled = orders,
            }
        }
        Ok(Self { total: placed + confirmed + shipped + cancelled, placed, confirmed, shipped, cancelled })
    }
}

impl Sales {
    /// Of the days from the first to the last.
    fn read(tables: &Tables<'_>, days: (&str, &str)) -> rusqlite::Result<Self> {
        let money = MoneySummary::read(tables, days)?;
        let single = match money.as_slice() {
            [single] => Some(single),
            _ => None,
        };
        Ok(Self {
            currency: single.map(|single| single.currency),
            revenue: single.map(|single| single.revenue),
            average_order_value: single.and_then(|single| single.average_order_value),
            payments: PaymentCounts::read(tables, days)?,
            money,
        })
    }
}

impl MoneySummary {
    /// Added up here: what is within bounds on every day may be beyond them over all.
    fn read(tables: &Tables<'_>, days: (&str, &str)) -> rusqlite::Result<Vec<Self>> {
        #[derive(Default)]
        struct Sum {
            orders: i64,
            ordered: i128,
            paid: i128,
            refunded: i128,
        }
        let mut sums: BTreeMap<Currency, Sum> = BTreeMap::new();
        let each =
            "SELECT currency, orders, ordered, paid, refunded FROM day_sums WHERE day BETWEEN ?1 AND ?2";
        tables.all(each, days, |row| {
            let sum = sums.entry(row.get::<_, Word<_>>("currency")?.0).or_default();
            sum.orders += row.get::<_, i64>("orders")?;
            sum.ordered += i128::from(row.get::<_, i64>("ordered")?);
            sum.paid += i128::from(row.get::<_, i64>("paid")?);
            sum.refunded += i128::from(row.get::<_, i64>("refunded")?);
            Ok(())
        })?;
        let summary = |(currency, Sum { orders, ordered, paid, refunded })| {
            let ordered = Decimal::minor(ordered, currency);
            Self {
                currency,
                orders,
                ordered,
                average_order_value: ordered.divided_by(orders),
                paid: Decimal::minor(paid, currency),
                refunded: Decimal::minor(refunded, currency),
                revenue: Decimal::minor(paid - refunded, currency),
            }
        };
        Ok(sums.into_iter().map(summary).collect())
    }
}

impl PaymentCounts {
    fn read(tables: &Tables<'_>, days: (&str, &str)) -> rusqlite::Result<Self> {
        let sums = tables.first(
            "SELECT coalesce(sum(succeeded), 0), coalesce(sum(failed), 0), coalesce(sum(refunds), 0),
                    coalesce(sum(voided), 0)
             FROM days WHERE day BETWEEN ?1 AND ?2",
            days,
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )?;
        let (succeeded, failed, refunds, voided) = sums.unwrap_or_default();
        let total = succeeded + failed;
        Ok(Self { total, succeeded, failed, refunds, voided, success_rate: Decimal::share(succeeded, total) })
    }
}

impl DayReport {
    /// The days on which something happened, the latest first.
    pub fn list(tables: &Tables<'_>, page: &PageQuery) -> rusqlite::Result<Page<Self>> {
        let list = List {
            columns: "day, orders, cancelled",
            from: "days",
            matching: Conditions::default(),
            order: Order::Descending("day"),
        };
        tables.page(list, page, |row| {
            let day: String = row.get("day")?;
            Ok(Self {
                day: row.get::<_, Word<_>>("day")?.0,
                orders: row.get("orders")?,
                cancelled: row.get("cancelled")?,
                sales: Sales::read(tables, (&day, &day))?,
            })
        })
    }
}

impl PaymentReport {
    /// How payments went, by method, and why they failed.
    pub fn read(tables: &Tables<'_>) -> rusqlite::Result<Self> {
        let counts = PaymentCounts::read(tables, EVER)?;
        let by_use = "SELECT method, succeeded, failed FROM methods ORDER BY succeeded + failed DESC, method";
        let methods = tables.all(by_use, [], |row| {
            let (method, succeeded, failed) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let total = succeeded + failed;
            Ok(MethodReport {
                total,
                succeeded,
                failed,
                share: Decimal::share(total, counts.total),
                success_rate: Decimal::share(succeeded, total),
                paid: amounts(
                    tables,
                    "SELECT currency, paid FROM method_sums WHERE method = ?1 ORDER BY currency",
                    &method,
                )?,
                method,
            })
        })?;
        let failures = tables.all(
            "SELECT reason, payments FROM failures ORDER BY payments DESC, reason",
            [],
            |row| Ok(FailureReport { reason: row.get(0)?, count: row.get(1)? }),
        )?;
        Ok(Self { counts, methods, failures, time_to_payment: time_to_payment(tables)? })
    }
}

impl ProductReport {
    /// Returns the products that were ordered, by id or by a ranking.
    pub fn list(
        tables: &Tables<'_>,
        ranking: Option<ProductRanking>,
        page: &PageQuery,
    ) -> rusqlite::Result<Page<Self>> {
        let list = List {
            columns: "product_id, name, orders, units_ordered, units_sold",
            from: "products",
            matching: Conditions::default(),
            order: order_of_products(ranking),
        };
        let revenue = "SELECT currency, revenue FROM product_sums WHERE product_id = ?1 ORDER BY currency";
        tables.page(list, page, |row| {
            let product_id: EntityId = row.get("product_id")?;
            Ok(Self {
                name: row.get("name")?,
                orders: row.get("orders")?,
                units_ordered: row.get("units_ordered")?,
                units_sold: row.get("units_sold")?,
                revenue: amounts(tables, revenue, &product_id)?,
                product_id,
            })
        })
    }
}

impl CustomerReport {
    /// Returns the customers who ordered, by id or by a ranking.
    pub fn list(
        tables: &Tables<'_>,
        ranking: Option<CustomerRanking>,
        page: &PageQuery,
    ) -> rusqlite::Result<Page<Self>> {
        let list = List {
            columns: "customer_id, orders, cancelled, last_order_at",
            from: "customers",
            matching: Conditions::default(),
            order: order_of_customers(ranking),
        };
        let ordered = "SELECT currency, ordered FROM customer_sums WHERE customer_id = ?1 ORDER BY currency";
        let paid = "SELECT currency, paid FROM customer_sums WHERE customer_id = ?1 ORDER BY currency";
        tables.page(list, page, |row| {
            let customer_id: EntityId = row.get("customer_id")?;
            Ok(Self {
                orders: row.get("orders")?,
                cancelled: row.get("cancelled")?,
                ordered: amounts(tables, ordered, &customer_id)?,
                paid: amounts(tables, paid, &customer_id)?,
                last_order_at: row.get::<_, Word<_>>("last_order_at")?.0,
                customer_id,
            })
        })
    }
}

/// The sums that are not nothing, by currency.
fn amounts(tables: &Tables<'_>, sums: &str, of: impl ToSql) -> rusqlite::Result<Vec<CurrencyAmount>> {
    let sums = tables.all(sums, [of], |row| Ok((row.get::<_, Word<_>>(0)?.0, row.get::<_, i64>(1)?)))?;
    let not_nothing = sums.into_iter().filter(|(_, minor)| *minor != 0);
    let amount = |(currency, minor)| {
        let amount = Decimal::minor(i128::from(minor), currency);
        CurrencyAmount { currency, amount }
    };
    Ok(not_nothing.map(amount).collect())
}

fn number(tables: &Tables<'_>, sql: &str) -> rusqlite::Result<i64> {
    Ok(tables.first(sql, [], |row| row.get(0))?.unwrap_or_default())
}

fn time_to_payment(tables: &Tables<'_>) -> rusqlite::Result<DurationReport> {
    let mut durations = Durations::default();
    tables.all("SELECT three_digits, orders, sum_ms FROM waits", [], |row| {
        durations.add(row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(())
    })?;
    Ok(durations.report())
}
