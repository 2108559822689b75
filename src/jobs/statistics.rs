//! Counts along the log, so that an answer about millions of events is a look at a few rows; and measures the tables, for
//! `/metrics`, which never touches the database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::repeat;
use crate::app::App;
use crate::store::error::StoreError;

const PAUSE: Duration = Duration::from_secs(5);
/// Counting passes between two measurements of the tables.
const MEASURE_EVERY: u32 = 6;

/// Runs until shutdown. Several replicas may: one counts at a time.
pub async fn run(app: Arc<App>) {
    let pass = |number| {
        let app = &app;
        async move {
            if let Err(error) = pass(app, number).await {
                tracing::warn!(%error, "the log could not be counted; the next pass goes on");
            }
        }
    };
    repeat(&app, PAUSE, pass).await;
}

async fn pass(app: &App, number: u32) -> Result<(), StoreError> {
    app.store.count_all_events().await?;
    if number.is_multiple_of(MEASURE_EVERY) {
        measure(app).await?;
    }
    Ok(())
}

/// Months are one table here: their number grows for ever, that of series must not.
async fn measure(app: &App) -> Result<(), StoreError> {
    let mut sizes = BTreeMap::<_, i64>::new();
    for size in app.store.table_sizes().await? {
        let table = if size.is_month { "events".to_owned() } else { size.name };
        for (part, bytes) in [("heap", size.heap_bytes), ("index", size.index_bytes), ("toast", size.toast_bytes)] {
            *sizes.entry((table.clone(), part)).or_default() += bytes;
        }
    }
    for ((table, part), bytes) in sizes {
        app.metrics.table_size_bytes.with_label_values(&[table.as_str(), part]).set(bytes);
    }
    Ok(())
}
