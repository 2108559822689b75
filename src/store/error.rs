//! What can go wrong below: SQLSTATE and driver errors become a few cases that callers can act on.

use std::sync::Arc;

use sqlx::error::DatabaseError;

use crate::domain::cursor::Epoch;
use crate::domain::event::Position;

/// Why the store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The append queue is full, or the append lock could not be had in time. Nothing was written.
    #[error("too many appends wait, or the append lock was held too long")]
    Overloaded,
    /// The service takes no more appends. Nothing was written.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// PostgreSQL cannot be reached, or cannot answer now. Nothing was written.
    #[error("the database is not available: {0}")]
    Unavailable(Arc<sqlx::Error>),
    /// No worker could fold this in time; nothing is wrong with the reducer.
    #[error("no worker could fold this in time")]
    NotFolded,
    /// The log has changed behind where the reader stands: up to `kept` it is the same.
    #[error("the log is in epoch {epoch}: it is the same up to position {kept} only")]
    EpochChanged { epoch: Epoch, kept: Position },
    /// The log is shorter than it was: it is another database that answers.
    #[error("the database that answers is at position {0} only")]
    Behind(Position),
    /// What is asked for lies in the archive, and that does not answer.
    #[error("the archive is not available: {0}")]
    ArchiveUnavailable(String),
    /// What lies in the archive is not what was written there.
    #[error("{0}")]
    ArchiveDamaged(String),
    /// The append was sent and its answer never came: it is written, or it is not.
    #[error("the connection broke before the answer came")]
    OutcomeUnknown,
    /// A defect: of Annals, or of a database that somebody changed by hand.
    #[error("unexpected answer of the database: {0}")]
    Internal(Arc<sqlx::Error>),
}

impl StoreError {
    /// The database does not answer.
    pub fn timed_out(what: &'static str) -> Self {
        super::connect::timed_out(what).into()
    }

    /// What was stored is not what Annals stores.
    pub fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Arc::new(sqlx::Error::Decode(Box::new(error))))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match Failure::of(&error) {
            Failure::ConnectionLost | Failure::NotNow | Failure::LockTimeout => Self::Unavailable(Arc::new(error)),
            Failure::MonthMissing | Failure::Refused | Failure::Unexpected => Self::Internal(Arc::new(error)),
        }
    }
}

/// Errors of the driver by what to do about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection is gone; whether the statement took effect is not known.
    ConnectionLost,
    /// PostgreSQL answered that it cannot do this now: out of resources, read-only, cancelled, a conflict to retry.
    NotNow,
    /// `lock_timeout` passed.
    LockTimeout,
    /// No partition of events takes the row.
    MonthMissing,
    /// A value was refused (SQLSTATE class 22 or 23).
    Refused,
    Unexpected,
}

impl Failure {
    pub(super) fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => Self::of_sqlstate(error.as_ref()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::ConnectionLost,
            _ => Self::Unexpected,
        }
    }

    /// SQLSTATE classes of appendix A of the PostgreSQL manual.
    fn of_sqlstate(error: &dyn DatabaseError) -> Self {
        let code = error.code().unwrap_or_default();
        match code.as_ref() {
            // Terminated by an administrator, a crash or an idle timeout: the connection goes with the error.
            // A cancelled statement keeps its connection, but a CALL may have been cancelled after the commit in it.
            "57P01" | "57P02" | "57P05" | "25P03" | "57014" => Self::ConnectionLost,
            "55P03" => Self::LockTimeout,
            // The same code as a CHECK constraint's, which has a name.
            "23514" if error.constraint().is_none() => Self::MonthMissing,
            // Read-only: a standby, or a primary that was demoted under us.
            "25006" => Self::NotNow,
            code => match code.get(..2) {
                Some("08") => Self::ConnectionLost,
                Some("28" | "3D" | "40" | "53" | "57") => Self::NotNow,
                Some("22" | "23") => Self::Refused,
                _ => Self::Unexpected,
            },
        }
    }
}
