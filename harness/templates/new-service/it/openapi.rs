//! The OpenAPI document, as it is committed.

use jetkit::http::HttpApi as _;
use {{ plan.library }}::http::Api;

#[test]
fn the_document_is_the_committed_one() {
    let document = jetkit::http::document(jetkit::about!(), &Api::openapi());
    jetkit::testing::assert_committed(&document, concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json"));
}
