//! Pages for people, in one file each.

use axum::http::header;
use axum::response::{Html, IntoResponse};

/// What a page may do.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                           connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A page that brings its own script and style, asks this server, and nothing else (Content Security Policy).
pub fn html_page(page: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(page))
}
