//! [`Cursor`]: where a reader of a list goes on.
//!
//! A cursor holds the key of the last item that was seen, and a checksum over that key, the list and its filters. So it
//! is good for that list with those filters and no other, on any replica, after a restart and after a rebuild; and it
//! costs the server nothing to remember. The key is a value that never changes: a position on the log, or an id.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Serialize, Serializer};
use uuid::Uuid;

/// Where a reader of a list goes on: after the item that it has seen last. Opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(String);

/// The key of a list's item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CursorKey {
    Integer(i64),
    Text(String),
}

/// A cursor that does not belong to a list, or not with these filters; or text that is no cursor at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// It is not one of ours, or it is another list's, or it comes from other filters.
    #[error(
        "cursor must be the `next` of an earlier answer of this list with the same filters; leave it out to begin again"
    )]
    Foreign,
    /// The list is in an order in which items move.
    #[error(
        "items move in the order that is asked for, so there is no cursor; go by page, or ask for another order"
    )]
    Ranking,
}

/// The first byte of every cursor. Another layout gets another number, and old cursors are refused.
const LAYOUT: u8 = 1;

const INTEGER: u8 = b'i';
const TEXT: u8 = b't';

/// How many bytes stand before the key: the layout, the checksum and the key's kind.
const HEAD: usize = 1 + 16 + 1;

impl Cursor {
    /// The longest cursor, in characters. The key of a list is at most 128 bytes.
    pub const MAX_LEN: usize = 200;

    /// Reads what a client gives.
    pub(crate) fn given(text: String) -> Result<Self, CursorError> {
        if text.len() > Self::MAX_LEN {
            return Err(CursorError::Foreign);
        }
        let cursor = Self(text);
        cursor.parts().map(|_| cursor).ok_or(CursorError::Foreign)
    }

    /// Points behind the item with that key, in the list that is known by that id.
    pub(crate) fn after(key: &CursorKey, list: Uuid) -> Self {
        let key = key.bytes();
        let checksum = Uuid::new_v5(&list, &key);
        let bytes = [&[LAYOUT], &checksum.as_bytes()[..], &key].concat();
        Self(BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Answers the key of the item that was seen last, if this is a cursor of that list.
    pub(crate) fn key(&self, list: Uuid) -> Result<CursorKey, CursorError> {
        let (checksum, key) = self.parts().ok_or(CursorError::Foreign)?;
        let belongs = checksum == *Uuid::new_v5(&list, &key.bytes()).as_bytes();
        belongs.then_some(key).ok_or(CursorError::Foreign)
    }

    /// The text, as it stands in a query.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> Option<([u8; 16], CursorKey)> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&self.0).ok()?;
        let (head, key) = bytes.split_at_checked(HEAD)?;
        let checksum = head[1..17].try_into().ok()?;
        let key = match head[17] {
            INTEGER => CursorKey::Integer(i64::from_be_bytes(key.try_into().ok()?)),
            TEXT => CursorKey::Text(str::from_utf8(key).ok()?.to_owned()),
            _ => return None,
        };
        (head[0] == LAYOUT).then_some((checksum, key))
    }
}

impl CursorKey {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Integer(number) => [&[INTEGER], &number.to_be_bytes()[..]].concat(),
            Self::Text(text) => [&[TEXT], text.as_bytes()].concat(),
        }
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: Uuid = Uuid::from_u128(7);

    #[test]
    fn a_cursor_gives_its_key_back_to_its_own_list_only() {
        for key in [CursorKey::Integer(i64::MAX), CursorKey::Integer(-1), CursorKey::Text("o-1".into())] {
            let cursor = Cursor::after(&key, LIST);
            assert_eq!(Cursor::given(cursor.0.clone()).unwrap().key(LIST), Ok(key));
            assert_eq!(cursor.key(Uuid::from_u128(8)), Err(CursorError::Foreign));
        }
    }

    #[test]
    fn the_longest_key_makes_a_cursor_that_is_taken_back() {
        let key = CursorKey::Text("x".repeat(128));
        let cursor = Cursor::after(&key, LIST);
        assert_eq!(Cursor::given(cursor.0).unwrap().key(LIST), Ok(key));
        assert!(Cursor::given("A".repeat(Cursor::MAX_LEN + 1)).is_err());
    }

    #[test]
    fn a_cursor_with_any_character_changed_is_refused() {
        let cursor = Cursor::after(&CursorKey::Text("o-1".into()), LIST).0;
        for at in 0..cursor.len() {
            for other in ["A", "_", "=", " ", "\0"] {
                let mut changed = cursor.clone();
                changed.replace_range(at..=at, other);
                let read = Cursor::given(changed.clone()).and_then(|cursor| cursor.key(LIST));
                assert!(changed == cursor || read.is_err(), "{changed}");
            }
        }
        for garbage in ["", "next", "AQ", "1", "ü", &cursor[1..], &cursor[..cursor.len() - 1]] {
            let read = Cursor::given(garbage.to_owned()).and_then(|cursor| cursor.key(LIST));
            assert_eq!(read, Err(CursorError::Foreign), "{garbage}");
        }
    }
}
