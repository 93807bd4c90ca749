//! The OpenAPI document, as it is committed.

#[test]
fn the_document_is_the_committed_one() {
    let document = eventkit::http::document(eventkit::about!(), &consumer_dlq::http::openapi());
    eventkit::testing::is_committed(&document, concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json"));
}
