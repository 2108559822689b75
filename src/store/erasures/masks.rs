//! Masks: the erased content of archived events whose files still have it.

use std::collections::HashMap;

use crate::domain::erasure::ErasedContent;
use crate::domain::event::Position;
use crate::store::connection::session::Session;

const ARCHIVED_ERASED_EVENTS: &str = include_str!("../sql/archived_erased_events.sql");

/// The erased content by the positions of the events.
#[derive(Debug, Default)]
pub(in crate::store) struct Masks(HashMap<Position, ErasedContent>);

impl Masks {
    /// Reads the erased events of archived partitions whose files were not written again since.
    pub(in crate::store) async fn read(connection: &mut Session) -> Result<Self, sqlx::Error> {
        let rows: Vec<(Position, Option<Vec<String>>)> =
            sqlx::query_as(ARCHIVED_ERASED_EVENTS).fetch_all(connection).await?;
        let mut masks = HashMap::<_, ErasedContent>::with_capacity(rows.len());
        for (position, members) in rows {
            let content =
                ErasedContent::parse(members.as_deref()).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            match masks.get_mut(&position) {
                Some(known) => known.add(content),
                None => drop(masks.insert(position, content)),
            }
        }
        Ok(Self(masks))
    }

    /// Returns whether nothing is masked.
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the erased content by position.
    pub(in crate::store) fn by_position(&self) -> &HashMap<Position, ErasedContent> {
        &self.0
    }
}
