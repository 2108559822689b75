//! Shutdown in two stages.
//!
//! Soft (SIGTERM, Ctrl-C): readiness says no, no connection is accepted and no append taken any more; what is in flight
//! is answered. Hard (a second signal, or the soft stage taking too long): what is still open is dropped.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the soft stage may take.
pub const SOFT_STAGE_MAX: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
    /// A task panicked: the end is not orderly, whatever else.
    failed: Arc<AtomicBool>,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the soft stage begins.
    pub fn soft(&self) -> CancellationToken {
        self.soft.clone()
    }

    pub fn has_begun(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Begins the soft stage.
    pub fn begin(&self) {
        self.soft.cancel();
    }

    /// Drops what is still open.
    pub fn force(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Runs a task that ends by itself after the soft stage began. Without it the process is of no use: a panic in it
    /// begins the shutdown, and whoever supervises the process starts a new one.
    pub fn track(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.clone();
        self.tasks.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!("a task panicked: shutting down");
                shutdown.failed.store(true, Ordering::SeqCst);
                shutdown.begin();
            }
        });
    }

    /// Waits for `serving` and for all tracked tasks, or for the hard stage; whether everything ended by itself,
    /// and nothing panicked.
    pub async fn finish(&self, serving: impl Future<Output = ()>) -> bool {
        self.tasks.close();
        let all = async {
            serving.await;
            self.tasks.wait().await;
        };
        let late = async {
            self.soft.cancelled().await;
            tokio::time::sleep(SOFT_STAGE_MAX).await;
        };
        tokio::select! {
            () = all => !self.failed.load(Ordering::SeqCst),
            () = self.hard.cancelled() => false,
            () = late => false,
        }
    }

    /// Begins the soft stage on SIGTERM or SIGINT, the hard one on the second.
    pub fn on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if shutdown.has_begun() {
                    tracing::warn!("a second signal: dropping what is still open");
                    shutdown.force();
                } else {
                    tracing::info!("shutting down: finishing what is in flight (a second signal stops at once)");
                    shutdown.begin();
                }
            }
        });
        Ok(())
    }
}
