//! Delivers the rows of a statement that lists events of the log, in either direction.
//!
//! A read never steps over an event: it ends before the first position that is not the expected one.

use futures_util::TryStreamExt;
use sqlx::Row;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;

use crate::domain::event::Position;
use crate::store::connection::session::Session;
use crate::store::log::scan::{PageBudget, Scan};
use crate::store::partitions::catalogue::Catalogue;
use crate::store::row::{Deliver, event_from_row};

/// The column after those of the event.
const CATALOGUE_CHANGES: usize = 11;

/// Runs a statement that lists all events of a part of the log, in the order of the scan, and delivers them up to the
/// first gap in their positions. Returns the number of rows; `None` if the first row is not that of the position `first`,
/// if one is given.
pub(super) async fn deliver_consecutive<S: Scan>(
    connection: &mut Session,
    query: Query<'_, Postgres, PgArguments>,
    first: Option<Position>,
    scan: &mut S,
    budget: &mut PageBudget,
    deliver: Deliver<'_>,
) -> Result<Option<usize>, sqlx::Error> {
    let (mut events, mut bytes, mut next) = (0, 0, first);
    let mut rows = query.fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let event = event_from_row(&row)?;
        if next.is_some_and(|next| event.global_position != next) {
            if events == 0 {
                return Ok(None);
            }
            break;
        }
        next = Some(event.global_position + S::STEP);
        scan.advance(&event);
        events += 1;
        bytes += event.approximate_bytes();
        if budget.deliver(&event, deliver) {
            break;
        }
    }
    scan.fetch_size().adjust(events, bytes);
    Ok(Some(events))
}

/// Runs a statement that lists matching events in the order of the scan, and delivers them. Returns the number of rows;
/// `None` if partitions have changed since the catalogue was read, and nothing was delivered.
pub(super) async fn deliver_matches<S: Scan>(
    connection: &mut Session,
    query: Query<'_, Postgres, PgArguments>,
    catalogue: &Catalogue,
    scan: &mut S,
    budget: &mut PageBudget,
    deliver: Deliver<'_>,
) -> Result<Option<usize>, sqlx::Error> {
    let (mut events, mut bytes) = (0, 0);
    let mut rows = query.fetch(connection);
    while let Some(row) = rows.try_next().await? {
        // All rows are of one snapshot.
        if events == 0 && !catalogue.is_current(row.try_get_unchecked(CATALOGUE_CHANGES)?) {
            return Ok(None);
        }
        let event = event_from_row(&row)?;
        scan.advance(&event);
        events += 1;
        bytes += event.approximate_bytes();
        // The statements compare the types that the reader may see, except for events with a correlation id.
        if scan.filter().may_see(event.aggregate_type) && budget.deliver(&event, deliver) {
            break;
        }
    }
    scan.fetch_size().adjust(events, bytes);
    Ok(Some(events))
}
