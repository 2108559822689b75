//! `min_position`: a read waits until the database that serves it has this position, so that a client reads its own
//! writes.

use std::time::Duration;

use tokio::time::Instant;

use crate::app::App;
use crate::domain::event::Position;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::http::backoff::Backoff;
use crate::http::extract::query::Query;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::store::reader::Reader;

/// The longest time that a request waits for the position.
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
