//! Lists, a page at a time: by number for people, by cursor for programs.

use axum::Json;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::extract::Query;
use super::problem::Problem;
use crate::page::{Cursor, Page, PageQuery};

impl<S: Send + Sync> FromRequestParts<S> for PageQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(Parameters { page, per_page, cursor }) = Query::from_request_parts(parts, state).await?;
        let per_page = per_page.unwrap_or(20);
        if !(1..=Self::MAX_PER_PAGE).contains(&per_page) {
            return Err(Problem::bad_request("per_page is 1 to 100"));
        }
        match (page.unwrap_or(1), cursor) {
            (_, Some(_)) if page.is_some() => {
                Err(Problem::bad_request("Give page or cursor: a cursor says by itself where to go on"))
            }
            (_, Some(cursor)) => {
                let cursor =
                    Cursor::given(cursor).map_err(|error| Problem::bad_request(error.to_string()))?;
                Ok(Self::after(cursor, per_page))
            }
            (page @ 1..=Self::MAX_PAGE, None) => Ok(Self::number(page, per_page)),
            _ => Err(Problem::bad_request(
                "page is 1 to 1,000; to read on, follow `next` from the first page with ?cursor=",
            )),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Parameters {
    /// Which page; not together with cursor. For people: what is written between two requests shifts it
    #[param(minimum = 1, maximum = 1_000, default = 1)]
    page: Option<usize>,
    /// How many items a page has at most
    #[param(minimum = 1, maximum = 100, default = 20)]
    per_page: Option<usize>,
    /// Where to go on: the `next` of an earlier answer of this list with the same filters. Whatever is written in between,
    /// what is there all the while is seen exactly once
    #[param(min_length = 1, max_length = 200, pattern = "^[A-Za-z0-9_-]{1,200}$")]
    cursor: Option<String>,
}

impl IntoParams for PageQuery {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        Parameters::into_params(place)
    }
}

impl PartialSchema for Cursor {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).max_length(Some(Self::MAX_LEN)).into()
    }
}

impl ToSchema for Cursor {}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let next =
            self.next.as_ref().map(|next| NextPart { parameter: "cursor", value: next.as_str().to_owned() });
        let mut response = Json(self).into_response();
        if let Some(next) = next {
            response.extensions_mut().insert(next);
        }
        response
    }
}

/// What follows an answer: the same request with this query parameter. [`link_next`] makes a `Link` of it.
#[derive(Debug, Clone)]
pub(super) struct NextPart {
    pub(super) parameter: &'static str,
    pub(super) value: String,
}

/// Puts the address of what follows into the header `Link` (RFC 8288), where there is more.
pub(super) async fn link_next(request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    if let Some(part) = response.extensions_mut().remove::<NextPart>()
        && let Ok(link) = HeaderValue::from_str(&format!("<{}>; rel=\"next\"", part.address(&uri)))
    {
        response.headers_mut().append(header::LINK, link);
    }
    response
}

impl NextPart {
    fn address(&self, uri: &Uri) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let asked = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        query.extend_pairs(asked.filter(|(name, _)| name != "page" && name != self.parameter));
        query.append_pair(self.parameter, &self.value);
        format!("{}?{}", uri.path(), query.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_is_the_same_request_from_there_on() {
        let next = NextPart { parameter: "cursor", value: "abc".into() };
        let address = |uri: &str| next.address(&uri.parse().unwrap());
        assert_eq!(address("/orders"), "/orders?cursor=abc");
        assert_eq!(address("/orders?page=1&status=Placed"), "/orders?status=Placed&cursor=abc");
        assert_eq!(address("/a%20b?cursor=x&search=%C3%BC+%26"), "/a%20b?search=%C3%BC+%26&cursor=abc");
        let after = NextPart { parameter: "after", value: "7".into() };
        assert_eq!(after.address(&"/x?after=3&limit=4".parse().unwrap()), "/x?limit=4&after=7");
    }
}
