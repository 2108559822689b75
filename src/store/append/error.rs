//! Errors of appends.

use std::sync::Arc;

use crate::store::error::DatabaseError;

/// Why an append failed. After every error but [`AppendError::OutcomeUnknown`], nothing of the request is written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The queue is full, or the append lock was not free in time. Nothing is written.
    #[error("too many appends are queued, or the append lock was held too long")]
    Overloaded,
    /// The clock of PostgreSQL would move the time of the log too far ahead. Nothing is written.
    #[error("the clock of PostgreSQL is more than a day ahead of the clock of the service")]
    ClockSkew,
    /// The log is moving to another database. Nothing is written.
    #[error("the log is moving to another database")]
    LogMoving,
    /// The service accepts no more appends. Nothing is written.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// PostgreSQL cannot be reached, or cannot execute the append at this time. Nothing is written.
    #[error("the database is not available: {0}")]
    Unavailable(Arc<DatabaseError>),
    /// The append was sent, and its result was not received: the events may be written or not.
    #[error("the connection was lost before the result was received")]
    OutcomeUnknown,
    /// A defect of Annals, or of a database that was changed by hand. Nothing is written.
    #[error("unexpected error of the database: {0}")]
    Internal(Arc<DatabaseError>),
}
