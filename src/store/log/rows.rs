//! Delivers the rows of a statement that lists events of the log, in either direction.
//!
//! A read never steps over an event: it ends before the first position that is not the expected one.

use futures_util::TryStreamExt;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;

use crate::domain::event::Position;
use crate::store::connection::session::Session;
use crate::store::log::scan::{PageBudget, Scan};
use crate::store::row::{Deliver, event_from_row};

/// Which positions the rows of a statement must have.
pub(super) enum Expected {
    Any,
    /// Consecutive ones, beginning with `first` if that is known.
    Consecutive {
        first: Option<Position>,
    },
}

/// Runs a statement that lists events in the order of the scan, and delivers them up to the first unexpected gap.
/// Returns the number of rows; `None` if the first row is not the expected one.
pub(super) async fn deliver_rows<S: Scan>(
    connection: &mut Session,
    query: Query<'_, Postgres, PgArguments>,
    expected: Expected,
    scan: &mut S,
    budget: &mut PageBudget,
    deliver: Deliver<'_>,
) -> Result<Option<i64>, sqlx::Error> {
    let (mut events, mut bytes) = (0, 0);
    let (is_consecutive, mut next) = match expected {
        Expected::Any => (false, None),
        Expected::Consecutive { first } => (true, first),
    };
    let mut rows = query.fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let event = event_from_row(&row)?;
        if next.is_some_and(|next| event.global_position != next) {
            if events == 0 {
                return Ok(None);
            }
            break;
        }
        next = is_consecutive.then_some(event.global_position + S::STEP);
        scan.advance(&event);
        events += 1;
        bytes += event.payload_bytes();
        if scan.filter().has_stream(event.aggregate_type, event.aggregate_id) && budget.deliver(&event, deliver) {
            break;
        }
    }
    if events > 0 {
        scan.fetch_size().adjust(events, bytes);
    }
    Ok(Some(events))
}
