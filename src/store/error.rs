//! Errors of the store. SQLSTATEs and errors of the driver become a few cases that a caller can act on.

use std::sync::Arc;

use crate::domain::cursor::Epoch;
use crate::domain::event::Position;
use crate::domain::version::Version;
use crate::store::connection::session::OutcomeUnknown;

/// The SQLSTATE of a statement that has waited for a lock for longer than lock_timeout.
pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";

/// The SQLSTATE with which the triggers of a move refuse a write.
const LOG_MOVING: &str = "AN005";

/// Why a statement or a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// An error of the driver, or one that PostgreSQL reported.
    #[error("{}", describe_driver_error(.0))]
    Driver(sqlx::Error),
    /// PostgreSQL did not respond in time. The field says what took too long.
    #[error("{0} took too long")]
    TimedOut(&'static str),
    /// The clock of PostgreSQL would move the time of the log too far ahead.
    #[error("the clock of PostgreSQL is more than a day ahead of the clock of the service")]
    ClockAhead,
    /// PostgreSQL accepts no writes.
    #[error("the database is read-only: it is a standby, or default_transaction_read_only is on")]
    ReadOnly,
    /// A write was sent, and its result did not arrive.
    #[error("{0}")]
    OutcomeUnknown(String),
    /// Commits wait for a synchronous standby, so nothing is written. The field is the setting that names the standbys.
    #[error("commits wait for a synchronous standby that is away (synchronous_standby_names = {0:?})")]
    CommitsWait(String),
    /// The log is moving to another database, and refuses writes.
    #[error("the log is moving to another database, or has moved: see `annals move`")]
    LogMoving,
    /// None of several servers is a primary that accepts connections. The field has the reason of each.
    #[error("no server is a primary that accepts connections: {0}")]
    NoPrimary(String),
    /// The read replica cannot be used. The field says why.
    #[error("the read replica cannot be used: {0}")]
    ReplicaUnusable(String),
    /// A statement returned something that it never returns.
    #[error("PostgreSQL returned an unexpected result: {0}")]
    UnexpectedResult(String),
}

/// What poolers report when a client has waited too long for a session, or when too many clients are connected.
const POOLER_MESSAGES: [&str; 4] =
    ["query_wait_timeout", "client_login_timeout", "no more connections allowed", "server_login_retry"];

/// Returns whether a message is that of a pooler without a free session.
pub(super) fn is_from_pooler(message: &str) -> bool {
    POOLER_MESSAGES.iter().any(|part| message.contains(part))
}

/// Describes an error of the driver in the words of an operator. The driver names its own parts, adds a line of
/// PostgreSQL's source code, and repeats the text of its cause.
fn describe_driver_error(error: &sqlx::Error) -> String {
    match error {
        // The messages of PgBouncer, and of poolers that are compatible with it.
        sqlx::Error::Database(error) if is_from_pooler(error.message()) => format!(
            "a connection pooler between Annals and PostgreSQL has no free session ({}): give it more sessions, or \
             connect to PostgreSQL directly",
            error.message()
        ),
        // Not the detail, which can contain a row.
        sqlx::Error::Database(error) => format!("PostgreSQL reports: {}", error.message()),
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the connection failed: the server has closed it".to_owned()
        }
        sqlx::Error::Io(error) => format!("the connection failed: {error}"),
        // The driver reads a first byte that the server has not sent.
        sqlx::Error::Protocol(fault) if fault.contains("SSLRequest: 0x00") => {
            "the server has closed the connection without a response: it is starting or stopping, or it is a proxy \
             that has no server"
                .to_owned()
        }
        sqlx::Error::Tls(error) => format!("the connection failed: TLS: {error}"),
        sqlx::Error::PoolTimedOut => {
            "no connection was available in time: PostgreSQL accepts none, or all are in use".to_owned()
        }
        sqlx::Error::PoolClosed => "the connections are closed".to_owned(),
        other => other.to_string(),
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Io(lost) = &error
            && let Some(unknown) = lost.get_ref().and_then(|cause| cause.downcast_ref::<OutcomeUnknown>())
        {
            return Self::OutcomeUnknown(unknown.to_string());
        }
        if matches!(&error, sqlx::Error::Database(error) if error.code().as_deref() == Some(LOG_MOVING)) {
            return Self::LogMoving;
        }
        Self::Driver(error)
    }
}

/// Why a read or an administrative write failed. Appends have [`super::append::error::AppendError`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL cannot be reached, or cannot execute statements at this time.
    #[error("the database is not available: {0}")]
    Unavailable(Arc<DatabaseError>),
    /// A write was sent, and its result did not arrive: it may have taken effect or not.
    #[error("the outcome is unknown: {0}")]
    OutcomeUnknown(Arc<DatabaseError>),
    /// The log is moving to another database. Nothing was written.
    #[error("the log is moving to another database, or to this one: see `annals move`")]
    LogMoving,
    /// The process is shutting down.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The reader's cursor is no longer part of the log. The log that the reader has read and the current one are equal
    /// up to `last_common_position` only.
    #[error("the log is in epoch {epoch}: it is unchanged up to position {last_common_position} only")]
    EpochChanged { epoch: Epoch, last_common_position: Position },
    /// The reader's position, which names no epoch, is beyond the head of the log. The head is the field.
    #[error("the head of the log is at position {0} only")]
    BeyondHead(Position),
    /// The read replica that was read does not have the reader's position or epoch yet. Its head is the field.
    #[error("the read replica is at position {0} only")]
    Behind(Position),
    /// No database that was read has the required position. The highest position of the last one is `head`.
    #[error("the database is at position {head}, and not yet at {requested}")]
    NotReached { head: Position, requested: Position },
    /// An event that must exist was not found, so the log is damaged.
    #[error("an event is missing: {0}")]
    EventMissing(MissingEvent),
    /// The requested events are archived, and the archive does not respond or is not configured.
    #[error("the archive is not available: {0}")]
    ArchiveUnavailable(String),
    /// The files of an archived partition differ from what was written, so no event of it is returned.
    #[error("{0}")]
    ArchiveDamaged(String),
    /// A stored value is not one that Annals writes.
    #[error("stored data cannot be read: {0}")]
    Unreadable(String),
    /// A defect of Annals, or of a database that was changed by hand.
    #[error("unexpected error of the database: {0}")]
    Internal(Arc<DatabaseError>),
}

/// The place at which an event must exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MissingEvent {
    /// After a position below the head.
    #[error("the log has no event after position {0}, and its head is higher")]
    AfterPosition(Position),
    /// Before a position, and after the first one.
    #[error("the log has no event before position {0}, and its first event is lower")]
    BeforePosition(Position),
    /// At a position that `event_ids` names.
    #[error("no event is at position {0}, which event_ids names")]
    AtPosition(Position),
    /// In a stream, at a version up to its head.
    #[error("stream {stream} has no event with version {version}, and its head is at least that")]
    Version { stream: String, version: Version },
}

impl StoreError {
    /// Returns the error for a statement that took too long. `what` says what it was doing.
    pub fn timed_out(what: &'static str) -> Self {
        DatabaseError::TimedOut(what).into()
    }

    /// Returns whether the server did not respond, or the connection to it failed.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(error) if !is_from_server(error)
            && Failure::classify(error) == Failure::ConnectionLost)
    }

    /// Returns the error for a stored value that cannot be read.
    pub fn unreadable(error: impl std::fmt::Display) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        if matches!(error, DatabaseError::OutcomeUnknown(_)) {
            return Self::OutcomeUnknown(Arc::new(error));
        }
        match Failure::classify(&error) {
            Failure::ConnectionLost | Failure::Transient | Failure::LockTimeout => Self::Unavailable(Arc::new(error)),
            Failure::LogMoving => Self::LogMoving,
            Failure::PartitionMissing | Failure::DataRejected | Failure::ClockSkew | Failure::Unexpected => {
                Self::Internal(Arc::new(error))
            }
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        DatabaseError::from(error).into()
    }
}

/// The kinds of database errors, by how a caller reacts to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection is lost. Whether the statement took effect is unknown.
    ConnectionLost,
    /// PostgreSQL refused at this time: out of resources, read-only, cancelled, or a serialization failure.
    Transient,
    /// `lock_timeout` passed.
    LockTimeout,
    /// No partition of events accepts the row.
    PartitionMissing,
    /// `append_events` refused to move the time of the log more than a day ahead of the service's clock.
    ClockSkew,
    /// The log is moving to another database, and refuses the write.
    LogMoving,
    /// PostgreSQL rejected a value (SQLSTATE class 22 or 23).
    DataRejected,
    /// Any other error.
    Unexpected,
}

impl Failure {
    /// Returns the kind of an error.
    pub(super) fn classify(error: &DatabaseError) -> Self {
        match error {
            DatabaseError::Driver(error) => Self::classify_driver_error(error),
            DatabaseError::TimedOut(_) | DatabaseError::NoPrimary(_) | DatabaseError::OutcomeUnknown(_) => {
                Self::ConnectionLost
            }
            DatabaseError::ReadOnly | DatabaseError::CommitsWait(_) | DatabaseError::ReplicaUnusable(_) => {
                Self::Transient
            }
            DatabaseError::ClockAhead => Self::ClockSkew,
            DatabaseError::LogMoving => Self::LogMoving,
            DatabaseError::UnexpectedResult(_) => Self::Unexpected,
        }
    }

    fn classify_driver_error(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => {
                Self::classify_sqlstate(&error.code().unwrap_or_default(), error.constraint().is_some())
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::ConnectionLost,
            _ => Self::Unexpected,
        }
    }

    /// Classifies by appendix A of the PostgreSQL manual.
    fn classify_sqlstate(code: &str, names_constraint: bool) -> Self {
        match code {
            // Terminated by an administrator, a crash or an idle timeout: the connection is lost, too. A cancelled
            // statement (57014) does not lose its connection, but a CALL may be cancelled after the commit in it.
            "57P01" | "57P02" | "57P05" | "25P03" | "57014" => Self::ConnectionLost,
            LOCK_NOT_AVAILABLE => Self::LockTimeout,
            "AN002" => Self::ClockSkew,
            // A CHECK constraint has the same code, and a name.
            "23514" if !names_constraint => Self::PartitionMissing,
            // Read-only: a standby, or a primary that was demoted in the meantime.
            "25006" => Self::Transient,
            code => match code.get(..2) {
                Some("08") => Self::ConnectionLost,
                Some("28" | "3D" | "40" | "53" | "57") => Self::Transient,
                Some("22" | "23") => Self::DataRejected,
                _ => Self::Unexpected,
            },
        }
    }
}

/// Returns whether PostgreSQL itself reported the error.
pub(super) fn is_from_server(error: &DatabaseError) -> bool {
    matches!(error, DatabaseError::Driver(error) if error.as_database_error().is_some())
}

/// Returns whether PostgreSQL reported this SQLSTATE.
pub(super) fn has_sqlstate(error: &DatabaseError, code: &str) -> bool {
    matches!(error, DatabaseError::Driver(sqlx::Error::Database(error)) if error.code().as_deref() == Some(code))
}
