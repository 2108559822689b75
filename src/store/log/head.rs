//! The head of the log.

use chrono::{DateTime, Utc};

use crate::domain::cursor::Epoch;
use crate::domain::erasure::ErasureNo;
use crate::domain::event::Position;
use crate::store::connection::session::Session;

const LOG_HEAD: &str = include_str!("../sql/log_head.sql");

/// The head of the log in one snapshot of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHead {
    pub epoch: Epoch,
    /// The position of the last event; 0 while the log is empty.
    pub global_position: Position,
    /// The time of the last event.
    pub occurred_at: Option<DateTime<Utc>>,
    /// The number of times that a partition was sealed, archived or restored.
    pub(in crate::store) catalogue_changes: i64,
    /// The number of the newest erasure; 0 if there is none.
    pub last_erasure: ErasureNo,
}

/// Reads the head of the log. `open_from` is the start of the oldest partition that is not sealed, or an older time:
/// the partition of the last event is never sealed.
pub(in crate::store) async fn read_log_head(
    connection: &mut Session,
    open_from: DateTime<Utc>,
) -> Result<LogHead, sqlx::Error> {
    let (epoch, global_position, occurred_at, catalogue_changes, last_erasure) =
        sqlx::query_as(LOG_HEAD).bind(open_from).fetch_one(connection).await?;
    Ok(LogHead { epoch, global_position, occurred_at, catalogue_changes, last_erasure })
}
