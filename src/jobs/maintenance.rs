//! The maintenance task: keeps months ahead, rolls up those that are over, refreshes what is known of the log, and archives
//! what is old, if that is wanted.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::repeat;
use crate::app::App;
use crate::store::archive::{Archiver, ArchivingError};
use crate::store::error::StoreError;

/// How often it looks. An append that finds no month makes it itself, so nothing depends on this.
const PAUSE: Duration = Duration::from_secs(60);

/// Runs until shutdown.
pub async fn run(app: Arc<App>) {
    let pass = |number| {
        let app = &app;
        async move {
            if let Err(error) = pass(app, number).await {
                tracing::warn!(%error, "maintenance could not finish; it tries again later");
            }
        }
    };
    repeat(&app, PAUSE, pass).await;
}

async fn pass(app: &App, number: u32) -> Result<(), StoreError> {
    // The first time it was done before anything was served.
    if number > 0 {
        app.store.keep_months().await?;
    }
    app.metrics.maintenance_last_success_timestamp_seconds.set(app.clock.now().timestamp());
    if let Some(after) = app.settings.archive_after {
        archive_what_is_old(app, after).await;
    }
    let months = app.store.months().await?;
    let last = app.store.log_head().await?.occurred_at.unwrap_or_default().max(app.clock.now());
    let ahead = months.iter().filter(|month| month.starts_at > last).count();
    app.metrics.months_ahead.set(i64::try_from(ahead).unwrap_or(i64::MAX));
    let archived = months.iter().filter(|month| month.archived_at.is_some()).count();
    app.metrics.archived_months.set(i64::try_from(archived).unwrap_or(i64::MAX));
    Ok(())
}

async fn archive_what_is_old(app: &App, after: Duration) {
    match archive(app, after).await {
        Ok(()) => {}
        // It is not this process's turn, or not yet the month's.
        Err(
            waiting @ (ArchivingError::Busy
            | ArchivingError::ProjectionsBehind(_)
            | ArchivingError::NotCounted(_)
            | ArchivingError::StillUsed(_)),
        ) => tracing::info!(%waiting, "a month that is old enough is not archived yet"),
        Err(error) => {
            app.metrics.archive_failures.inc();
            tracing::warn!(%error, "a month that is old enough was not archived; it is tried again later");
        }
    }
}

/// Archives the months that have been over for so long.
async fn archive(app: &App, after: Duration) -> Result<(), ArchivingError> {
    let mut archiver = app.store.archiver().await?;
    let archived = archive_with(&mut archiver, app.clock.now() - after).await;
    archiver.close().await?;
    archived
}

async fn archive_with(archiver: &mut Archiver, before: DateTime<Utc>) -> Result<(), ArchivingError> {
    let plan = archiver.plan(before, false).await?;
    for month in &plan.leftovers {
        archiver.remove(month).await?;
    }
    for month in &plan.months {
        let manifest = archiver.archive(month, &|_| {}).await?;
        tracing::info!(month = month.name, events = manifest.events, "archived a month");
    }
    Ok(())
}
