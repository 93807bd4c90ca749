//! What the OpenAPI documents say of money.

use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{Amount, CODES, Currency, Money};

impl PartialSchema for Currency {
    fn schema() -> RefOr<Schema> {
        let codes = CODES.iter().flat_map(|(_, codes)| codes.iter().copied());
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A currency of ISO 4217"))
            .enum_values(Some(codes))
            .into()
    }
}

impl ToSchema for Currency {}

impl PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        #[expect(clippy::cast_precision_loss, reason = "a round number")]
        let most = Money::MAX_MAJOR as f64;
        let number = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(-most)).maximum(Some(most));
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(r"^-?[0-9]{1,13}(\.[0-9]{1,4})?$"))
            .max_length(Some(64));
        OneOfBuilder::new()
            .description(Some(
                "An exact amount, as a number or a decimal string; answers have numbers. No more decimals than its currency \
                 has (trailing zeros do not count)",
            ))
            .item(number)
            .item(text)
            .examples([19.99])
            .into()
    }
}

impl ToSchema for Amount {}
