//! Compares the clock of PostgreSQL, which gives events their times, with that of the service.
//!
//! Times never decrease along the log. If PostgreSQL's clock was ahead for a while, every later event gets the time of
//! the last one until the clock has caught up. A wrong clock is reported before that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::jobs::repeat::repeat;
use crate::metrics::Metrics;
use crate::store::log::clocks::ClockComparison;
use crate::store::primary::Primary;

const PAUSE: Duration = Duration::from_secs(10);

/// Runs until shutdown. Logs one line when a difference begins, and one when it ends.
pub async fn run(primary: Arc<Primary>, metrics: Arc<Metrics>, closing: CancellationToken) {
    let was_reported = AtomicBool::new(false);
    let pass = |_| async {
        let compared = match primary.compare_clocks().await {
            Ok(compared) => compared,
            Err(error) => {
                tracing::debug!(%error, "failed to compare the clocks");
                return;
            }
        };
        let ClockComparison { database_ahead, log_ahead } = compared;
        metrics.database_clock_ahead_seconds.set(database_ahead.as_seconds_f64());
        metrics.log_ahead_seconds.set(log_ahead.as_seconds_f64());
        let is_wrong = compared.is_wrong();
        let (database_ahead_seconds, log_ahead_seconds) = (database_ahead.num_seconds(), log_ahead.num_seconds());
        if is_wrong != was_reported.swap(is_wrong, Ordering::Relaxed) {
            if is_wrong {
                tracing::warn!(
                    database_ahead_seconds,
                    log_ahead_seconds,
                    "the clock of PostgreSQL or the last event differs from the clock of the service: check both clocks"
                );
            } else {
                tracing::info!("the clocks of PostgreSQL and of the service agree again");
            }
        }
    };
    repeat(closing, PAUSE, pass).await;
}
