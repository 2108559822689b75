//! The position that each database must have which a request reads: `min_position`, so that a client reads its own writes.
//!
//! Several databases may be behind one address, such as read replicas behind a proxy. Each connection reads one of them,
//! so the position is compared on each connection, before the statement that reads.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::cursor::Cursor;

/// The longest time that a request waits for a database to have its position.
pub const WAIT_MAX: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

tokio::task_local! {
    static REQUIRED: RequiredPosition;
}

/// A position, and until when the request waits for it.
#[derive(Debug, Clone, Copy)]
pub struct RequiredPosition {
    pub(super) cursor: Cursor,
    deadline: Instant,
}

impl RequiredPosition {
    /// Runs a future whose reads use only databases that have a position. Tasks that it spawns do not inherit this.
    pub async fn scope<F: Future>(cursor: Option<Cursor>, future: F) -> F::Output {
        match cursor {
            Some(cursor) => REQUIRED.scope(Self { cursor, deadline: Instant::now() + WAIT_MAX }, future).await,
            None => future.await,
        }
    }

    /// Returns a requirement that every database meets, with the usual time limit.
    pub(super) fn beginning() -> Self {
        Self { cursor: Cursor { epoch: None, position: 0 }, deadline: Instant::now() + WAIT_MAX }
    }

    /// Returns the position that the current task requires.
    pub(super) fn current() -> Option<Self> {
        REQUIRED.try_with(|required| *required).ok()
    }

    /// Waits for a moment. Returns whether the request waits no longer.
    pub(super) async fn pause(&self) -> bool {
        tokio::time::sleep(PAUSE).await;
        Instant::now() >= self.deadline
    }
}
