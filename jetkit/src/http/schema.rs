//! What the OpenAPI documents say of identifiers.

use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::{EntityId, EventId};

impl PartialSchema for EntityId {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("1 to 64 of A-Z a-z 0-9 _ -"))
            .pattern(Some("^[A-Za-z0-9_-]{1,64}$"))
            .min_length(Some(1))
            .max_length(Some(Self::MAX_LEN))
            .examples(["o-1"])
            .into()
    }
}

impl ToSchema for EntityId {}

impl PartialSchema for EventId {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(Self::MAX_LEN))
            .examples(["0190a5c0-7d1c-7c2e-94f1-7c0b9a570f35"])
            .into()
    }
}

impl ToSchema for EventId {}
