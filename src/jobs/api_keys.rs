//! Refreshes the cached API keys. It is a job of its own, so that no other slow work delays a revocation.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::jobs::repeat::repeat;
use crate::keyring::Keyring;
use crate::store::primary::Primary;

const PAUSE: Duration = Duration::from_secs(5);

/// Runs until shutdown.
pub async fn run(keyring: Arc<Keyring>, primary: Arc<Primary>, closing: CancellationToken) {
    let pass = |_| async {
        if let Err(error) = keyring.refresh(&primary).await {
            tracing::warn!(%error, "failed to read the API keys; cached keys are valid for 45 s");
        }
    };
    repeat(closing, PAUSE, pass).await;
}
