//! The data of an event, brought to the newest version.

use serde_json::Value;
use serde_json::value::RawValue;

use super::DecodeError;
use crate::Event;
use crate::event::version_after;

/// Decodes the data of an `E`, through as many upcasts as its version needs.
pub(super) fn decode_data<E: Event>(version: u32, data: &RawValue) -> Result<E, DecodeError> {
    const { assert!(E::VERSION == version_after(E::UPCASTERS), "VERSION follows from UPCASTERS") };
    let (event_type, known) = (E::TYPE, E::VERSION);
    if version > known || version == 0 {
        return Err(DecodeError::UnknownVersion { event_type: event_type.into(), version, known });
    }
    if version == known {
        return serde_json::from_str(data.get()).map_err(|source| DecodeError::Data {
            event_type,
            version,
            source,
        });
    }
    let wrong = |source| DecodeError::Data { event_type, version, source };
    let mut value: Value = serde_json::from_str(data.get()).map_err(wrong)?;
    for (from, upcast) in (1..).zip(E::UPCASTERS).skip_while(|(from, _)| *from < version) {
        value = upcast(value).map_err(|source| DecodeError::Upcast { event_type, from, source })?;
    }
    serde_json::from_value(value).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EntityId, UpcastError, Upcaster};

    /// It had a name, then a first name, now a list of names.
    #[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize)]
    struct Named {
        id: EntityId,
        names: Vec<String>,
    }

    impl Event for Named {
        const TYPE: &'static str = "thing.named";
        const UPCASTERS: &'static [Upcaster] = &[
            |mut data| {
                data["first"] = data["name"].take();
                Ok(data)
            },
            |mut data| match data["first"].take() {
                Value::String(first) => {
                    data["names"] = vec![first].into();
                    Ok(data)
                }
                _ => Err(UpcastError::new("no first name")),
            },
        ];

        fn entity_id(&self) -> &EntityId {
            &self.id
        }
    }

    fn named(version: u32, data: &str) -> Result<Vec<String>, DecodeError> {
        let data: &RawValue = serde_json::from_str(data).unwrap();
        decode_data::<Named>(version, data).map(|named| named.names)
    }

    #[test]
    fn every_old_version_takes_all_the_steps_after_it() {
        assert_eq!(Named::VERSION, 3);
        assert_eq!(named(1, r#"{"id":"a","name":"Ann"}"#).unwrap(), ["Ann"]);
        assert_eq!(named(2, r#"{"id":"a","first":"Ann"}"#).unwrap(), ["Ann"]);
        assert_eq!(named(3, r#"{"id":"a","names":["Ann"]}"#).unwrap(), ["Ann"]);
    }

    #[test]
    fn a_failing_step_is_named_by_the_version_it_starts_from() {
        let failed = named(1, r#"{"id":"a"}"#);
        assert!(matches!(failed, Err(DecodeError::Upcast { from: 2, .. })), "{failed:?}");
        for version in [0, 4] {
            let unknown = named(version, r#"{"id":"a"}"#);
            assert!(matches!(unknown, Err(DecodeError::UnknownVersion { known: 3, .. })), "{unknown:?}");
        }
    }
}
