//! Whether an append would be written now, as the writer knows it.
//!
//! The writer learns it from each append, and from a check of its own while it has none. The check writes: a full disk,
//! a server that became read-only and a missing synchronous standby are seen by writing alone.

use tokio::sync::watch;

/// The last result of the writer.
#[derive(Debug)]
pub struct WriterHealth(watch::Sender<WriterState>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum WriterState {
    NotChecked,
    Works,
    Fails(String),
}

impl Default for WriterHealth {
    fn default() -> Self {
        Self(watch::Sender::new(WriterState::NotChecked))
    }
}

impl WriterHealth {
    /// Returns the reason why an append would fail.
    pub(super) fn check(&self) -> Result<(), String> {
        match &*self.0.borrow() {
            WriterState::Works => Ok(()),
            WriterState::NotChecked => Err("is connecting to the database".to_owned()),
            WriterState::Fails(reason) => Err(reason.clone()),
        }
    }

    /// Waits until the writer has a first result.
    pub(super) async fn first_result(&self) {
        // The sender is not dropped while it is borrowed here.
        drop(self.0.subscribe().wait_for(|state| *state != WriterState::NotChecked).await);
    }

    /// Records a success. Logs the end of an outage.
    pub(super) fn record_success(&self) {
        self.0.send_if_modified(|state| {
            let before = std::mem::replace(state, WriterState::Works);
            if matches!(before, WriterState::Fails(_)) {
                tracing::info!("appends are written again");
            }
            before != WriterState::Works
        });
    }

    /// Records a failure. Returns whether the writer has worked until now.
    pub(super) fn record_failure(&self, reason: String) -> bool {
        !matches!(self.0.send_replace(WriterState::Fails(reason)), WriterState::Fails(_))
    }
}
