//! How values stand in columns.

use std::fmt::Display;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Type, ValueRef};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::IntoDeserializer;
use serde::de::value::Error as WordError;

use crate::{EntityId, EventId};

/// A value that is one word in JSON, as that word: an enum such as a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<T>(pub T);

impl<T: Serialize> ToSql for Word<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match serde_json::to_value(&self.0) {
            Ok(serde_json::Value::String(word)) => Ok(word.into()),
            Ok(other) => Err(unwritable(format!("{other} is not one word"))),
            Err(error) => Err(unwritable(error)),
        }
    }
}

impl<T: DeserializeOwned> FromSql for Word<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let word = value.as_str()?.into_deserializer();
        T::deserialize(word).map(Self).map_err(|error: WordError| unreadable(error))
    }
}

/// Any value, as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        serde_json::to_string(&self.0).map(Into::into).map_err(unwritable)
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(unreadable)
    }
}

/// The error of a row that holds no such value, for what a reader puts together from several columns.
pub fn unreadable_row(reason: impl Display) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Null, reason.to_string().into())
}

macro_rules! id_column {
    ($id:ty) => {
        impl ToSql for $id {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl FromSql for $id {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                Self::new(value.as_str()?).map_err(unreadable)
            }
        }
    };
}
id_column!(EntityId);
id_column!(EventId);

fn unwritable(reason: impl Display) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(reason.to_string().into())
}

fn unreadable(reason: impl Display) -> FromSqlError {
    FromSqlError::Other(reason.to_string().into())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        DarkRed,
    }

    #[test]
    fn values_come_back_as_they_went_in() {
        let db = Connection::open_in_memory().unwrap();
        let colour = Word(Colour::DarkRed);
        let text: String = db.query_row("SELECT ?1", [&colour], |row| row.get(0)).unwrap();
        assert_eq!(text, "dark_red");
        assert_eq!(
            db.query_row("SELECT ?1", [&colour], |row| row.get::<_, Word<Colour>>(0)).unwrap(),
            colour
        );
        let list = Json(vec![Colour::DarkRed]);
        assert_eq!(db.query_row("SELECT ?1", [&list], |row| row.get::<_, Json<_>>(0)).unwrap(), list);
        let id = EntityId::new("o-1").unwrap();
        assert_eq!(db.query_row("SELECT ?1", [&id], |row| row.get::<_, EntityId>(0)).unwrap(), id);
    }

    #[test]
    fn what_is_no_such_value_is_an_error() {
        let db = Connection::open_in_memory().unwrap();
        assert!(db.query_row("SELECT 'blue'", [], |row| row.get::<_, Word<Colour>>(0)).is_err());
        assert!(db.query_row("SELECT 'a.b'", [], |row| row.get::<_, EntityId>(0)).is_err());
        assert!(db.query_row("SELECT ?1", [Word(7)], |_| Ok(())).is_err());
    }
}
