//! Statements about epochs, on any connection. `docs/explanation/ordering-and-epochs.md` says what an epoch is.

use crate::domain::cursor::Epoch;
use crate::domain::event::Position;
use crate::store::connection::session::Session;

const LAST_COMMON_POSITION: &str = include_str!("../sql/last_common_position.sql");

/// Returns the last position that is the same in `epoch` and in all later epochs: `None` if no later one exists, and 0 if
/// the log never had the epoch.
pub(in crate::store) async fn last_common_position(
    connection: &mut Session,
    epoch: Epoch,
) -> Result<Option<Position>, sqlx::Error> {
    sqlx::query_scalar(LAST_COMMON_POSITION).bind(epoch).fetch_one(connection).await
}

/// Begins an epoch if the log has moved to another timeline, cluster or table. Every connection that appends calls this
/// first.
pub(in crate::store) async fn ensure_current_epoch(connection: &mut Session) -> Result<(), sqlx::Error> {
    let began: bool = sqlx::query_scalar("SELECT ensure_current_epoch()").fetch_one(connection).await?;
    if began {
        tracing::warn!("the log has moved to another timeline, cluster or table: a new epoch begins");
    }
    Ok(())
}

/// Returns whether PostgreSQL shows the identity of the log to the owner of the tables. Otherwise no epoch begins
/// automatically.
pub(in crate::store) async fn origin_is_visible(connection: &mut Session) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT log_origin() IS NOT NULL").fetch_one(connection).await
}
