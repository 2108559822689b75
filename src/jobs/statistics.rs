//! Counts the events of the log, so that statistics of millions of events read a few rows. It also measures the tables
//! for `/metrics`, which never uses the database itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::jobs::repeat::repeat;
use crate::metrics::Metrics;
use crate::store::error::StoreError;
use crate::store::primary::Primary;

const PAUSE: Duration = Duration::from_secs(5);
/// The number of passes between two measurements of the tables.
const MEASURE_EVERY: u32 = 6;

/// Runs until shutdown. Several processes may run it, and one of them counts at a time.
pub async fn run(primary: Arc<Primary>, metrics: Arc<Metrics>, closing: CancellationToken) {
    let pass = |number: u32| {
        let (primary, metrics) = (&primary, &metrics);
        async move {
            let counted = count(primary).await;
            let measured = if number.is_multiple_of(MEASURE_EVERY) { measure(primary, metrics).await } else { Ok(()) };
            if let Err(error) = counted.and(measured) {
                tracing::warn!(%error, "failed to count the log or to measure the tables; the next pass continues");
            }
        }
    };
    repeat(closing, PAUSE, pass).await;
}

/// Counts to the head of the log.
async fn count(primary: &Primary) -> Result<(), StoreError> {
    primary.count_all_events().await
}

/// Measures the tables. All partitions of `events` count as one table: their number grows every month, and the number
/// of series must not.
async fn measure(primary: &Primary, metrics: &Metrics) -> Result<(), StoreError> {
    let mut sizes = BTreeMap::<_, i64>::new();
    for size in primary.table_sizes().await? {
        let table = if size.is_partition { "events".to_owned() } else { size.name };
        for (part, bytes) in [("heap", size.heap_bytes), ("index", size.index_bytes), ("toast", size.toast_bytes)] {
            *sizes.entry((table.clone(), part)).or_default() += bytes;
        }
    }
    for ((table, part), bytes) in sizes {
        metrics.table_size_bytes.with_label_values(&[table.as_str(), part]).set(bytes);
    }
    Ok(())
}
