//! The position that the database of a read must have: `min_position`, or that of a cursor.

use tokio::time::Instant;

use crate::app::App;
use crate::domain::cursor::{Cursor, ParseCursorError};
use crate::http::backoff::Backoff;
use crate::http::extract::query::Query;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::store::error::StoreError;
use crate::store::log::head::LogHead;
use crate::store::reader::Reader;
use crate::store::required_position::WAIT_MAX;

/// Takes `min_position` from the query: a position, or an epoch and a position.
pub fn take_min_position(query: &mut Query) -> ApiResult<Option<Cursor>> {
    let Some(position) = query.take("min_position")? else { return Ok(None) };
    let invalid = |fault: ParseCursorError| FieldError::parameter("min_position", fault.to_string());
    position.parse().map(Some).map_err(|fault| ApiError::invalid(invalid(fault)))
}

/// Returns the head of the log if it contains a cursor. A read replica may be behind a cursor that another process has
/// returned.
pub async fn head_for_cursor(app: &App, reader: &Reader, cursor: Cursor) -> ApiResult<LogHead> {
    let mut backoff = Backoff::new(WAIT_MAX, Instant::now() + WAIT_MAX, app.shutdown.soft());
    let mut is_checked = false;
    loop {
        let behind = match reader.log_head_for(cursor).await {
            Err(StoreError::Behind(head)) => head,
            head => return Ok(head?),
        };
        if !is_checked {
            match app.primary.log_head_for(cursor).await {
                // Without the primary, only the replica knows the log.
                Ok(_) | Err(StoreError::Unavailable(_)) => is_checked = true,
                // A standby has shown the position, and the primary waits for another one.
                Err(StoreError::Behind(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if backoff.is_over() {
            return Err(ApiError::replica_behind(behind));
        }
        backoff.pause().await?;
    }
}
