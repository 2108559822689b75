//! Decodes an event from a row, and delivers it.

use std::ops::ControlFlow;

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::domain::event::StoredEvent;
use crate::store::jsonb::JsonbText;

/// Receives the events of a read, one after the other, and may stop the read. It is a trait object, because each read would
/// otherwise be compiled once for each of its callers.
pub(super) type Deliver<'d> = &'d mut (dyn FnMut(&StoredEvent<'_>) -> ControlFlow<()> + Send);

/// Decodes an event from a row of any statement that returns events.
///
/// All such statements have the same columns in the same order, so the types are not checked for every event.
pub(super) fn event_from_row(row: &PgRow) -> Result<StoredEvent<'_>, sqlx::Error> {
    let metadata: Option<JsonbText<'_>> = row.try_get_unchecked(7)?;
    Ok(StoredEvent {
        event_id: row.try_get_unchecked(0)?,
        aggregate_type: row.try_get_unchecked(1)?,
        aggregate_id: row.try_get_unchecked(2)?,
        version: row.try_get_unchecked(3)?,
        global_position: row.try_get_unchecked(4)?,
        event_type: row.try_get_unchecked(5)?,
        event_data: row.try_get_unchecked::<JsonbText<'_>, _>(6)?.0,
        metadata: metadata.map(|document| document.0),
        occurred_at: row.try_get_unchecked(8)?,
        correlation_id: row.try_get_unchecked(9)?,
        causation_id: row.try_get_unchecked(10)?,
    })
}
