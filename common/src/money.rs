//! Money: whole minor units of one currency in events, exact decimals at the edges, floats nowhere.
//!
//! [`Money`] is what events carry: `{"minor":1999,"currency":"EUR"}`. [`Amount`] is what an HTTP API takes and
//! gives: a JSON number or a decimal string, read digit by digit.

#[cfg(feature = "http")]
mod schema;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

/// A currency of ISO 4217, known by its code. Its exponent says how many decimals it has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: &'static str,
    exponent: u32,
}

/// The codes of ISO 4217 in use, by the number of their decimals. Funds, metals and test codes are left out.
const CODES: [(u32, &[&str]); 3] = [
    (
        0,
        &[
            "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF",
            "XOF", "XPF",
        ],
    ),
    (
        2,
        &[
            "AED", "AFN", "ALL", "AMD", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT", "BGN", "BMD",
            "BND", "BOB", "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD", "CDF", "CHF", "CNY", "COP", "CRC",
            "CUP", "CVE", "CZK", "DKK", "DOP", "DZD", "EGP", "ERN", "ETB", "EUR", "FJD", "FKP", "GBP", "GEL",
            "GHS", "GIP", "GMD", "GTQ", "GYD", "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "IRR", "JMD",
            "KES", "KGS", "KHR", "KPW", "KYD", "KZT", "LAK", "LBP", "LKR", "LRD", "LSL", "MAD", "MDL", "MGA",
            "MKD", "MMK", "MNT", "MOP", "MRU", "MUR", "MVR", "MWK", "MXN", "MYR", "MZN", "NAD", "NGN", "NIO",
            "NOK", "NPR", "NZD", "PAB", "PEN", "PGK", "PHP", "PKR", "PLN", "QAR", "RON", "RSD", "RUB", "SAR",
            "SBD", "SCR", "SDG", "SEK", "SGD", "SHP", "SLE", "SOS", "SRD", "SSP", "STN", "SVC", "SYP", "SZL",
            "THB", "TJS", "TMT", "TOP", "TRY", "TTD", "TWD", "TZS", "UAH", "USD", "UYU", "UZS", "VED", "VES",
            "WST", "XCD", "XCG", "YER", "ZAR", "ZMW", "ZWG",
        ],
    ),
    (3, &["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"]),
];

impl Currency {
    /// The euro.
    pub const EUR: Self = Self { code: "EUR", exponent: 2 };
    /// The US dollar.
    pub const USD: Self = Self { code: "USD", exponent: 2 };
    /// The Japanese yen, which has no decimals.
    pub const JPY: Self = Self { code: "JPY", exponent: 0 };
    /// What is meant where nobody says: by requests without a currency, and by first-generation events, which had
    /// none. Changing it changes what those old events mean.
    pub const DEFAULT: Self = Self::USD;

    /// The currency of that code, in capitals.
    pub fn new(code: &str) -> Result<Self, MoneyError> {
        CODES
            .iter()
            .find_map(|(exponent, codes)| {
                codes.iter().find(|known| **known == code).map(|code| Self { code, exponent: *exponent })
            })
            .ok_or_else(|| MoneyError::UnknownCurrency(code.chars().take(8).collect()))
    }

    /// The ISO 4217 code: `EUR`.
    pub fn code(self) -> &'static str {
        self.code
    }

    /// How many decimals an amount in it has.
    pub fn exponent(self) -> u32 {
        self.exponent
    }

    /// The most minor units that one [`Money`] holds.
    fn limit(self) -> i64 {
        Money::MAX_MAJOR * 10_i64.pow(self.exponent)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(code: &str) -> Result<Self, MoneyError> {
        Self::new(code)
    }
}

impl Default for Currency {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code)
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&Cow::<str>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// An amount of money: whole minor units (cents) of one currency, never more than [`Money::MAX_MAJOR`] major ones.
/// It may be negative or zero; where that is not allowed, the rules say so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "MoneyWire")]
pub struct Money {
    minor: i64,
    currency: Currency,
}

#[derive(Deserialize)]
struct MoneyWire {
    minor: i64,
    currency: Currency,
}

impl TryFrom<MoneyWire> for Money {
    type Error = MoneyError;

    fn try_from(wire: MoneyWire) -> Result<Self, MoneyError> {
        Self::new(wire.minor, wire.currency)
    }
}

impl Money {
    /// The largest amount, in major units (dollars), of either sign.
    pub const MAX_MAJOR: i64 = 1_000_000_000_000;

    /// An amount in minor units.
    pub fn new(minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        if minor.unsigned_abs() > currency.limit().unsigned_abs() {
            return Err(MoneyError::TooLarge);
        }
        Ok(Self { minor, currency })
    }

    /// Nothing, in that currency.
    pub fn zero(currency: Currency) -> Self {
        Self { minor: 0, currency }
    }

    /// The minor units: 1999 for 19.99 EUR.
    pub fn minor(self) -> i64 {
        self.minor
    }

    /// The currency.
    pub fn currency(self) -> Currency {
        self.currency
    }

    /// Whether it is more than nothing.
    pub fn is_positive(self) -> bool {
        self.minor > 0
    }

    /// The sum; refused across currencies and beyond the largest amount.
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        let sum = self.minor.checked_add(other.minor).ok_or(MoneyError::TooLarge)?;
        Self::new(sum, self.currency)
    }

    /// The difference, which may be negative; refused across currencies and beyond the largest amount.
    pub fn minus(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        let difference = self.minor.checked_sub(other.minor).ok_or(MoneyError::TooLarge)?;
        Self::new(difference, self.currency)
    }

    /// So many times as much.
    pub fn times(self, n: u32) -> Result<Self, MoneyError> {
        let product = self.minor.checked_mul(i64::from(n)).ok_or(MoneyError::TooLarge)?;
        Self::new(product, self.currency)
    }

    /// Which is more; refused across currencies.
    pub fn compare(self, other: Self) -> Result<Ordering, MoneyError> {
        self.same_currency(other)?;
        Ok(self.minor.cmp(&other.minor))
    }

    /// The exact decimal, as HTTP answers carry it.
    pub fn amount(self) -> Amount {
        Amount(Decimal::new(self.minor, self.currency.exponent))
    }

    /// What a first-generation producer's float stands for.
    ///
    /// Its arithmetic left noise behind (0.30000000000000004): a number within one part in 10^12 of a whole minor
    /// unit means that one. Any other with too many decimals is refused.
    pub fn from_float_text(text: &str, currency: Currency) -> Result<Self, MoneyError> {
        let noisy = decimal(text)?;
        let meant = noisy.round_dp_with_strategy(currency.exponent, RoundingStrategy::MidpointAwayFromZero);
        let noise = (noisy - meant).abs();
        if noise > meant.abs() * Decimal::new(1, 12) {
            return Err(MoneyError::TooManyDecimals { currency });
        }
        Amount(meant).in_currency(currency)
    }

    fn same_currency(self, other: Self) -> Result<(), MoneyError> {
        if self.currency == other.currency {
            return Ok(());
        }
        Err(MoneyError::CurrencyMismatch { expected: self.currency, actual: other.currency })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount(), self.currency)
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An exact decimal without a currency, as an HTTP request writes it (`19.99` or `"19.99"`) and as an answer does
/// (always a number). It never passes through a float.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(Decimal);

impl Amount {
    /// The amount in that currency. Refused if it has more decimals than the currency (trailing zeros do not
    /// count) or is too large.
    pub fn in_currency(self, currency: Currency) -> Result<Money, MoneyError> {
        let mut exact = self.0.normalize();
        if exact.scale() > currency.exponent {
            return Err(MoneyError::TooManyDecimals { currency });
        }
        if exact.abs() > Decimal::from(Money::MAX_MAJOR) {
            return Err(MoneyError::TooLarge);
        }
        exact.rescale(currency.exponent);
        let minor = i64::try_from(exact.mantissa()).map_err(|_| MoneyError::TooLarge)?;
        Money::new(minor, currency)
    }
}

impl FromStr for Amount {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        decimal(text).map(Self)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.0.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        let text = if text.starts_with('"') {
            serde_json::from_str::<Cow<'_, str>>(text).map_err(de::Error::custom)?
        } else {
            Cow::Borrowed(text)
        };
        decimal(&text).map(Self).map_err(de::Error::custom)
    }
}

/// Digits, an optional sign, decimals and exponent, as JSON writes a number; bounded before it is looked at.
fn decimal(text: &str) -> Result<Decimal, MoneyError> {
    let not_a_number = || MoneyError::NotANumber(text.chars().take(40).collect());
    let plausible = text.len() <= 64 && text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    if !plausible || !text.ends_with(|c: char| c.is_ascii_digit()) || text.starts_with(['.', '+']) {
        return Err(not_a_number());
    }
    if text.contains(['e', 'E']) {
        return Decimal::from_scientific(text).map_err(|_| not_a_number());
    }
    Decimal::from_str_exact(text).map_err(|_| not_a_number())
}

/// Why an amount is refused. Each message is safe to show to a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a decimal number, or one with more digits than any amount has.
    #[error("{0:?} is not an amount: a number such as 19.99 is needed")]
    NotANumber(String),
    /// More decimals than the currency has.
    #[error("an amount in {currency} has at most {} decimals", currency.exponent)]
    TooManyDecimals {
        /// The currency.
        currency: Currency,
    },
    /// Beyond the bound of every amount.
    #[error("the amount is too large: at most {} are possible", Money::MAX_MAJOR)]
    TooLarge,
    /// Two currencies in one sum.
    #[error("the amount is in {actual}, {expected} is needed")]
    CurrencyMismatch {
        /// What the other side is in.
        expected: Currency,
        /// What was given.
        actual: Currency,
    },
    /// Not a code of ISO 4217.
    #[error("{0:?} is not a currency code of ISO 4217, such as USD")]
    UnknownCurrency(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_currency() -> impl Strategy<Value = Currency> {
        proptest::sample::select(vec!["USD", "EUR", "JPY", "KWD"])
            .prop_map(|code| Currency::new(code).unwrap())
    }

    fn any_money() -> impl Strategy<Value = Money> {
        any_currency().prop_flat_map(|currency| {
            (-currency.limit()..=currency.limit()).prop_map(move |minor| Money::new(minor, currency).unwrap())
        })
    }

    proptest! {
        #[test]
        fn an_amount_survives_http_and_the_log(money in any_money()) {
            let json = serde_json::to_string(&money.amount()).unwrap();
            prop_assert!(json.bytes().all(|b| b.is_ascii_digit() || b"-.".contains(&b)), "not a plain number: {}", json);
            let number: Amount = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(number.in_currency(money.currency()).unwrap(), money);
            let text: Amount = serde_json::from_str(&format!("\"{json}\"")).unwrap();
            prop_assert_eq!(text.in_currency(money.currency()).unwrap(), money);
            let event = serde_json::to_string(&money).unwrap();
            prop_assert_eq!(serde_json::from_str::<Money>(&event).unwrap(), money);
        }

        #[test]
        fn what_is_added_can_be_taken_away(a in any_money(), minor in 0_i64..1_000_000) {
            let b = Money::new(minor, a.currency()).unwrap();
            if let Ok(sum) = a.plus(b) {
                prop_assert_eq!(sum.minus(b).unwrap(), a);
                prop_assert_eq!(sum, b.plus(a).unwrap());
            }
        }

        #[test]
        fn times_is_repeated_addition(minor in -1_000_000_i64..1_000_000, n in 0_u32..50) {
            let one = Money::new(minor, Currency::EUR).unwrap();
            let sum = (0..n).try_fold(Money::zero(Currency::EUR), |sum, _| sum.plus(one)).unwrap();
            prop_assert_eq!(one.times(n).unwrap(), sum);
        }

        #[test]
        fn a_float_means_the_amount_it_was_computed_from(minor in 0_i64..1_000_000_000, n in 1_u32..100) {
            // What a first-generation producer did.
            #[expect(clippy::cast_precision_loss, reason = "floats are the subject of this test")]
            let total = minor as f64 / 100.0 * f64::from(n);
            let text = serde_json::Value::from(total).to_string();
            let money = Money::from_float_text(&text, Currency::USD).unwrap();
            prop_assert_eq!(money, Money::new(minor, Currency::USD).unwrap().times(n).unwrap());
        }

        #[test]
        fn no_text_makes_parsing_panic(text in ".{0,80}") {
            let _ = text.parse::<Amount>().map(|amount| amount.in_currency(Currency::JPY));
        }
    }

    fn parse(text: &str, currency: Currency) -> Result<i64, MoneyError> {
        text.parse::<Amount>()?.in_currency(currency).map(Money::minor)
    }

    #[test]
    fn more_decimals_than_the_currency_has_are_refused() {
        assert_eq!(parse("19.99", Currency::USD), Ok(1999));
        assert_eq!(parse("19.990", Currency::USD), Ok(1999), "trailing zeros are no decimals");
        assert_eq!(
            parse("19.999", Currency::USD),
            Err(MoneyError::TooManyDecimals { currency: Currency::USD })
        );
        assert_eq!(parse("1000.0", Currency::JPY), Ok(1000));
        assert_eq!(
            parse("1000.5", Currency::JPY),
            Err(MoneyError::TooManyDecimals { currency: Currency::JPY })
        );
        assert_eq!(parse("1.005", Currency::new("KWD").unwrap()), Ok(1005));
    }

    #[test]
    fn a_number_is_read_exactly_where_a_float_would_lose_digits() {
        assert_eq!(parse("999999999999.99", Currency::USD), Ok(99_999_999_999_999));
        assert_eq!(
            parse("0.30000000000000001", Currency::USD),
            Err(MoneyError::TooManyDecimals { currency: Currency::USD })
        );
        assert_eq!(parse("1e3", Currency::USD), Ok(100_000));
        assert_eq!(parse("-0.01", Currency::USD), Ok(-1));
    }

    #[test]
    fn what_is_no_number_is_no_amount() {
        for bad in
            ["", " 1", "1 ", "1,5", "0x10", "NaN", "inf", "1.", ".5", "+1", "1e", "--1", "1e99999999", "١"]
        {
            assert!(parse(bad, Currency::USD).is_err(), "{bad:?} was taken");
        }
        for bad in ["true", "null", "[]", "{}", "\"\"", "\"1,5\""] {
            assert!(serde_json::from_str::<Amount>(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn amounts_have_a_bound() {
        assert!(parse("1000000000000", Currency::USD).is_ok());
        assert_eq!(parse("1000000000000.01", Currency::USD), Err(MoneyError::TooLarge));
        assert_eq!(parse("-1000000000000.01", Currency::USD), Err(MoneyError::TooLarge));
        assert_eq!(parse("99999999999999999999999", Currency::USD), Err(MoneyError::TooLarge));
        let most = Money::new(100_000_000_000_000, Currency::USD).unwrap();
        assert_eq!(most.plus(Money::new(1, Currency::USD).unwrap()), Err(MoneyError::TooLarge));
        assert_eq!(most.times(u32::MAX), Err(MoneyError::TooLarge));
        assert!(serde_json::from_str::<Money>(r#"{"minor":9223372036854775807,"currency":"USD"}"#).is_err());
    }

    #[test]
    fn currencies_do_not_mix() {
        let (one, other) = (Money::zero(Currency::EUR), Money::zero(Currency::USD));
        let mismatch = MoneyError::CurrencyMismatch { expected: Currency::EUR, actual: Currency::USD };
        assert_eq!(one.plus(other), Err(mismatch.clone()));
        assert_eq!(one.minus(other), Err(mismatch.clone()));
        assert_eq!(one.compare(other), Err(mismatch));
        for bad in ["usd", "XXX", "", "DOLLAR"] {
            assert!(Currency::new(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_float_with_real_decimals_too_many_is_refused() {
        assert_eq!(Money::from_float_text("0.30000000000000004", Currency::USD).unwrap().minor(), 30);
        assert_eq!(Money::from_float_text("59.97", Currency::USD).unwrap().minor(), 5997);
        assert_eq!(Money::from_float_text("1e2", Currency::USD).unwrap().minor(), 10_000);
        assert!(Money::from_float_text("0.333", Currency::USD).is_err());
        assert!(Money::from_float_text("0.001", Currency::USD).is_err());
    }
}
