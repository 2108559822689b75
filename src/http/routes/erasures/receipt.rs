//! The receipt of an erasure.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::access::Scope;
use crate::domain::erasure::ErasureNo;
use crate::domain::event::Position;
use crate::erasures::service::ErasurePreview;
use crate::http::caller::Caller;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::store::erasures::receipts::{Erasure, ErasureMonth};
use crate::store::error::StoreError;
use crate::wire::time::format_time;

/// A single event may be in the caches of clients for this time (`http/cache.rs`).
const CACHED_FOR: TimeDelta = TimeDelta::days(1);

/// What an erasure does not reach.
const REMAINS: [&str; 3] =
    ["backups and WAL archives from before removed_at", "exports", "copies that subscribers stored"];

/// The receipt of an erasure.
#[derive(Serialize, ToSchema)]
#[schema(as = ErasureReceipt)]
pub struct ErasureOut {
    /// Null in the response to a dry run, and if no event has the named content.
    erasure: Option<ErasureNo>,
    reason: String,
    #[schema(format = DateTime)]
    requested_at: Option<String>,
    /// The id of the API key; null if keys were not required.
    requested_by: Option<String>,
    /// The position of the last `$erased` event.
    global_position: Option<Position>,
    /// The number of events of which this erasure has erased content.
    events: i64,
    streams: i64,
    /// The number of snapshots that were deleted.
    snapshots: i64,
    /// Since then, no request to the service is answered with the content.
    #[schema(format = DateTime)]
    hidden_at: Option<String>,
    /// Since then, no file of the tables and of the archive has the content.
    #[schema(format = DateTime)]
    removed_at: Option<String>,
    months: Vec<ErasureMonthOut>,
    /// Caches of clients may have single events until then.
    #[schema(format = DateTime)]
    clients_may_keep_until: Option<String>,
    /// All projections, and whether each has passed the `$erased` events.
    projections: Vec<ErasureProjectionOut>,
    /// What the erasure does not reach.
    remains: [&'static str; 3],
}

/// A month with erased events.
#[derive(Serialize, ToSchema)]
#[schema(as = ErasureMonth)]
pub struct ErasureMonthOut {
    #[schema(example = "2026-11")]
    month: String,
    events: i32,
    /// The month was archived when its events were erased.
    archived: bool,
    #[schema(format = DateTime)]
    removed_at: Option<String>,
}

/// A projection, as an erasure sees it.
#[derive(Serialize, ToSchema)]
#[schema(as = ErasureProjection)]
pub struct ErasureProjectionOut {
    projection_name: String,
    last_processed_position: Position,
    /// It has processed the last `$erased` event.
    has_passed: bool,
}

/// The projections and their positions.
pub(super) struct Projections(Vec<(String, Position)>);

impl Projections {
    /// Reads the positions of all projections.
    pub(super) async fn read(app: &App) -> Result<Self, StoreError> {
        Ok(Self(app.primary.all_projection_positions().await?))
    }

    fn after(&self, announced: Option<Position>) -> Vec<ErasureProjectionOut> {
        let projection = |(name, position): &(String, Position)| ErasureProjectionOut {
            projection_name: name.clone(),
            last_processed_position: *position,
            has_passed: announced.is_some_and(|announced| *position >= announced),
        };
        self.0.iter().map(projection).collect()
    }
}

impl ErasureOut {
    /// Returns the receipt of a stored erasure.
    pub(super) fn new(erasure: Erasure, projections: &Projections) -> Self {
        Self {
            erasure: Some(erasure.erasure),
            reason: erasure.reason,
            requested_at: Some(format_time(erasure.requested_at)),
            requested_by: erasure.requested_by,
            global_position: erasure.announced_position,
            events: erasure.events.into(),
            streams: erasure.streams.into(),
            snapshots: erasure.snapshots.into(),
            hidden_at: erasure.hidden_at.map(format_time),
            removed_at: erasure.removed_at.map(format_time),
            months: erasure.months.into_iter().map(ErasureMonthOut::from).collect(),
            clients_may_keep_until: erasure.hidden_at.map(|hidden_at| format_time(hidden_at + CACHED_FOR)),
            projections: projections.after(erasure.announced_position),
            remains: REMAINS,
        }
    }

    /// Returns the receipt of an erasure that does not exist: what it would erase, or that there is nothing to erase.
    pub(super) fn unwritten(
        reason: String,
        requested_by: Option<String>,
        now: DateTime<Utc>,
        preview: ErasurePreview,
        projections: &Projections,
    ) -> Self {
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            erasure: None,
            reason,
            requested_at: Some(format_time(now)),
            requested_by,
            global_position: None,
            events: number(preview.events),
            streams: number(preview.streams),
            snapshots: preview.snapshots,
            hidden_at: None,
            removed_at: None,
            months: preview.months.into_iter().map(ErasureMonthOut::from).collect(),
            clients_may_keep_until: None,
            projections: projections.after(None),
            remains: REMAINS,
        }
    }
}

impl From<ErasureMonth> for ErasureMonthOut {
    fn from(month: ErasureMonth) -> Self {
        Self {
            month: month.starts_at.format("%Y-%m").to_string(),
            events: month.events,
            archived: month.archived,
            removed_at: month.removed_at.map(format_time),
        }
    }
}

/// Returns whether the caller may administer every type of an erasure.
pub(super) fn may_read(caller: &Caller, erasure: &Erasure) -> bool {
    erasure.aggregate_types.iter().all(|aggregate_type| caller.may(Scope::Admin, aggregate_type))
}

/// Fails unless the caller may administer every type of an erasure. The error does not name the types.
pub(super) fn check_may_read(caller: &Caller, erasure: &Erasure) -> ApiResult<()> {
    if may_read(caller, erasure) {
        return Ok(());
    }
    Err(ApiError::forbidden(Scope::Admin, "every type of the erasure"))
}
