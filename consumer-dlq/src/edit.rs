//! Puts new data into an event that failed, so that it can be redriven mended. Pure.

use std::collections::BTreeMap;

use jetkit::{Catalog, DecodeError, Envelope};
use serde_json::value::RawValue;

/// Why new data was not taken.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// With the new data it would fail again, for this reason.
    #[error("with this data it would fail again: {0}")]
    StillUndecodable(#[source] DecodeError),
    /// With the new data it is an event of a type that no consumer knows.
    #[error("with this data it is an event of the unknown type {0:?}")]
    UnknownType(String),
    /// It could not be written.
    #[error("the edited event could not be written")]
    Unwritable(#[source] serde_json::Error),
}

/// The payload with `data` in place of its `data`, if it is a CloudEvents document; otherwise, as with a payload that is
/// no event at all, `data` is the whole new payload. What comes out is an event that `catalog` can read.
pub fn with_data(payload: &[u8], data: &RawValue, catalog: &Catalog) -> Result<Vec<u8>, EditError> {
    let document: Option<BTreeMap<String, &RawValue>> = serde_json::from_slice(payload).ok();
    let edited = match document {
        Some(mut document) if document.contains_key("specversion") => {
            document.insert("data".to_owned(), data);
            serde_json::to_vec(&document).map_err(EditError::Unwritable)?
        }
        _ => data.get().as_bytes().to_vec(),
    };
    let envelope = Envelope::decode(&edited).map_err(EditError::StillUndecodable)?;
    envelope.metadata().map_err(EditError::StillUndecodable)?;
    let spec = catalog
        .get(envelope.event_type())
        .ok_or_else(|| EditError::UnknownType(envelope.event_type().to_owned()))?;
    spec.read(&envelope).map_err(EditError::StillUndecodable)?;
    Ok(edited)
}
