//! Reducers: what folds the events of an aggregate into its state.

use std::str::FromStr;

use chrono::{DateTime, Utc};

use super::version::Version;

/// Bounds of `snapshot_every`, in events.
pub const SNAPSHOT_EVERY_MAX: u32 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Handlers, one an event type, in a sandbox.
    JavaScript,
    /// RFC 7396: the state is merged with each event's data.
    MergePatch,
}

/// A language that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no language of reducers: javascript and merge-patch are")]
pub struct UnknownLanguage(pub String);

impl Language {
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

/// What a reducer is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReducerSource {
    pub language: Language,
    /// Empty for merge-patch.
    pub source: String,
    /// Events between two snapshots, 1 to [`SNAPSHOT_EVERY_MAX`].
    pub snapshot_every: u32,
}

/// The reducer of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reducer {
    pub aggregate_type: String,
    /// Given to one reducer and never again: a state is of exactly one.
    pub revision: i64,
    pub source: ReducerSource,
    pub created_at: DateTime<Utc>,
}

impl Reducer {
    /// The latest version up to `version` at which a snapshot is taken; 0 before the first.
    pub fn snapshot_version(&self, version: Version) -> Version {
        let every = Version::try_from(self.source.snapshot_every).unwrap_or(Version::MAX).max(1);
        version / every * every
    }

    /// Whether a snapshot falls due between two versions of a stream.
    pub fn is_crossed(&self, before: Version, after: Version) -> bool {
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
        assert!(reducer.is_crossed(48, 53) && reducer.is_crossed(49, 50) && reducer.is_crossed(0, 120));
        assert!(!reducer.is_crossed(50, 99) && !reducer.is_crossed(0, 49));
        assert_eq!([0, 49, 50, 53, 100].map(|version| reducer.snapshot_version(version)), [0, 0, 50, 50, 100]);
    }
}
