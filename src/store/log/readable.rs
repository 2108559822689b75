//! The aggregate types that a filtered read returns, for a reader that may not see all types.
//!
//! What a reader may see is part of the statements, so a read costs what the reader's own events cost. Events of other
//! types are neither fetched nor counted by time.

use crate::domain::access::Pattern;
use crate::domain::filter::EventFilter;
use crate::store::connection::session::Session;

const EXISTING_TYPES: &str = include_str!("../sql/existing_types.sql");
const READABLE_TYPES: &str = include_str!("../sql/readable_types.sql");

/// Up to this number of types, a read finds its events by their types. For more types, a read of all events is cheaper
/// than a probe for each type in each window.
const TYPES_MAX: usize = 64;

/// The types that a filter wants and its reader may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WantedTypes {
    /// All types.
    All,
    /// These types. The list is empty if the log has no event that the reader may see.
    Listed(Vec<String>),
    /// Many types: those with these names, and those that begin with these prefixes.
    Many { names: Vec<String>, prefixes: Vec<String> },
}

impl WantedTypes {
    /// Returns whether the log has no event that the reader may see.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::Listed(types) if types.is_empty())
    }

    /// Finds the types of a filter that have events. Only a reader that may not see all types needs the database.
    pub(super) async fn find(connection: &mut Session, filter: &EventFilter) -> Result<Self, sqlx::Error> {
        // The filter names only types that the reader may see.
        if !filter.aggregate_types.is_empty() {
            return Ok(Self::Listed(filter.aggregate_types.clone()));
        }
        let Some(readable) = &filter.readable else { return Ok(Self::All) };
        let (prefixes, names): (Vec<&Pattern>, Vec<&Pattern>) =
            readable.iter().partition(|pattern| pattern.is_prefix());
        let texts = |patterns: Vec<&Pattern>| patterns.iter().map(|pattern| pattern.text().to_owned()).collect();
        let (prefixes, names): (Vec<String>, Vec<String>) = (texts(prefixes), texts(names));
        let mut listed: Vec<String> = Vec::new();
        if !names.is_empty() {
            // A reader of types without events reads nothing of the log.
            listed = sqlx::query_scalar(EXISTING_TYPES).bind(&names).fetch_all(&mut *connection).await?;
        }
        if !prefixes.is_empty() {
            let found: Vec<String> = sqlx::query_scalar(READABLE_TYPES)
                .bind(&prefixes)
                .bind(i64::try_from(TYPES_MAX).unwrap_or(i64::MAX) + 1)
                .fetch_all(connection)
                .await?;
            listed.extend(found);
        }
        listed.sort_unstable();
        listed.dedup();
        Ok(if listed.len() > TYPES_MAX { Self::Many { names, prefixes } } else { Self::Listed(listed) })
    }
}
