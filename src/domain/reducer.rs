//! Reducers, which fold the events of an aggregate into its state.

use std::str::FromStr;

use chrono::{DateTime, Utc};

use crate::domain::version::Version;

/// The largest `snapshot_every`, in events. The smallest is 1.
pub const SNAPSHOT_EVERY_MAX: u32 = 10_000;

/// The language of a reducer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Handlers, one for each event type, which run in a sandbox.
    JavaScript,
    /// JSON Merge Patch (RFC 7396): `event_data` of each event is applied to the state as a patch.
    MergePatch,
}

/// A language that this version of the service does not support.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a reducer language: use javascript or merge-patch")]
pub struct UnknownLanguage(pub String);

impl Language {
    /// Returns the name of the language in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JavaScript => "javascript",
            Self::MergePatch => "merge-patch",
        }
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Self, UnknownLanguage> {
        match text {
            "javascript" => Ok(Self::JavaScript),
            "merge-patch" => Ok(Self::MergePatch),
            other => Err(UnknownLanguage(other.to_owned())),
        }
    }
}

/// The definition of a reducer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReducerSource {
    pub language: Language,
    /// The source text; empty for merge-patch.
    pub source: String,
    /// The number of events between two snapshots, 1 to [`SNAPSHOT_EVERY_MAX`].
    pub snapshot_every: u32,
}

/// The stored reducer of an aggregate type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reducer {
    pub aggregate_type: String,
    /// Identifies this definition. A revision is never reused, so a snapshot belongs to exactly one definition.
    pub revision: i64,
    pub source: ReducerSource,
    pub created_at: DateTime<Utc>,
}

impl Reducer {
    /// Returns the latest version, up to `version`, at which a snapshot is due; 0 before the first one.
    pub fn snapshot_version(&self, version: Version) -> Version {
        let every = Version::try_from(self.source.snapshot_every).unwrap_or(Version::MAX).max(1);
        version / every * every
    }

    /// Returns whether a snapshot becomes due when a stream grows from one version to another.
    pub fn is_snapshot_due(&self, before: Version, after: Version) -> bool {
        self.snapshot_version(after) > self.snapshot_version(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_when_a_multiple_is_crossed() {
        let source = ReducerSource { language: Language::MergePatch, source: String::new(), snapshot_every: 50 };
        let reducer = Reducer { aggregate_type: "T".to_owned(), revision: 1, source, created_at: DateTime::UNIX_EPOCH };
        assert!(reducer.is_snapshot_due(48, 53) && reducer.is_snapshot_due(49, 50) && reducer.is_snapshot_due(0, 120));
        assert!(!reducer.is_snapshot_due(50, 99) && !reducer.is_snapshot_due(0, 49));
        assert_eq!([0, 49, 50, 53, 100].map(|version| reducer.snapshot_version(version)), [0, 0, 50, 50, 100]);
    }
}
