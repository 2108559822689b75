//! Shutdown in two stages.
//!
//! Soft (SIGTERM, Ctrl-C): `/readyz` fails, the service accepts no more connections and appends, and requests in
//! progress get their responses. Hard (a second signal, or a long soft stage): open connections are dropped.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The longest time of the soft stage.
pub const SOFT_STAGE_MAX: Duration = Duration::from_secs(20);

/// The state of the shutdown. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
    /// A task has panicked, so the exit status is 1.
    failed: Arc<AtomicBool>,
}

impl Shutdown {
    /// Creates the state of a process that runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a token that is cancelled when the soft stage begins.
    pub fn soft(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Returns whether the soft stage has begun.
    pub fn has_begun(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Begins the soft stage.
    pub fn begin(&self) {
        self.soft.cancel();
    }

    /// Begins the hard stage.
    pub fn force(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Runs a task that ends by itself after the soft stage has begun. The process is useless without the task: a panic
    /// begins the shutdown, and a supervisor then starts a new process.
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

    /// Waits for `serving` and for all tracked tasks, or for the hard stage. Returns whether all ended by themselves,
    /// without a panic.
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
                    tracing::warn!("received a second signal: dropping open connections");
                    shutdown.force();
                } else {
                    tracing::info!("shutting down: completing requests in progress (a second signal stops at once)");
                    shutdown.begin();
                }
            }
        });
        Ok(())
    }
}
