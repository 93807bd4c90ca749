//! Lists, a page at a time.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

use super::extract::Query;
use super::problem::Problem;

/// `?page=&per_page=`: which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageQuery {
    /// 1 to 1,000,000; 1 by default.
    pub page: usize,
    /// 1 to 100; 20 by default.
    pub per_page: usize,
}

impl PageQuery {
    /// The last page that can be asked for.
    pub const MAX_PAGE: usize = 1_000_000;

    /// The largest page.
    pub const MAX_PER_PAGE: usize = 100;

    /// This page of all items, in their order.
    pub fn of<T>(self, items: impl IntoIterator<Item = T>) -> Page<T> {
        let first = (self.page - 1).saturating_mul(self.per_page);
        let (mut total, mut page) = (0, Vec::new());
        for item in items {
            if total >= first && page.len() < self.per_page {
                page.push(item);
            }
            total += 1;
        }
        Page { items: page, page: self.page, per_page: self.per_page, total }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PageQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(Parameters { page, per_page }) = Query::from_request_parts(parts, state).await?;
        let (page, per_page) = (page.unwrap_or(1), per_page.unwrap_or(20));
        if !(1..=Self::MAX_PAGE).contains(&page) || !(1..=Self::MAX_PER_PAGE).contains(&per_page) {
            return Err(Problem::bad_request("page is 1 to 1,000,000, per_page is 1 to 100"));
        }
        Ok(Self { page, per_page })
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Parameters {
    /// Which page
    #[param(minimum = 1, maximum = 1_000_000, default = 1)]
    page: Option<usize>,
    /// How many items a page has at most
    #[param(minimum = 1, maximum = 100, default = 20)]
    per_page: Option<usize>,
}

impl IntoParams for PageQuery {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        Parameters::into_params(place)
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items on it.
    pub items: Vec<T>,
    /// Its number, from 1.
    pub page: usize,
    /// How many items a page has at most.
    pub per_page: usize,
    /// How many items the whole list has.
    pub total: usize,
}

impl<T> Page<T> {
    /// The same page of other items: what they look like to the client.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        let items = self.items.into_iter().map(f).collect();
        Page { items, page: self.page, per_page: self.per_page, total: self.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_window_and_knows_the_whole() {
        let page = |page| PageQuery { page, per_page: 3 }.of(1..=7);
        assert_eq!(page(1), Page { items: vec![1, 2, 3], page: 1, per_page: 3, total: 7 });
        assert_eq!(page(3).items, [7]);
        assert_eq!(page(4), Page { items: vec![], page: 4, per_page: 3, total: 7 });
        assert_eq!(page(usize::MAX).items, [0; 0]);
    }
}
