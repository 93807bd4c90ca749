//! The OpenAPI document, as it is committed.

use consumer_inventory::http::Api;
use eventkit::http::HttpApi as _;

#[test]
fn the_document_is_the_committed_one() {
    let document = eventkit::http::document(eventkit::about!(), &Api::openapi());
    eventkit::testing::assert_committed(&document, concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json"));
}
