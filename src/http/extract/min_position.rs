//! A read waits until the database that serves it has a position: `min_position`, so that a client reads its own
//! writes, or that of its cursor.

use std::time::Duration;

use tokio::time::Instant;

use crate::app::App;
use crate::domain::cursor::Cursor;
use crate::domain::event::Position;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::http::backoff::Backoff;
use crate::http::extract::query::Query;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::store::error::StoreError;
use crate::store::log::head::LogHead;
use crate::store::reader::Reader;

/// The longest time that a request waits.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Takes `min_position` from the query.
pub fn take_min_position(query: &mut Query) -> ApiResult<Option<Position>> {
    query.take_number("min_position", 0, EXACT_INTEGER_MAX)
}

/// Waits until the database that `reader` reads has a position, if the request has one.
pub async fn wait_for_position(app: &App, reader: &Reader, position: Option<Position>) -> ApiResult<()> {
    let Some(position) = position else { return Ok(()) };
    let mut backoff = Backoff::new(WAIT_MAX, Instant::now() + WAIT_MAX, app.shutdown.soft());
    loop {
        let head = reader.log_head().await?.global_position;
        if head >= position {
            return Ok(());
        }
        if backoff.is_over() {
            return Err(ApiError::position_not_reached(head, position));
        }
        backoff.pause().await?;
    }
}

/// What to do if the read replica is behind a cursor that the primary has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfBehind {
    /// Wait for the replica.
    Wait,
    /// Return the head of the primary.
    UsePrimary,
}

/// Returns the head of the log if it contains a cursor. A read replica may be behind a cursor that another process has
/// returned.
pub async fn head_for_cursor(app: &App, cursor: Cursor, if_behind: IfBehind) -> ApiResult<LogHead> {
    let mut backoff = Backoff::new(WAIT_MAX, Instant::now() + WAIT_MAX, app.shutdown.soft());
    let mut is_checked = false;
    loop {
        let behind = match app.reader.log_head_for(cursor).await {
            Err(StoreError::Behind(head)) => head,
            head => return Ok(head?),
        };
        if !is_checked {
            match app.primary.log_head_for(cursor).await {
                Ok(head) if if_behind == IfBehind::UsePrimary => return Ok(head),
                // Without the primary, only the replica knows the log.
                Ok(_) | Err(StoreError::Unavailable(_)) => is_checked = true,
                Err(error) => return Err(error.into()),
            }
        }
        if backoff.is_over() {
            return Err(ApiError::replica_behind(behind));
        }
        backoff.pause().await?;
    }
}
