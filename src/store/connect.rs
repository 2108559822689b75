//! Connections to PostgreSQL: how each kind is set up, and how many there are.
//!
//! `DATABASE_MAX_CONNECTIONS` counts all of a process: one is the writer's, one the tailer's, one is kept for maintenance,
//! the rest are the pool for reads. No connection is ever left inside a transaction: nothing here begins one.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor};

use super::database::DatabaseConfig;
use super::epochs;

/// Connections that are not in the pool: the writer's, the tailer's and the maintenance task's.
const RESERVED: u32 = 3;
/// A pooled connection that rested longer than this is tried before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How many connections of the pool may be busy with reads of much.
pub(super) fn for_bulk_reads(config: &DatabaseConfig) -> usize {
    ((config.max_connections - RESERVED) / 2).max(1) as usize
}

/// The role that `serve` works in, if the login may take it.
pub(super) const APP_ROLE: &str = "annals_app";

const APP_ROLE_IS_GRANTED: &str = "
    SELECT coalesce(bool_and(has_table_privilege(r.oid, 'streams', 'SELECT')
                         AND has_table_privilege(r.oid, 'events', 'SELECT')
                         AND has_table_privilege(r.oid, 'projection_positions', 'UPDATE')
                         AND has_function_privilege(r.oid, p.oid, 'EXECUTE')), false)
      FROM pg_roles r, pg_proc p
     WHERE r.rolname = 'annals_app'
       AND p.proname = 'append_events'
       AND p.pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass)";

/// Plans must not depend on how full the tables were when a statement was prepared, and with custom plans a load takes
/// twelve times as long at 120 months as at one. To compile a statement (JIT) takes longer than any of these run; before
/// version 18 PostgreSQL does it for every statement that scans a table all the same, since that counts as very dear.
const READ_SETTINGS: &str = "
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off;
    SET enable_bitmapscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET jit = off;
    SET statement_timeout = '30s'";

/// Raises synchronous_commit to what an acknowledgement promises, and never lowers it.
const WRITER_SETTINGS: &str = "
    SET default_transaction_isolation = 'read committed';
    SET statement_timeout = 0;
    SET lock_timeout = '3s';
    SELECT set_config('synchronous_commit', 'on', false)
     WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// How to reach the database, and as whom.
#[derive(Clone)]
pub(super) struct Connector {
    options: PgConnectOptions,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(config: &DatabaseConfig) -> Self {
        let options = config.options.clone().application_name("annals").disable_statement_logging();
        Self { options, timeout: config.connect_timeout }
    }

    /// A connection as the login itself: for migrations, months, import.
    pub(super) async fn owner(&self) -> Result<PgConnection, sqlx::Error> {
        self.in_time(PgConnection::connect_with(&self.options)).await
    }

    /// A server that accepts and then says nothing is one that is away.
    async fn in_time<T>(&self, connect: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        let connected = tokio::time::timeout(self.timeout, connect).await;
        connected.unwrap_or_else(|_| Err(timed_out("connecting to PostgreSQL took too long")))
    }

    /// The connection that appends.
    pub(super) async fn writer(&self, role: Option<&'static str>) -> Result<PgConnection, sqlx::Error> {
        self.in_time(async {
            let mut connection = self.owner().await?;
            connection.execute(WRITER_SETTINGS).await?;
            take_role(&mut connection, role).await?;
            epochs::keep(&mut connection).await?;
            Ok(connection)
        })
        .await
    }

    /// The connection that follows the log.
    pub(super) async fn tailer(&self, role: Option<&'static str>) -> Result<PgConnection, sqlx::Error> {
        self.in_time(async {
            let mut connection = self.owner().await?;
            connection.execute(READ_SETTINGS).await?;
            take_role(&mut connection, role).await?;
            Ok(connection)
        })
        .await
    }

    /// The pool for reads; connects when it is first used.
    pub(super) fn pool(&self, config: &DatabaseConfig, role: Option<&'static str>) -> PgPool {
        PgPoolOptions::new()
            .max_connections(config.max_connections - RESERVED)
            .idle_timeout(config.idle_timeout)
            .acquire_timeout(config.connect_timeout)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRUSTED_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    connection.execute(READ_SETTINGS).await?;
                    take_role(connection, role).await
                })
            })
            .connect_lazy_with(self.options.clone())
    }

    /// The role to work in: none where there is one login for everything, or where the role was given nothing (a restore
    /// without privileges).
    pub(super) async fn role(&self, owner: &mut PgConnection) -> Result<Option<&'static str>, sqlx::Error> {
        let granted: bool = sqlx::query_scalar(APP_ROLE_IS_GRANTED).fetch_one(&mut *owner).await?;
        let taken = if granted { take_role(owner, Some(APP_ROLE)).await } else { Ok(()) };
        match taken {
            Ok(()) => {
                owner.execute("RESET ROLE").await?;
                Ok(granted.then_some(APP_ROLE))
            }
            Err(sqlx::Error::Database(refused)) if refused.code().as_deref() == Some("42501") => Ok(None),
            Err(error) => Err(error),
        }
    }
}

async fn take_role(connection: &mut PgConnection, role: Option<&'static str>) -> Result<(), sqlx::Error> {
    if role.is_some() {
        connection.execute("SET ROLE annals_app").await?;
    }
    Ok(())
}

pub(super) fn timed_out(what: &'static str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what))
}
