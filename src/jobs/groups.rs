//! Upkeep of consumer groups: stored positions follow, old steps are deleted, and metrics are set.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::groups::error::GroupError;
use crate::groups::service::Groups;
use crate::jobs::repeat::repeat;
use crate::metrics::Metrics;
use crate::store::error::StoreError;
use crate::store::primary::Primary;

const PAUSE: Duration = Duration::from_secs(1);
/// The number of passes between two deletions of old steps, and between two measurements.
const DELETE_EVERY: u32 = 10;
/// The largest number of groups that have series of their own.
const SERIES_MAX: usize = 200;

/// Runs until shutdown. Every process of the service runs it.
pub async fn run(groups: Arc<Groups>, primary: Arc<Primary>, metrics: Arc<Metrics>, closing: CancellationToken) {
    let pass = |number: u32| {
        let (groups, primary, metrics) = (&groups, &primary, &metrics);
        async move {
            let maintained = groups.maintain().await;
            let deleted =
                if number.is_multiple_of(DELETE_EVERY) { clean_up(groups, primary, metrics).await } else { Ok(()) };
            match maintained.and(deleted) {
                Ok(())
                | Err(GroupError::Store(
                    StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_) | StoreError::LogMoving,
                )) => {}
                Err(error) => tracing::warn!(%error, "failed to maintain the consumer groups; the next pass continues"),
            }
        }
    };
    repeat(closing, PAUSE, pass).await;
}

async fn clean_up(groups: &Groups, primary: &Primary, metrics: &Metrics) -> Result<(), GroupError> {
    groups.delete_old_steps().await?;
    let listed = primary.groups("", SERIES_MAX).await?;
    let numbers: Vec<i64> = listed.iter().map(|group| group.group_no).collect();
    let counts = primary.count_parked(&numbers).await?;
    metrics.parked_streams.reset();
    for group in &listed {
        let of_group = counts.iter().find(|(group_no, ..)| *group_no == group.group_no);
        let (all, for_good) = of_group.map_or((0, 0), |(_, all, for_good)| (*all, *for_good));
        let series = |retry: &str| metrics.parked_streams.with_label_values(&[group.group_name.as_str(), retry]);
        series("scheduled").set(all - for_good);
        series("operator").set(for_good);
    }
    metrics.open_claims.reset();
    for group in groups.active_groups().iter().take(SERIES_MAX) {
        let open = group.steps().iter().filter(|step| step.claim.number.is_some()).count();
        let series = metrics.open_claims.with_label_values(&[group.name()]);
        series.set(i64::try_from(open).unwrap_or(i64::MAX));
    }
    Ok(())
}
