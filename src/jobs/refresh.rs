//! What a process knows of the database and cannot notice by itself: how far each projection is behind, for `/metrics`,
//! which never touches the database; reducers that another replica has replaced; and API keys.

use std::sync::Arc;
use std::time::Duration;

use super::repeat;
use crate::app::App;
use crate::store::error::StoreError;

const PAUSE: Duration = Duration::from_secs(5);
/// Projections that have a series of their own; the first by name, so that they stay the same.
const PROJECTIONS_MAX: usize = 200;

/// Runs until shutdown. While the database is away the series keep their last values; `/readyz` says why.
pub async fn run(app: Arc<App>) {
    let pass = |_| {
        let app = &app;
        async move {
            if let Err(error) = refresh(app).await {
                tracing::debug!(%error, "what others have changed could not be read");
            }
        }
    };
    repeat(&app, PAUSE, pass).await;
}

/// Reads the API keys again, by itself: nothing else that hangs may keep a revoked key alive.
pub async fn keys(app: Arc<App>) {
    let pass = |_| {
        let app = &app;
        async move {
            if let Err(error) = app.keyring.refresh(&app.store).await {
                tracing::warn!(%error, "the API keys could not be read");
            }
        }
    };
    repeat(&app, PAUSE, pass).await;
}

async fn refresh(app: &App) -> Result<(), StoreError> {
    app.snapshotter.refresh().await?;
    let projections = app.store.projections().await?;
    let head = app.store.log_head().await?.global_position;
    if !Arc::ptr_eq(&app.store, &app.reads) {
        let replica = app.reads.log_head().await?.global_position;
        app.metrics.replica_lag_events.set((head - replica).max(0));
    }
    let lags = &app.metrics.projection_lag_events;
    // One that was deleted has no lag.
    lags.reset();
    for projection in projections.iter().take(PROJECTIONS_MAX) {
        lags.with_label_values(&[&projection.projection_name]).set(projection.lag(head));
    }
    Ok(())
}
