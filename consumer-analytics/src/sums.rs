//! Exact arithmetic for reports: sums of money, averages and shares as decimals. No floats.

use common::money::Currency;
use serde::{Serialize, Serializer, ser};
use serde_json::value::RawValue;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A sum in one currency, as a report shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct CurrencyAmount {
    /// Of which currency.
    pub currency: Currency,
    /// How much.
    pub amount: Decimal,
}

/// An exact decimal of any size, a JSON number in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    units: i128,
    decimals: u32,
}

impl PartialSchema for Decimal {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Number).description(Some("An exact decimal")).into()
    }
}

impl ToSchema for Decimal {}

impl Decimal {
    /// So many minor units of a currency.
    pub fn minor(minor: i128, currency: Currency) -> Self {
        Self { units: minor, decimals: currency.exponent() }
    }

    /// This, divided by a count, rounded half to even at the same number of decimals; [`None`] for none.
    pub fn divided_by(self, count: i64) -> Option<Self> {
        (count > 0).then(|| Self { units: half_even(self.units, count.into()), decimals: self.decimals })
    }

    /// `part` of `whole`, from 0 to 1, to four decimals, rounded half to even; [`None`] for a part of nothing.
    pub fn share(part: i64, whole: i64) -> Option<Self> {
        (whole > 0).then(|| Self { units: half_even(i128::from(part) * 10_000, whole.into()), decimals: 4 })
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sign, units) = (if self.units < 0 { "-" } else { "" }, self.units.unsigned_abs());
        if self.decimals == 0 {
            return write!(f, "{sign}{units}");
        }
        let one = 10_u128.pow(self.decimals);
        write!(f, "{sign}{}.{:0width$}", units / one, units % one, width = self.decimals as usize)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

/// `n / d`, rounded to the nearest whole number, and to the even one of two as near.
pub fn half_even(n: i128, d: i128) -> i128 {
    let (floor, rest) = (n.div_euclid(d), n.rem_euclid(d));
    match (rest * 2).cmp(&d) {
        std::cmp::Ordering::Less => floor,
        std::cmp::Ordering::Greater => floor + 1,
        std::cmp::Ordering::Equal => floor + floor.rem_euclid(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_round_half_to_even() {
        for (n, d, rounded) in
            [(5, 2, 2), (7, 2, 4), (-5, 2, -2), (-7, 2, -4), (10, 3, 3), (11, 3, 4), (-11, 3, -4)]
        {
            assert_eq!(half_even(n, d), rounded, "{n} / {d}");
        }
    }

    #[test]
    fn amounts_are_written_exactly() {
        let text = |minor, currency| Decimal::minor(minor, currency).to_string();
        assert_eq!(text(123_456, Currency::EUR), "1234.56");
        assert_eq!(text(-5, Currency::EUR), "-0.05");
        assert_eq!(text(7, Currency::JPY), "7");
        assert_eq!(text(i128::from(i64::MAX) * 1000, Currency::EUR), "92233720368547758070.00");
        assert_eq!(serde_json::to_string(&Decimal::minor(1, Currency::EUR)).unwrap(), "0.01");
    }

    #[test]
    fn a_share_of_nothing_is_unknown_and_not_zero() {
        assert_eq!(Decimal::share(0, 0), None);
        assert_eq!(Decimal::share(2, 3).unwrap().to_string(), "0.6667");
        assert_eq!(Decimal::share(3, 3).unwrap().to_string(), "1.0000");
    }
}
