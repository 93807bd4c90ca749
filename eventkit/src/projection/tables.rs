//! [`Tables`]: what a projection writes into and what a reader asks, in the words that both need most.

use rusqlite::{Connection, OptionalExtension, Params, Row, ToSql, params_from_iter};

use crate::http::{Page, PageQuery};

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

    /// One page of a list, and how long the whole list is.
    pub fn page<T>(
        &self,
        list: &List<'_>,
        page: PageQuery,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Page<T>> {
        let List { columns, from, matching, order_by } = list;
        let conditions = matching.text();
        let count = format!("SELECT count(*) FROM {from}{conditions}");
        let total: i64 = self.0.prepare_cached(&count)?.query_row(matching.params(), |row| row.get(0))?;
        let values = matching.values.len();
        let window = format!(
            "SELECT {columns} FROM {from}{conditions} ORDER BY {order_by} LIMIT ?{} OFFSET ?{}",
            values + 1,
            values + 2
        );
        let integer = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (limit, offset) =
            (integer(page.per_page), integer((page.page - 1).saturating_mul(page.per_page)));
        let params = matching.values.iter().map(|value| &**value as &dyn ToSql);
        let params = params_from_iter(params.chain([&limit as &dyn ToSql, &offset]));
        let items = self.0.prepare_cached(&window)?.query_map(params, read)?.collect::<Result<_, _>>()?;
        let total = usize::try_from(total).unwrap_or_default();
        Ok(Page { items, page: page.page, per_page: page.per_page, total })
    }
}

/// A list to take pages of. All but the values in its conditions is SQL, and the program's own.
#[derive(Debug)]
pub struct List<'a> {
    /// What is wanted of each row.
    pub columns: &'a str,
    /// The table.
    pub from: &'a str,
    /// Which rows.
    pub matching: Conditions,
    /// In which order; must be the same each time, so that pages fit together.
    pub order_by: &'a str,
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
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_window_on_what_matches_and_knows_how_much_that_is() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE lamps (id INTEGER PRIMARY KEY, room TEXT)").unwrap();
        let tables = Tables::of(&db);
        for (id, room) in [(1, "hall"), (2, "bath"), (3, "hall"), (4, "hall"), (5, "a%b")] {
            tables.run("INSERT INTO lamps VALUES (?1, ?2)", (id, room)).unwrap();
        }
        let ask = |matching: Conditions, page: usize| {
            let list = List { columns: "id", from: "lamps", matching, order_by: "id DESC" };
            let page =
                tables.page(&list, PageQuery { page, per_page: 2 }, |row| row.get::<_, i64>(0)).unwrap();
            (page.total, page.items)
        };
        let room = |room: Option<&'static str>| Conditions::default().equal("room", room);
        assert_eq!(ask(room(None), 1), (5, vec![5, 4]));
        assert_eq!(ask(room(None), 3), (5, vec![1]));
        assert_eq!(ask(room(Some("hall")), 2), (3, vec![1]));
        assert_eq!(ask(room(Some("hall")).unequal("id", Some(3)), 1), (2, vec![4, 1]));
        assert_eq!(ask(Conditions::default().contains("room", Some("%")), 1), (1, vec![5]));
        assert_eq!(ask(room(None), usize::MAX), (5, vec![]));
    }
}
