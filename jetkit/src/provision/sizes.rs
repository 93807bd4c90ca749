//! How large streams may become: [`Sizes`], read from a setting.

use std::collections::BTreeMap;
use std::str::FromStr;

use async_nats::jetstream::stream::Config;

/// The sizes of streams in mebibytes: one for all, others by name, as in `1024,EVENTS=20480`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    all: Option<i64>,
    named: BTreeMap<String, i64>,
}

/// A mebibyte.
const MIB: i64 = 1024 * 1024;

impl Sizes {
    /// How many bytes a stream may have; -1 if nothing is said of it.
    pub fn of(&self, stream: &str) -> i64 {
        self.named.get(stream).copied().or(self.all).unwrap_or(-1)
    }

    pub(crate) fn limit(&self, stream: Config) -> Config {
        Config { max_bytes: self.of(&stream.name), ..stream }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut sizes = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (stream, size) =
                part.split_once('=').map_or((None, part), |(stream, size)| (Some(stream), size));
            let mebibytes = size.parse::<u32>().ok().filter(|size| *size > 0);
            let mebibytes = mebibytes.ok_or_else(|| {
                format!("{part:?}: give mebibytes, for all streams or as STREAM=MEBIBYTES, such as 1024,EVENTS=20480")
            })?;
            let bytes = i64::from(mebibytes) * MIB;
            match stream {
                Some(stream) => drop(sizes.named.insert(stream.to_owned(), bytes)),
                None => sizes.all = Some(bytes),
            }
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_its_own_size_or_the_one_for_all() {
        let sizes: Sizes = "1024, EVENTS=20480".parse().unwrap();
        assert_eq!((sizes.of("EVENTS"), sizes.of("DLQ")), (20480 * MIB, 1024 * MIB));
        let sizes: Sizes = "EVENTS=1".parse().unwrap();
        assert_eq!((sizes.of("EVENTS"), sizes.of("DLQ")), (MIB, -1));
        assert_eq!("".parse(), Ok(Sizes::default()));
    }

    #[test]
    fn a_size_that_is_none_is_refused_in_plain_words() {
        for text in ["0", "-1", "10GB", "EVENTS", "EVENTS=", "EVENTS=x", "5000000000"] {
            let refusal = text.parse::<Sizes>().unwrap_err();
            assert!(refusal.contains("mebibytes"), "{text}: {refusal}");
        }
    }
}
