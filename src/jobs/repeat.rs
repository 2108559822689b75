//! Repeats a pass with pauses.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Runs passes, from number 0 on, with a pause after each, until `closing` is cancelled.
pub(super) async fn repeat<F: Future<Output = ()>>(
    closing: CancellationToken,
    pause: Duration,
    mut pass: impl FnMut(u32) -> F,
) {
    let passes = async {
        for number in 0.. {
            pass(number).await;
            tokio::time::sleep(pause).await;
        }
    };
    closing.run_until_cancelled(passes).await;
}
