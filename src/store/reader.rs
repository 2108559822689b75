//! A database that is read: the primary, or a read replica.
//!
//! A read acquires a pooled connection for one short statement at a time, so a client that reads slowly holds none.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::archive::error::ArchiveError;
use crate::archive::group::EventGroup;
use crate::archive::manifest::Order;
use crate::archive::partition::ArchivedPartition;
use crate::archive::place::Archive;
use crate::clock::Clock;
use crate::domain::cursor::Cursor;
use crate::domain::event::Position;
use crate::metrics::Metrics;
use crate::mutants;
use crate::shares::client::ClientId;
use crate::shares::semaphore::{FairPermit, FairSemaphore};
use crate::store::connection::config::DatabaseConfig;
use crate::store::connection::connector::{Connector, bulk_read_connections};
use crate::store::connection::read_pool::{AcquireError, ReadConnection, ReadPool, shared_permits};
use crate::store::connection::session::Session;
use crate::store::erasures::known::KnownErasures;
use crate::store::error::StoreError;
use crate::store::log::epochs::{ServedEpochs, last_common_position};
use crate::store::log::head::{LogHead, read_log_head};
use crate::store::partitions::catalogue::Catalogue;
use crate::store::required_position::RequiredPosition;

/// A failure after a shorter wait is not an outage: the server refused the connection.
const OUTAGE_MIN: Duration = Duration::from_secs(1);
/// The time for which tasks fail at once after an outage was seen.
const OUTAGE_PAUSE: Duration = Duration::from_secs(1);

/// Which database a [`Reader`] is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerKind {
    Primary,
    /// It may be behind the primary, and accepts no writes.
    Replica,
}

/// Reads of one database. It has no method that writes.
pub struct Reader {
    pub(super) connector: Connector,
    pool: ReadPool,
    /// The role in which the connections of the service work; `None`: the login itself.
    pub(super) role: Option<&'static str>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) archive: Option<Arc<Archive>>,
    catalogue: RwLock<Arc<Catalogue>>,
    /// The highest position that this process has served. A failover may lose events, and the writer never assigns a
    /// position at or below this one again.
    high_water_mark: AtomicI64,
    /// Limits long reads to half of the pool, so that a short read always finds a connection.
    bulk_reads: Arc<FairSemaphore>,
    /// After a connection could not be acquired in time, other tasks fail at once for a moment: a request that reads
    /// several times must not wait for the limit each time.
    outage_until: Mutex<Option<Instant>>,
    /// Whether the last attempt to connect, or the last check, has succeeded.
    is_available: AtomicBool,
    pub(super) server_kind: ServerKind,
    erasures: Arc<KnownErasures>,
    pub(super) served_epochs: Arc<ServedEpochs>,
}

/// The result of comparing the cached catalogue with the database.
pub(super) enum CatalogueCheck {
    Unchanged,
    Changed(Arc<Catalogue>),
}

impl Reader {
    /// Connects to a read replica.
    pub async fn connect_to_replica(config: &DatabaseConfig, primary: &Reader) -> Result<Self, StoreError> {
        let (clock, metrics) = (primary.clock.clone(), primary.metrics.clone());
        let shared = (primary.erasures.clone(), primary.served_epochs.clone());
        Self::connect(config, clock, metrics, ServerKind::Replica, shared).await
    }

    /// Connects to a database whose schema is up to date, and reads its catalogue.
    pub(super) async fn connect(
        config: &DatabaseConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
        server_kind: ServerKind,
        (erasures, served_epochs): (Arc<KnownErasures>, Arc<ServedEpochs>),
    ) -> Result<Self, StoreError> {
        let connector = Connector::new(config);
        let mut connection = connector.login().await?;
        let role = connector.role(&mut connection).await?;
        let catalogue = Catalogue::read(&mut connection).await?;
        connection.close().await?;
        Ok(Self {
            pool: ReadPool::new(connector.pool(config, role), connector.server_state.clone()),
            connector,
            role,
            clock,
            metrics,
            archive: config.archive.clone(),
            catalogue: RwLock::new(Arc::new(catalogue)),
            high_water_mark: AtomicI64::new(0),
            bulk_reads: shared_permits(bulk_read_connections(config)),
            outage_until: Mutex::default(),
            is_available: AtomicBool::new(true),
            server_kind,
            erasures,
            served_epochs,
        })
    }

    /// Closes the pool. Waits until all of its connections are released.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Returns the version of the schema in the database.
    pub async fn schema_version(&self) -> Result<i64, StoreError> {
        const APPLIED_VERSION: &str = include_str!("sql/applied_version.sql");
        Ok(sqlx::query_scalar(APPLIED_VERSION).fetch_one(&mut *self.acquire().await?).await?)
    }

    /// Returns PostgreSQL's version as text.
    pub async fn server_version(&self) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar("SHOW server_version").fetch_one(&mut *self.acquire().await?).await?)
    }

    /// Returns the number of pooled connections in use, and of idle ones.
    pub fn pool_connections(&self) -> (usize, usize) {
        self.pool.connections()
    }

    /// Returns the newest erasure that this process knows.
    pub fn erasures(&self) -> &Arc<KnownErasures> {
        &self.erasures
    }

    /// Acquires a pooled connection for one short statement, to a database that has the required position, and from which
    /// all known erasures have erased their events.
    pub(super) async fn acquire(&self) -> Result<ReadConnection<'_>, StoreError> {
        let required = RequiredPosition::current();
        let erasure = if self.server_kind == ServerKind::Replica { self.erasures.required_of_replicas() } else { None };
        if required.is_none() && erasure.is_none() {
            return self.acquire_any().await;
        }
        let wait = required.unwrap_or_else(RequiredPosition::beginning);
        loop {
            let mut connection = self.acquire_any().await?;
            let head = read_log_head(&mut connection, self.open_from()).await?;
            let checked = if erasure.is_some_and(|erasure| head.last_erasure < erasure) {
                Err(StoreError::Behind(head.global_position))
            } else {
                self.check_cursor(&mut connection, wait.cursor, &head).await
            };
            match checked {
                Ok(()) => return Ok(connection),
                Err(StoreError::Behind(_) | StoreError::BeyondHead(_)) => {}
                Err(error) => return Err(error),
            }
            drop(connection);
            if wait.pause().await {
                return Err(match required {
                    Some(required) => {
                        StoreError::NotReached { head: head.global_position, requested: required.cursor.position }
                    }
                    None => StoreError::Behind(head.global_position),
                });
            }
        }
    }

    /// Acquires a pooled connection for one short statement.
    async fn acquire_any(&self) -> Result<ReadConnection<'_>, StoreError> {
        if self.outage_until().is_some_and(|until| Instant::now() < until) {
            return Err(StoreError::timed_out("connecting to PostgreSQL"));
        }
        let started = Instant::now();
        let acquired = self.pool.acquire().await;
        // Without any connection the database is unavailable, and the time says nothing about the size of the pool.
        if acquired.is_ok() || self.pool.connections().0 > 0 {
            self.metrics.db_pool_acquire_seconds.observe(started.elapsed().as_secs_f64());
        }
        match acquired {
            Ok(connection) => Ok(connection),
            Err(AcquireError::NoTurn) => Err(StoreError::timed_out("waiting for a connection that other reads use")),
            Err(AcquireError::Database(error)) => {
                self.set_available(false);
                if started.elapsed() > OUTAGE_MIN {
                    let until = Instant::now() + OUTAGE_PAUSE;
                    *self.outage_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
                }
                Err(error.into())
            }
        }
    }

    /// Returns whether the database was available at the last check, and reads have got connections since then.
    pub(super) fn is_available(&self) -> bool {
        self.is_available.load(Ordering::Relaxed)
    }

    /// Records whether the database is available.
    pub(super) fn set_available(&self, is_available: bool) {
        self.is_available.store(is_available, Ordering::Relaxed);
    }

    /// Ends the statements that wait for a server that is away, if an error shows that.
    pub(super) fn note_outage(&self, error: &StoreError) {
        if error.is_outage() {
            self.connector.server_state.record_outage();
        }
    }

    /// Returns the time until which no task tries to connect.
    fn outage_until(&self) -> Option<Instant> {
        *self.outage_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acquires the permit for a long read of the log or of a stream. The caller holds it during the read.
    pub async fn bulk_read_permit(&self) -> FairPermit {
        self.bulk_reads.acquire(ClientId::current()).await
    }

    /// Returns whether an archive is configured.
    pub fn has_archive(&self) -> bool {
        self.archive.is_some()
    }

    /// Returns the archive, which must be configured if a partition is archived.
    pub(super) fn archive(&self) -> Result<&Arc<Archive>, StoreError> {
        let missing = || StoreError::ArchiveUnavailable("events are archived, and ARCHIVE_URL is not set".to_owned());
        self.archive.as_ref().ok_or_else(missing)
    }

    /// Returns the error of a read of an archived partition. Reports damage, whichever read finds it.
    pub(super) fn archive_error(&self, partition: &ArchivedPartition, error: &ArchiveError) -> StoreError {
        if error.is_damage() {
            self.report_damage(partition, error);
            return StoreError::ArchiveDamaged(error.to_string());
        }
        StoreError::ArchiveUnavailable(error.to_string())
    }

    /// Counts and logs that files of an archived partition differ from what was written.
    pub(super) fn report_damage(&self, partition: &ArchivedPartition, error: &ArchiveError) {
        self.metrics.archive_damage.inc();
        tracing::error!(
            partition = partition.name.as_str(),
            folder = partition.folder.as_str(),
            %error,
            "an archived partition is damaged, and reads of it are refused: restore its folder from the backup of the \
             archive"
        );
    }

    /// Reads a row group of an archived partition, without the content that was erased since it was written.
    pub(super) async fn archived_group(
        &self,
        partition: &ArchivedPartition,
        order: Order,
        n: usize,
    ) -> Result<Arc<EventGroup>, ArchiveError> {
        let archive = self.archive.as_ref().ok_or_else(ArchiveError::not_configured)?;
        let group = archive.group(partition, order, n).await?;
        // The masks are those of the folder: both are of the same catalogue.
        let catalogue = self.catalogue();
        if !catalogue.has_archived(partition) {
            return Err(ArchiveError::Moved);
        }
        let masks = &catalogue.masks;
        if masks.is_empty() || mutants::is(mutants::ARCHIVED_ROWS_NOT_MASKED) {
            return Ok(group);
        }
        Ok(group.without(masks.by_position())?.map_or(group, Arc::new))
    }

    /// Returns the cached catalogue.
    pub(super) fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the result of reading an archived partition. A failure counts as nothing read if the partition was restored,
    /// or written into another folder, in the meantime: the caller reads it again.
    pub(super) async fn unless_moved(
        &self,
        partition: &ArchivedPartition,
        read: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Err(error @ StoreError::ArchiveUnavailable(_)) = read else { return read };
        let catalogue = self.reload_catalogue(&mut *self.acquire().await?).await?;
        if catalogue.has_archived(partition) { Err(error) } else { Ok(()) }
    }

    /// Returns the new catalogue if partitions were restored, or written into other folders, since the cached one was read.
    /// Otherwise returns the error with which the archive was read.
    pub(super) async fn catalogue_if_moved(
        &self,
        cached: &Catalogue,
        error: StoreError,
    ) -> Result<Arc<Catalogue>, StoreError> {
        if !matches!(error, StoreError::ArchiveUnavailable(_)) {
            return Err(error);
        }
        match self.check_catalogue(&mut *self.acquire().await?, cached).await? {
            CatalogueCheck::Changed(changed) => Ok(changed),
            CatalogueCheck::Unchanged => Err(error),
        }
    }

    /// Reads the catalogue, and caches it.
    pub(super) async fn reload_catalogue(&self, connection: &mut Session) -> Result<Arc<Catalogue>, sqlx::Error> {
        let catalogue = Arc::new(Catalogue::read(connection).await?);
        *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = catalogue.clone();
        Ok(catalogue)
    }

    /// Reloads the catalogue if a partition was sealed, archived or restored since `cached` was read.
    ///
    /// The catalogue names a partition as archived before the partition's table is dropped. A reader whose statement
    /// found nothing therefore calls this method afterwards. If the catalogue has changed, the result of the statement
    /// is void.
    pub(super) async fn check_catalogue(
        &self,
        connection: &mut Session,
        cached: &Catalogue,
    ) -> Result<CatalogueCheck, StoreError> {
        let head = read_log_head(connection, cached.open_from).await?;
        self.note_erasures(&head);
        if cached.is_unchanged(&head) {
            return Ok(CatalogueCheck::Unchanged);
        }
        Ok(CatalogueCheck::Changed(self.reload_catalogue(connection).await?))
    }

    /// Returns the catalogue of the current epoch, and the head of the log.
    pub(super) async fn catalogue_and_head(
        &self,
        connection: &mut Session,
    ) -> Result<(Arc<Catalogue>, LogHead), StoreError> {
        let mut catalogue = self.catalogue();
        let mut head = read_log_head(connection, catalogue.open_from).await?;
        self.note_erasures(&head);
        if !catalogue.matches(&head) {
            // The log may have been rewound behind partitions that were sealed: the cached catalogue is void.
            catalogue = self.reload_catalogue(connection).await?;
            head = read_log_head(connection, catalogue.open_from).await?;
        }
        self.served_epochs.note(connection, head.epoch).await?;
        self.raise_high_water_mark(head.global_position);
        if self.server_kind == ServerKind::Primary {
            self.metrics.epoch.set(head.epoch.into());
        }
        Ok((catalogue, head))
    }

    /// Records the newest erasure of the primary. What was read before it is void.
    fn note_erasures(&self, head: &LogHead) {
        if self.server_kind == ServerKind::Primary {
            self.erasures.raise(head.last_erasure);
        }
    }

    /// Returns an error if the log does not contain the cursor: events that the cursor has passed were lost, or the
    /// cursor is beyond the head.
    pub(super) async fn check_cursor(
        &self,
        connection: &mut Session,
        cursor: Cursor,
        head: &LogHead,
    ) -> Result<(), StoreError> {
        let last_common = match cursor.epoch {
            // The epoch has not reached the replica yet.
            Some(epoch) if epoch > head.epoch && self.server_kind == ServerKind::Replica => {
                return Err(StoreError::Behind(head.global_position));
            }
            // A later epoch than that of the primary belongs to another history.
            Some(epoch) if epoch != head.epoch => {
                last_common_position(connection, epoch).await?.unwrap_or(Position::MAX)
            }
            _ => Position::MAX,
        };
        if cursor.position > last_common {
            let last_common_position = last_common.min(head.global_position);
            return Err(StoreError::EpochChanged { epoch: head.epoch, last_common_position });
        }
        if cursor.position <= head.global_position {
            return Ok(());
        }
        Err(match (self.server_kind, cursor.epoch) {
            (ServerKind::Replica, _) => StoreError::Behind(head.global_position),
            // The log had this position: its end was lost, and no epoch began.
            (ServerKind::Primary, Some(_)) => {
                StoreError::EpochChanged { epoch: head.epoch, last_common_position: head.global_position }
            }
            (ServerKind::Primary, None) => StoreError::BeyondHead(head.global_position),
        })
    }

    /// Returns the highest position that this process has served.
    pub(super) fn high_water_mark(&self) -> Position {
        self.high_water_mark.load(Ordering::Relaxed)
    }

    /// Records a position that was acknowledged, or that was returned to a reader.
    pub(super) fn raise_high_water_mark(&self, position: Position) {
        self.high_water_mark.fetch_max(position, Ordering::Relaxed);
        if self.server_kind == ServerKind::Primary {
            self.metrics.head_position.set(self.high_water_mark());
        }
    }

    /// Returns the start of the oldest partition that is not sealed, for statements that read stream heads.
    pub(super) fn open_from(&self) -> DateTime<Utc> {
        self.catalogue().open_from
    }
}
