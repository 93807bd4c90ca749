//! [`Tables`]: what a projection writes into and what a reader asks, in the words that both need most.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Params, Row, ToSql, params_from_iter};
use uuid::Uuid;

use crate::page::{Begin, Cursor, CursorError, CursorKey, Page, PageQuery};

/// The tables of a read model, within one transaction: whoever reads sees one moment. Statements are prepared once for
/// each text.
#[derive(Debug)]
pub struct Tables<'a>(&'a Connection);

impl<'a> Tables<'a> {
    pub(crate) fn of(connection: &'a Connection) -> Self {
        Self(connection)
    }

    /// Runs a statement that changes rows, and says how many.
    pub fn run(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.0.prepare_cached(sql)?.execute(params)
    }

    /// The first row that a query finds, if there is one.
    pub fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.0.prepare_cached(sql)?.query_row(params, read).optional()
    }

    /// Every row that a query finds. For queries that find few.
    pub fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.0.prepare_cached(sql)?.query_map(params, read)?.collect()
    }

    /// Returns one page of a list, how long the whole list is, and where to go on.
    pub fn page<T>(
        &self,
        list: List<'_>,
        page: &PageQuery,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Page<T>> {
        let id = list.id()?;
        let List { columns, from, mut matching, order } = list;
        let count = format!("SELECT count(*) FROM {from}{}", matching.text());
        let total: i64 = self.0.prepare_cached(&count)?.query_row(matching.params(), |row| row.get(0))?;
        let (number, offset) = match &page.begin {
            Begin::Number(number) => (Some(*number), number.saturating_sub(1).saturating_mul(page.per_page)),
            Begin::After(cursor) => {
                matching = order.beyond(matching, cursor, id).map_err(refused)?;
                (None, 0)
            }
        };
        let (key, order_by) = (order.key(), order.sql());
        let key_column = key.unwrap_or("NULL");
        let conditions = matching.text();
        let values = matching.values.len();
        let window = format!(
            "SELECT {columns}, {key_column} AS key_of_item FROM {from}{conditions} ORDER BY {order_by} \
             LIMIT ?{} OFFSET ?{}",
            values + 1,
            values + 2
        );
        // One more than the page has, to know whether there is more.
        let (limit, offset) = (integer(page.per_page.saturating_add(1)), integer(offset));
        let params = matching.values.iter().map(|value| &**value as &dyn ToSql);
        let params = params_from_iter(params.chain([&limit as &dyn ToSql, &offset]));
        let mut statement = self.0.prepare_cached(&window)?;
        let mut rows = statement.query(params)?;
        let (mut items, mut last, mut more) = (Vec::new(), None, false);
        while let Some(row) = rows.next()? {
            if items.len() == page.per_page {
                more = true;
                break;
            }
            last = key_of(row)?;
            items.push(read(row)?);
        }
        let next = last.filter(|_| more).map(|key| Cursor::after(&key, id));
        let total = usize::try_from(total).unwrap_or_default();
        Ok(Page { items, page: number, per_page: page.per_page, total, next })
    }
}

/// What makes a list and its filters known apart from others. Changing it makes every cursor useless.
const LISTS: Uuid = Uuid::from_u128(0x7c1e_2f0a_55d4_4b0e_9d2c_3a61_8e0f_b7d5);

/// A list to take pages of. All but the values in its conditions is SQL, and the program's own.
#[derive(Debug)]
pub struct List<'a> {
    /// What is wanted of each row.
    pub columns: &'a str,
    /// The table.
    pub from: &'a str,
    /// Which rows.
    pub matching: Conditions,
    /// In which order.
    pub order: Order<'a>,
}

/// The order of a list.
///
/// By a column that has another value in every row, and in a row the same for ever, a reader who follows cursors sees
/// everything that is there all the while exactly once, whatever is written in between. It is a position on the log, or
/// an id of at most 128 bytes; not SQLite's own row id, which a rebuild changes.
#[derive(Debug, Clone, Copy)]
pub enum Order<'a> {
    /// By such a column, the lowest first.
    Ascending(&'a str),
    /// By such a column, the highest first.
    Descending(&'a str),
    /// By what changes, as in `ORDER BY`: a ranking. Items move in it, so it has pages for people and no cursor.
    Ranking(&'a str),
}

impl Order<'_> {
    fn key(&self) -> Option<&str> {
        match self {
            Self::Ascending(key) | Self::Descending(key) => Some(key),
            Self::Ranking(_) => None,
        }
    }

    fn sql(&self) -> String {
        match self {
            Self::Descending(key) => format!("{key} DESC"),
            Self::Ascending(order) | Self::Ranking(order) => (*order).to_owned(),
        }
    }

    /// Adds that a row comes after the one that the cursor of the list with that id points at.
    fn beyond(&self, matching: Conditions, cursor: &Cursor, list: Uuid) -> Result<Conditions, CursorError> {
        let (column, sign) = match self {
            Self::Ascending(column) => (column, '>'),
            Self::Descending(column) => (column, '<'),
            Self::Ranking(_) => return Err(CursorError::Ranking),
        };
        let condition = |place| format!("{column} {sign} ?{place}");
        Ok(match cursor.key(list)? {
            CursorKey::Integer(number) => matching.and(Some(number), condition),
            CursorKey::Text(text) => matching.and(Some(text), condition),
        })
    }
}

impl List<'_> {
    /// Returns what this list with these filters is known by, in cursors.
    fn id(&self) -> rusqlite::Result<Uuid> {
        let Self { from, matching, order, .. } = self;
        let mut known_by = format!("{from}\n{}\n{:?}\n", order.sql(), matching.texts).into_bytes();
        for value in &matching.values {
            let value = value.to_sql()?;
            let text = match &value {
                ToSqlOutput::Borrowed(value) => format!("{value:?}\n"),
                ToSqlOutput::Owned(value) => format!("{:?}\n", ValueRef::from(value)),
                _ => return Err(unsupported("a condition's value")),
            };
            known_by.extend_from_slice(text.as_bytes());
        }
        Ok(Uuid::new_v5(&LISTS, &known_by))
    }
}

/// The key of a row, which is its last column.
fn key_of(row: &Row<'_>) -> rusqlite::Result<Option<CursorKey>> {
    match row.get_ref("key_of_item")? {
        ValueRef::Null => Ok(None),
        ValueRef::Integer(number) => Ok(Some(CursorKey::Integer(number))),
        ValueRef::Text(text) => Ok(Some(CursorKey::Text(String::from_utf8_lossy(text).into_owned()))),
        ValueRef::Real(_) | ValueRef::Blob(_) => Err(unsupported("a list's key")),
    }
}

fn integer(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn refused(error: CursorError) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error.into())
}

fn unsupported(what: &str) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(format!("{what} is neither a number nor text").into())
}

/// What rows must be like: all of it. Without any, every row will do.
#[derive(Default)]
pub struct Conditions {
    texts: Vec<String>,
    values: Vec<Box<dyn ToSql + Send>>,
}

impl Conditions {
    /// The column has this value, if one is given.
    #[must_use]
    pub fn equal(self, column: &str, value: Option<impl ToSql + Send + 'static>) -> Self {
        self.and(value, |place| format!("{column} = ?{place}"))
    }

    /// The column has another value, if one is given.
    #[must_use]
    pub fn unequal(self, column: &str, value: Option<impl ToSql + Send + 'static>) -> Self {
        self.and(value, |place| format!("{column} <> ?{place}"))
    }

    /// The column's text contains this, if something is given: letter by letter, without wildcards.
    #[must_use]
    pub fn contains(self, column: &str, part: Option<impl ToSql + Send + 'static>) -> Self {
        self.and(part, |place| format!("instr({column}, ?{place}) > 0"))
    }

    fn and(
        mut self,
        value: Option<impl ToSql + Send + 'static>,
        condition: impl FnOnce(usize) -> String,
    ) -> Self {
        if let Some(value) = value {
            self.values.push(Box::new(value));
            self.texts.push(condition(self.values.len()));
        }
        self
    }

    fn text(&self) -> String {
        if self.texts.is_empty() { String::new() } else { format!(" WHERE {}", self.texts.join(" AND ")) }
    }

    fn params(&self) -> impl Params + '_ {
        params_from_iter(self.values.iter().map(|value| &**value as &dyn ToSql))
    }
}

impl std::fmt::Debug for Conditions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Conditions").field(&self.texts).finish()
    }
}

#[cfg(test)]
mod tests;
