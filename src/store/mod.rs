//! PostgreSQL: the only module that names sqlx. Statements live in `sql/*.sql` and in `migrations/`.
//!
//! | operation | file |
//! |---|---|
//! | append, many requests in one commit | [`writer`] over `batch` |
//! | read a stream, an event, the streams of a type | [`read`] |
//! | read the log in order | [`log`] |
//! | epochs of the log | [`epochs`] |
//! | follow the log | [`follow`] |
//! | load an aggregate, keep snapshots | [`snapshots`] |
//! | keep API keys | [`keys`] |
//! | keep reducers | [`reducers`] |
//! | move projections | [`projections`] |
//! | keep the months | [`months`] |
//! | months leave for the archive, and are read there | [`archive`], `archived` |
//! | count, and measure tables | [`statistics`] |
//! | verify everything | [`verify`] |
//! | bring the schema up to date | [`migrate`] |
//! | import | [`import`] |
//! | which database; databases of a benchmark | [`database`], [`scratch`] |
//!
//! Reads take a pooled connection for one short statement at a time: a client that reads slowly holds none.

mod append_session;
pub mod archive;
mod archived;
mod batch;
mod connect;
pub mod database;
mod document;
pub mod epochs;
pub mod error;
pub mod follow;
pub mod import;
pub mod keys;
mod lending;
pub mod log;
pub mod migrate;
pub mod months;
pub mod projections;
pub mod read;
pub mod reducers;
pub mod scratch;
mod single;
pub mod snapshots;
pub mod statistics;
pub mod verify;
pub mod writer;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::error::UnexpectedNullError;
use sqlx::postgres::PgRow;
use sqlx::{Connection, Row};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::archive::Archive;
use crate::clock::Clock;
use crate::domain::event::Position;
pub use crate::domain::event::StoredEvent;
use crate::telemetry::metrics::Metrics;
use connect::Connector;
use database::DatabaseConfig;
use document::document;
use error::StoreError;
use lending::{Lending, Lent};
use months::Catalogue;

/// No event is older: the first moment of the year 1, where RFC 3339 begins to be easy.
pub const BEGINNING_OF_TIME: DateTime<Utc> =
    DateTime::from_timestamp(-62_135_596_800, 0).expect("0001-01-01T00:00:00Z is a time");

/// The database as one process sees it.
pub struct Store {
    connector: Connector,
    reads: Lending,
    role: Option<&'static str>,
    clock: Clock,
    metrics: Arc<Metrics>,
    catalogue: RwLock<Arc<Catalogue>>,
    archive: Option<Arc<Archive>>,
    /// The highest position that this process has seen: never given out again, whatever a failover lost.
    served_position: AtomicI64,
    /// This process has committed appends.
    committed: Notify,
    /// Connections that those may hold together who read much: half of the pool, so that who reads little finds one.
    bulk: Semaphore,
    /// It may be behind the primary, and takes no writes.
    is_replica: bool,
}

impl Store {
    /// Opens a database whose schema is up to date. Whoever appends keeps the months, too.
    pub async fn open(config: &DatabaseConfig, clock: Clock, metrics: Arc<Metrics>) -> Result<Arc<Self>, StoreError> {
        Self::open_as(config, clock, metrics, false).await
    }

    /// Opens a read replica; one that has not got the schema yet is waited for.
    pub async fn open_replica(
        config: &DatabaseConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, StoreError> {
        const WAIT: Duration = Duration::from_secs(30);
        const PAUSE: Duration = Duration::from_millis(250);
        let until = Instant::now() + WAIT;
        loop {
            match Self::open_as(config, clock.clone(), metrics.clone(), true).await {
                Err(error) if Instant::now() < until => {
                    tracing::warn!(%error, "the read replica is not ready; it is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
                opened => return opened,
            }
        }
    }

    async fn open_as(
        config: &DatabaseConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
        is_replica: bool,
    ) -> Result<Arc<Self>, StoreError> {
        let connector = Connector::new(config);
        let mut connection = connector.owner().await?;
        let role = connector.role(&mut connection).await?;
        let store = Self {
            reads: Lending::new(connector.pool(config, role)),
            connector,
            role,
            clock,
            metrics,
            catalogue: RwLock::new(Arc::new(Catalogue::unknown())),
            archive: config.archive.clone(),
            served_position: AtomicI64::new(0),
            committed: Notify::new(),
            bulk: Semaphore::new(connect::for_bulk_reads(config)),
            is_replica,
        };
        store.learn_months(&mut connection).await?;
        connection.close().await?;
        Ok(Arc::new(store))
    }

    /// Fails if months are archived, and the archive that is configured is not the one that has them: a service must be able
    /// to read what it promises, and the next month must not go elsewhere. One that does not answer now may come back.
    pub async fn check_archive(&self) -> Result<(), StoreError> {
        let months = self.months().await?;
        let newest =
            months.iter().rev().find_map(|month| Some((month.archived_folder()?, month.archive_sha256.as_ref()?)));
        let Some((folder, sha256)) = newest else { return Ok(()) };
        match self.archive()?.has(folder, sha256).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::ArchiveUnavailable(format!(
                "{folder}, which the database says is archived, is not at ARCHIVE_URL: is it another place, or not mounted?"
            ))),
            Err(error) => {
                tracing::warn!(%error, "the archive does not answer; archived events cannot be read until it does");
                Ok(())
            }
        }
    }

    /// Closes the pool once its connections are back.
    pub async fn close(&self) {
        self.reads.close().await;
    }

    /// Whether PostgreSQL answers, and takes writes.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        let mut connection = self.acquire().await?;
        let read_only: bool = sqlx::query_scalar("SELECT current_setting('transaction_read_only')::boolean")
            .fetch_one(&mut *connection)
            .await?;
        if read_only {
            Err(sqlx::Error::Protocol("the database is read-only: a standby, or set so".to_owned()).into())
        } else {
            Ok(())
        }
    }

    /// The schema's version, as it stands in the database.
    pub async fn schema_version(&self) -> Result<i64, StoreError> {
        let mut connection = self.acquire().await?;
        Ok(sqlx::query_scalar(migrate::APPLIED_VERSION).fetch_one(&mut *connection).await?)
    }

    /// PostgreSQL's version, for people.
    pub async fn server_version(&self) -> Result<String, StoreError> {
        let mut connection = self.acquire().await?;
        Ok(sqlx::query_scalar("SHOW server_version").fetch_one(&mut *connection).await?)
    }

    /// Waits until this process has committed an append since it last waited; for one waiter, the tailer.
    pub async fn committed(&self) {
        self.committed.notified().await;
    }

    /// Connections of the pool: in use, and idle.
    pub fn pool_connections(&self) -> (usize, usize) {
        self.reads.connections()
    }

    async fn acquire(&self) -> Result<Lent<'_>, StoreError> {
        let started = Instant::now();
        let lent = self.reads.lend().await;
        self.metrics.db_pool_acquire_seconds.observe(started.elapsed().as_secs_f64());
        Ok(lent?)
    }

    /// Held by whoever reads the next piece of much: a stretch of the log or of a stream, for as long as it takes.
    pub async fn bulk(&self) -> SemaphorePermit<'_> {
        self.bulk.acquire().await.expect("it is never closed")
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn served_position(&self) -> Position {
        self.served_position.load(Ordering::Relaxed)
    }

    /// Notes a position that was acknowledged or handed to a reader.
    fn saw_position(&self, position: Option<Position>) {
        if let Some(position) = position {
            self.served_position.fetch_max(position, Ordering::Relaxed);
            if !self.is_replica {
                self.metrics.head_position.set(self.served_position());
            }
        }
    }
}

/// There is no document where there has to be one.
fn missing() -> sqlx::Error {
    sqlx::Error::Decode(Box::new(UnexpectedNullError))
}

/// Reads a row of any statement that lists an event's columns; the order is the same in all of them, and
/// so are the types: they are not compared once more for every event.
fn event_from_row(row: &PgRow) -> Result<StoredEvent<'_>, sqlx::Error> {
    Ok(StoredEvent {
        event_id: row.try_get_unchecked(0)?,
        aggregate_type: row.try_get_unchecked(1)?,
        aggregate_id: row.try_get_unchecked(2)?,
        version: row.try_get_unchecked(3)?,
        global_position: row.try_get_unchecked(4)?,
        event_type: row.try_get_unchecked(5)?,
        event_data: document(row, 6)?.ok_or_else(missing)?,
        metadata: document(row, 7)?,
        occurred_at: row.try_get_unchecked(8)?,
        correlation_id: row.try_get_unchecked(9)?,
        causation_id: row.try_get_unchecked(10)?,
    })
}
