//! [`ExpectedVersion`]: what a conditional command insists on.

use std::fmt;

/// The versions that an entity may be at for a command to be carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// Any, also that of an entity that does not exist.
    #[default]
    Any,
    /// Any of an entity that exists.
    Existing,
    /// One of these; 0 is that of an entity that does not exist. Without any, nothing is carried out.
    OneOf(Vec<u64>),
}

impl ExpectedVersion {
    pub(super) fn takes(&self, version: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Existing => version > 0,
            Self::OneOf(versions) => versions.contains(&version),
        }
    }
}

impl From<u64> for ExpectedVersion {
    fn from(version: u64) -> Self {
        Self::OneOf(vec![version])
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::Existing => f.write_str("one that exists"),
            Self::OneOf(versions) => match versions.as_slice() {
                [] => f.write_str("a version that it never has"),
                [version] => write!(f, "version {version}"),
                [version, ..] => write!(f, "one of {} versions, such as {version},", versions.len()),
            },
        }
    }
}
