//! Which database serves feeds and loads: the read replica, or the primary while the replica is away.
//!
//! [`Readers::check_replica`] decides once a second. In between, a read that gets no connection to the replica makes the
//! primary serve the following ones. The primary serves them from its own pool, with the limits of that pool, so reads of
//! other requests do not wait for them longer than for each other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::store::admin::migrate::{self, SchemaError};
use crate::store::connection::config::DatabaseConfig;
use crate::store::connection::session::Session;
use crate::store::error::{DatabaseError, StoreError};
use crate::store::primary::Primary;
use crate::store::reader::Reader;

const PRIMARY_WAL: &str = include_str!("sql/primary_wal_position.sql");
const REPLAYED_WAL: &str = include_str!("sql/replayed_wal_position.sql");
/// The time limit of a check, with the connections that it opens.
const CHECK_MAX: Duration = Duration::from_secs(10);
/// The time limit of a statement of a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// Subscribers do not wait for a replica that is further behind.
const FOLLOWED_LAG_MAX: Duration = Duration::from_secs(1);
/// The number of samples of the primary, one each second.
const SAMPLES_MAX: usize = 86_400;

/// The databases for feeds and loads.
pub struct Readers {
    primary: Arc<Primary>,
    replica: Option<Replica>,
}

struct Replica {
    config: DatabaseConfig,
    /// `None` until the first connection succeeds.
    reader: RwLock<Option<Arc<Reader>>>,
    lag_milliseconds: AtomicU64,
    check: Mutex<ReplicaCheck>,
}

/// What the checks of the replica use from one to the next.
#[derive(Default)]
struct ReplicaCheck {
    session: Option<Session>,
    /// When the primary had written its write-ahead log up to a position that the replica has not replayed yet.
    samples: VecDeque<(Instant, i64)>,
}

impl Readers {
    /// Creates the databases, without a connection to the replica.
    pub fn new(primary: Arc<Primary>, replica: Option<&DatabaseConfig>) -> Arc<Self> {
        let replica = replica.map(|config| Replica {
            config: config.clone(),
            reader: RwLock::default(),
            lag_milliseconds: AtomicU64::new(0),
            check: Mutex::default(),
        });
        Arc::new(Self { primary, replica })
    }

    /// Returns the replica while it is available, and else the primary.
    pub fn current(&self) -> Arc<Reader> {
        self.replica().filter(|replica| replica.is_available()).unwrap_or_else(|| self.primary.reader())
    }

    /// Returns the database for a reader that waits for new events: the replica only if it is less than a second behind.
    pub fn for_subscribers(&self) -> Arc<Reader> {
        if self.replica_lag() > FOLLOWED_LAG_MAX { self.primary.reader() } else { self.current() }
    }

    /// Returns whether a read replica is configured.
    pub fn has_replica(&self) -> bool {
        self.replica.is_some()
    }

    /// Returns whether the replica serves reads.
    pub fn uses_replica(&self) -> bool {
        self.replica().is_some_and(|replica| replica.is_available())
    }

    /// Returns the replica, if it was reached since the start.
    pub fn replica(&self) -> Option<Arc<Reader>> {
        self.replica.as_ref()?.reader.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the time for which the primary has had something that the replica did not have at the last check.
    pub fn replica_lag(&self) -> Duration {
        self.replica
            .as_ref()
            .map_or(Duration::ZERO, |replica| Duration::from_millis(replica.lag_milliseconds.load(Ordering::Relaxed)))
    }

    /// Compares the replica with the primary, and connects to it if necessary. After an error the primary serves the reads
    /// of the replica, until a check succeeds.
    pub async fn check_replica(&self) -> Result<(), StoreError> {
        let Some(replica) = &self.replica else { return Ok(()) };
        let mut check = replica.check.lock().await;
        let checked = tokio::time::timeout(CHECK_MAX, self.check(replica, &mut check)).await;
        let checked = checked.unwrap_or_else(|_| Err(StoreError::timed_out("a check of the read replica")));
        if let Some(reader) = self.replica() {
            match &checked {
                Err(_) => reader.set_available(false),
                // After an outage it first catches up: clients have read later positions from the primary.
                Ok(()) if self.replica_lag() <= FOLLOWED_LAG_MAX => reader.set_available(true),
                Ok(()) => {}
            }
        }
        if checked.is_err() {
            check.session = None;
        }
        checked
    }

    async fn check(&self, replica: &Replica, check: &mut ReplicaCheck) -> Result<(), StoreError> {
        let reader = match self.replica() {
            Some(reader) => reader,
            None => {
                check_schema(&replica.config).await?;
                let reader = Arc::new(Reader::connect_to_replica(&replica.config, &self.primary).await?);
                *replica.reader.write().unwrap_or_else(PoisonError::into_inner) = Some(reader.clone());
                reader
            }
        };
        // Without the primary, the lag is that of its last position.
        if check.samples.len() < SAMPLES_MAX
            && let Ok(Ok(Some(written))) = tokio::time::timeout(CHECK_TIMEOUT, self.primary_wal_position()).await
        {
            // The write-ahead log of a new primary may end before.
            if check.samples.back().is_some_and(|(_, last)| *last > written) {
                check.samples.clear();
            }
            check.samples.push_back((Instant::now(), written));
        }
        let session = match &mut check.session {
            Some(session) => session,
            None => check.session.insert(reader.connector.tailer(reader.role).await?),
        };
        let replayed = sqlx::query_scalar(REPLAYED_WAL).fetch_one(session);
        let replayed = tokio::time::timeout(CHECK_TIMEOUT, replayed).await;
        let replayed: Result<Option<i64>, StoreError> = match replayed {
            Ok(replayed) => replayed.map_err(StoreError::from),
            Err(_) => Err(StoreError::timed_out("a check of the read replica")),
        };
        // Statements in progress end, too.
        let replayed = replayed.inspect_err(|error| reader.note_outage(error))?;
        check.samples.retain(|(_, written)| replayed.is_some_and(|replayed| *written > replayed));
        let lag = check.samples.front().map_or(Duration::ZERO, |(time, _)| time.elapsed());
        replica.lag_milliseconds.store(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(())
    }

    /// Returns up to where the primary has written its write-ahead log; `None` if it is no primary.
    async fn primary_wal_position(&self) -> Result<Option<i64>, StoreError> {
        Ok(sqlx::query_scalar(PRIMARY_WAL).fetch_one(&mut *self.primary.acquire().await?).await?)
    }

    /// Closes the pools. Waits until all of their connections are released.
    pub async fn close(&self) {
        if let Some(replica) = self.replica() {
            replica.close().await;
        }
        self.primary.close().await;
    }
}

/// Returns an error if the replica does not have the schema of this program. A statement for it would fail.
async fn check_schema(config: &DatabaseConfig) -> Result<(), StoreError> {
    let reason = match migrate::check(config).await {
        // A newer program has migrated the primary since this one has started. The schema serves both.
        Ok(()) | Err(SchemaError::TooNew { .. }) => return Ok(()),
        Err(SchemaError::TooOld { .. } | SchemaError::FunctionsOutdated(_)) => {
            "it has not replayed the schema that this Annals needs".to_owned()
        }
        Err(error) => error.to_string(),
    };
    Err(DatabaseError::ReplicaUnusable(reason).into())
}
