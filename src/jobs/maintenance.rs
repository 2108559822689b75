//! The maintenance task: keeps months ahead, rolls up those that are over, and refreshes what is known of the log.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;

/// How often it looks. An append that finds no month makes it itself, so nothing depends on this.
const PAUSE: Duration = Duration::from_secs(300);

/// Runs until shutdown; the first pass was made when the store was opened.
pub async fn run(app: Arc<App>) {
    let soft = app.shutdown.soft();
    while soft.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
        if let Some(Err(error)) = soft.run_until_cancelled(app.store.keep_months()).await {
            tracing::warn!(%error, "maintenance could not finish; it tries again later");
        }
    }
}
