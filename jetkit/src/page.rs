//! What a list is asked for and answers: a page of it, by number for people, by cursor for programs.

mod cursor;

use serde::Serialize;

#[cfg(feature = "read-models")]
pub(crate) use self::cursor::CursorKey;
pub use self::cursor::{Cursor, CursorError};

/// `?page=&per_page=` or `?cursor=&per_page=`: which part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    pub(crate) begin: Begin,
    pub(crate) per_page: usize,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Begin {
    /// At a number, from 1. What is written in between shifts it.
    Number(usize),
    /// After the last item of an earlier answer, whatever is written in between.
    After(Cursor),
}

impl PageQuery {
    /// The last page that can be asked for by its number: what stands before it is counted off each time. A cursor goes
    /// as far as the list.
    pub const MAX_PAGE: usize = 1_000;

    /// The largest page.
    pub const MAX_PER_PAGE: usize = 100;

    /// The page of that number, from 1.
    pub const fn number(page: usize, per_page: usize) -> Self {
        Self { begin: Begin::Number(page), per_page }
    }

    /// The page that follows an answer.
    pub fn after(next: Cursor, per_page: usize) -> Self {
        Self { begin: Begin::After(next), per_page }
    }
}

/// One page of a list. As an HTTP answer: JSON, with the page that follows as a `Link` too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The items on it.
    pub items: Vec<T>,
    /// Its number, from 1; none if it was asked for by a cursor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<usize>,
    /// How many items a page has at most.
    pub per_page: usize,
    /// How many items the whole list has.
    pub total: usize,
    /// Where to go on, as `cursor`; none at the end of the list, and in an order in which items move.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(value_type = Option<String>, max_length = 200))]
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Returns the same page of other items: what they look like to the client.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        let Self { items, page, per_page, total, next } = self;
        Page { items: items.into_iter().map(f).collect(), page, per_page, total, next }
    }
}
