//! `GET /stats/rates`: the number of events up to each of some times, for charts of events over time.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::event::Position;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::query::{FromQuery, Parameters, Query, round_up_to_micros};
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::http::representation::response::json;
use crate::store::log::rates::{ARCHIVED_GROUPS_MAX, CountError};
use crate::wire::time::format_time;

const BUCKETS_DEFAULT: usize = 60;
const BUCKETS_MAX: usize = 1_000;
/// The span of time without `from`.
const SPAN_DEFAULT: TimeDelta = TimeDelta::hours(24);

/// The events over time.
#[derive(Serialize, ToSchema)]
#[schema(as = Rates)]
pub struct RatesOut {
    #[schema(format = DateTime)]
    from: String,
    #[schema(format = DateTime)]
    to: String,
    /// For each border of the buckets, from `from` to `to`, the last position before it, without the gaps at the starts
    /// of epochs. The difference of two neighbours is the number of events in the bucket between them.
    positions: Vec<Position>,
}

/// The query parameters.
pub struct RatesParameters {
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    buckets: usize,
}

impl FromQuery for RatesParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let from = query.take_time("from")?.map(round_up_to_micros);
        let to = query.take_time("to")?.map(round_up_to_micros);
        let buckets = query.take_number("buckets", 1, BUCKETS_MAX)?.unwrap_or(BUCKETS_DEFAULT);
        query.finish()?;
        Ok(Self { from, to, buckets })
    }
}

/// Get the number of events over time
///
/// The span from `from` (inclusive) to `to` (exclusive) is divided into buckets of equal length. The positions are
/// those of the whole log, also for a key that reads some types only.
#[utoipa::path(get, path = "/stats/rates", operation_id = "read_rates", tag = "operations",
    params(
        ("from" = Option<String>, Query,
            description = "The start of the first bucket (RFC 3339), before `to`. Default: 24 hours before `to`"),
        ("to" = Option<String>, Query,
            description = "The end of the last bucket (RFC 3339). Default: now, or just after the last event if that \
                is later"),
        ("buckets" = Option<u64>, Query, description = "1 to 1000, default 60", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "The positions at the borders of the buckets", body = RatesOut),
        ReadProblems,
    ))]
pub async fn read_rates(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    Parameters(RatesParameters { from, to, buckets }): Parameters<RatesParameters>,
) -> ApiResult<Response> {
    let to = match to {
        Some(to) => to,
        None => end_of_log(&app).await?,
    };
    let from = from.unwrap_or(to - SPAN_DEFAULT);
    if from >= to {
        return Err(ApiError::invalid(FieldError::parameter("from", "must be earlier than to")));
    }
    let borders = borders(from, to, buckets);
    let positions = app.reader().count_events_before(&borders).await.map_err(|error| match error {
        CountError::Store(error) => error.into(),
        CountError::TooManyGroups(groups) => {
            let detail = format!(
                "is too large: the borders are in {groups} parts of archived months, and a request reads \
                 {ARCHIVED_GROUPS_MAX}; ask for fewer buckets or a shorter time"
            );
            ApiError::invalid(FieldError::parameter("buckets", detail))
        }
    })?;
    Ok(json(RatesOut { from: format_time(from), to: format_time(to), positions }))
}

/// Returns the current time, or the time after the last event if that is later: the clock of PostgreSQL may be ahead.
async fn end_of_log(app: &App) -> ApiResult<DateTime<Utc>> {
    let now = round_up_to_micros(app.clock.now());
    let last = app.reader().log_head().await?.occurred_at;
    Ok(last.map_or(now, |last| now.max(last + TimeDelta::microseconds(1))))
}

/// Returns the borders of the buckets, in order.
fn borders(from: DateTime<Utc>, to: DateTime<Utc>, buckets: usize) -> Vec<DateTime<Utc>> {
    let span = i128::from((to - from).num_microseconds().unwrap_or(i64::MAX));
    let border = |n: usize| {
        let micros = span * n as i128 / buckets as i128;
        from + TimeDelta::microseconds(i64::try_from(micros).unwrap_or(i64::MAX))
    };
    (0..=buckets).map(border).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn buckets_have_equal_lengths_and_cover_the_span() {
        let found = borders(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:03Z"), 3);
        assert_eq!(found, ["00", "01", "02", "03"].map(|second| at(&format!("2026-01-01T00:00:{second}Z"))));
        let (from, to) = (at("0001-01-01T00:00:00Z"), at("9998-12-31T23:59:59.999999Z"));
        let found = borders(from, to, BUCKETS_MAX);
        assert_eq!((found.len(), found[0], found[BUCKETS_MAX]), (BUCKETS_MAX + 1, from, to));
        assert!(found.is_sorted());
        // A span can have fewer microseconds than buckets.
        let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:00.000001Z"));
        assert_eq!(borders(from, to, 2), [from, from, to]);
    }
}
