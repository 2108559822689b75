//! Reads of the log in order: positions 1, 2, 3 …, over all months.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;

use super::error::StoreError;
use super::months::{self, LogHead};
use super::{BEGINNING_OF_TIME, Store, StoredEvent};
use crate::domain::event::Position;

/// Rows asked for in one statement.
const CHUNK_ROWS: i64 = 500;

const LOG_EVENTS: &str = include_str!("sql/log_events.sql");
const LOG_EVENTS_OF_TYPE: &str = include_str!("sql/log_events_of_type.sql");

/// How far a read of the log has come.
#[derive(Debug, Clone, Copy)]
pub struct LogCursor {
    after: Position,
    /// Nothing before this time can still come, since times never go backwards along the log: it bounds the months.
    earliest: DateTime<Utc>,
    /// Whether everything was read, up to the position that was asked for.
    pub at_end: bool,
}

impl LogCursor {
    pub fn beginning() -> Self {
        Self { after: 0, earliest: BEGINNING_OF_TIME, at_end: false }
    }
}

impl Store {
    /// The last event of the log; `None` while it is empty.
    pub async fn log_head(&self) -> Result<Option<LogHead>, StoreError> {
        let mut connection = self.acquire().await?;
        let head = months::head(&mut connection, self.open_from()).await?;
        self.saw_position(head.map(|head| head.global_position));
        Ok(head)
    }

    /// Reads on from `cursor`, up to the position `to`: hands events to `take`, in order, all of them or those of one
    /// type, until it breaks off or a chunk is through.
    pub async fn read_log(
        &self,
        cursor: &mut LogCursor,
        to: Position,
        aggregate_type: Option<&str>,
        mut take: impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let statement = if aggregate_type.is_some() { LOG_EVENTS_OF_TYPE } else { LOG_EVENTS };
        let query = sqlx::query(statement).bind(cursor.after).bind(to).bind(cursor.earliest).bind(CHUNK_ROWS);
        let query = if aggregate_type.is_some() { query.bind(aggregate_type) } else { query };
        let mut connection = self.acquire().await?;
        let mut rows = query.fetch(&mut *connection);
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            let event = StoredEvent::from_row(&row)?;
            (cursor.after, cursor.earliest) = (event.global_position, event.occurred_at);
            count += 1;
            if take(&event).is_break() {
                return Ok(());
            }
        }
        cursor.at_end = count < CHUNK_ROWS;
        Ok(())
    }
}
