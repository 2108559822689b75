//! Statements about epochs, on any connection. `docs/explanation/ordering-and-epochs.md` says what an epoch is.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::cursor::Epoch;
use crate::domain::event::Position;
use crate::store::connection::session::Session;

const LAST_COMMON_POSITION: &str = include_str!("../sql/last_common_position.sql");

const EPOCH_FACTS: &str = include_str!("../sql/epoch_facts.sql");
const RECORD_SERVED_EPOCHS: &str = include_str!("../sql/record_served_epochs.sql");
/// The number of epochs that a process remembers.
const SERVED_EPOCHS_MAX: usize = 16;

/// The epochs that a process has served. After a failover, another server may have no record of them: the process then
/// records them there, so that cursors of them are compared with the history that is left.
#[derive(Debug, Default)]
pub(in crate::store) struct ServedEpochs(Mutex<Vec<ServedEpoch>>);

#[derive(Debug, Clone, Copy)]
struct ServedEpoch {
    epoch: Epoch,
    /// The first position, and the epoch before; `None` for the first epoch of a log.
    began: Option<(Position, Epoch)>,
}

impl ServedEpochs {
    /// Remembers an epoch that is served from now on.
    pub(in crate::store) async fn note(&self, connection: &mut Session, epoch: Epoch) -> Result<(), sqlx::Error> {
        if self.get().last().is_some_and(|last| last.epoch == epoch) {
            return Ok(());
        }
        let began = sqlx::query_as(EPOCH_FACTS).bind(epoch).fetch_optional(connection).await?;
        let mut served = self.get();
        served.retain(|served| served.epoch != epoch);
        served.push(ServedEpoch { epoch, began });
        if served.len() > SERVED_EPOCHS_MAX {
            served.remove(0);
        }
        Ok(())
    }

    /// Records the epochs that the log does not have.
    pub(in crate::store) async fn record(&self, connection: &mut Session) -> Result<(), sqlx::Error> {
        let served: Vec<_> =
            self.get().iter().filter_map(|served| served.began.map(|began| (served.epoch, began))).collect();
        if served.is_empty() {
            return Ok(());
        }
        let lost: i64 = sqlx::query_scalar(RECORD_SERVED_EPOCHS)
            .bind(served.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>())
            .bind(served.iter().map(|(_, (first_position, _))| *first_position).collect::<Vec<_>>())
            .bind(served.iter().map(|(_, (_, former))| *former).collect::<Vec<_>>())
            .fetch_one(connection)
            .await?;
        if lost > 0 {
            tracing::warn!(lost, "epochs that this process has served are not in the log: their events are lost");
        }
        Ok(())
    }

    fn get(&self) -> MutexGuard<'_, Vec<ServedEpoch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the last position that is the same in `epoch` and in the current history: `None` if it is the current epoch,
/// and 0 if the log does not know where another history parted from its own.
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
