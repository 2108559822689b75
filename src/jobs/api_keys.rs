//! Refreshes the cached API keys, and records when they were used. It is a job of its own, so that no other slow work
//! delays a revocation.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::jobs::repeat::repeat;
use crate::keyring::Keyring;
use crate::store::primary::Primary;

const PAUSE: Duration = Duration::from_secs(5);
/// The number of passes between two records of the use of keys: a minute.
const RECORD_EVERY: u32 = 12;

/// Runs until shutdown.
pub async fn run(keyring: Arc<Keyring>, primary: Arc<Primary>, closing: CancellationToken) {
    let pass = |number: u32| {
        let (keyring, primary) = (&keyring, &primary);
        async move {
            if let Err(error) = keyring.refresh(primary).await {
                tracing::warn!(%error, "failed to read the API keys; cached keys are valid for 45 s");
            }
            let used = if number % RECORD_EVERY == RECORD_EVERY - 1 { keyring.take_used() } else { Vec::new() };
            if !used.is_empty()
                && let Err(error) = primary.record_key_use(&used).await
            {
                tracing::warn!(%error, "failed to record the use of API keys");
            }
        }
    };
    repeat(closing, PAUSE, pass).await;
}
