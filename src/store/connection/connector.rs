//! Connections to PostgreSQL: the settings of each kind, and their number.
//!
//! `DATABASE_MAX_CONNECTIONS` limits all connections of a process to the primary: one is the writer's, one the
//! tailer's, one is reserved for maintenance, and the rest are the pool for reads. No connection of the writer or of
//! the pool has a transaction open between two round trips.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, Postgres};
use sqlx::{ConnectOptions, Connection, Executor};

use crate::store::connection::config::{DatabaseConfig, place};
use crate::store::connection::explain::is_temporary;
use crate::store::connection::session::{ServerState, Session};
use crate::store::error::{DatabaseError, has_sqlstate};
use crate::store::log::epochs::ensure_current_epoch;

/// The connections outside the pool: the writer's, the tailer's and the maintenance job's.
const RESERVED: u32 = 3;
/// A pooled connection that was idle for longer is checked before it is used.
const UNCHECKED_IDLE_MAX: Duration = Duration::from_secs(1);

/// Returns the number of pooled connections that long reads may use at the same time.
pub(in crate::store) fn bulk_read_connections(config: &DatabaseConfig) -> usize {
    /// A long read keeps half a processor of the service busy. More of them than processors would only delay live events.
    const LONG_READS_MIN: usize = 2;
    let half = ((config.max_connections - RESERVED) / 2).max(1) as usize;
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    half.min(processors.max(LONG_READS_MIN))
}

/// The role in which the connections of the service work, if the login may use it.
const APP_ROLE: &str = "annals_app";

const APP_ROLE_IS_GRANTED: &str = "
    SELECT coalesce(bool_and(has_table_privilege(r.oid, 'streams', 'SELECT')
                         AND has_table_privilege(r.oid, 'events', 'SELECT')
                         AND has_table_privilege(r.oid, 'projection_positions', 'UPDATE')
                         AND has_function_privilege(r.oid, p.oid, 'EXECUTE')), false)
      FROM pg_roles r, pg_proc p
     WHERE r.rolname = 'annals_app'
       AND p.proname = 'append_events'
       AND p.pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass)";

/// PostgreSQL ends the session of a process that has vanished after a minute, and not after two hours: until then its
/// snapshot would delay VACUUM and the removal of erased content.
macro_rules! end_vanished {
    () => {
        "
    SET tcp_keepalives_idle = 30;
    SET tcp_keepalives_interval = 10;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '60s';"
    };
}

/// Raises synchronous_commit to what an acknowledgement promises, and never lowers it.
macro_rules! commit_durably {
    () => {
        "
    SELECT set_config('synchronous_commit', 'on', false)
     WHERE current_setting('synchronous_commit') IN ('off', 'local')"
    };
}

const READ_SETTINGS: &str = concat!(include_str!("../sql/read_settings.sql"), end_vanished!());

const WRITER_SETTINGS: &str = concat!(
    "
    SET default_transaction_isolation = 'read committed';
    SET statement_timeout = 0;
    SET lock_timeout = '3s';",
    end_vanished!(),
    commit_durably!()
);

/// The settings of both connections of a move.
pub(in crate::store) const MOVE_SETTINGS: &str = concat!(
    "
    SET statement_timeout = 0;
    SET lock_timeout = '10s';",
    end_vanished!(),
    commit_durably!()
);

/// The address of the database, and the login.
#[derive(Clone)]
pub(in crate::store) struct Connector {
    servers: Arc<Servers>,
    timeout: Duration,
    /// What all connections of this connector, and of its clones, have found out about the server.
    pub(in crate::store) server_state: ServerState,
}

/// The servers of the database.
struct Servers {
    options: Vec<PgConnectOptions>,
    /// The number of the server to which the last connection was opened: of several servers, the primary.
    current: AtomicUsize,
    /// The pool, which opens its connections to the same server.
    pool: OnceLock<PgPool>,
}

impl Connector {
    /// Prepares connections to a database.
    pub(in crate::store) fn new(config: &DatabaseConfig) -> Self {
        let options =
            |options: &PgConnectOptions| options.clone().application_name("annals").disable_statement_logging();
        let servers = Servers {
            options: config.servers.iter().map(options).collect(),
            current: AtomicUsize::new(0),
            pool: OnceLock::new(),
        };
        Self { servers: Arc::new(servers), timeout: config.connect_timeout, server_state: ServerState::new() }
    }

    /// Connects as the login itself. Migrations, archiving, imports and the commands of operators need a login with the
    /// rights of the owner; maintenance needs none.
    ///
    /// Several servers are tried in turn, beginning with the one that was the primary last.
    pub(in crate::store) async fn login(&self) -> Result<Session, DatabaseError> {
        let Servers { options, current, .. } = &*self.servers;
        if let [only] = &options[..] {
            return Ok(self.session(self.in_time(connect(only)).await?));
        }
        let first = current.load(Ordering::Relaxed);
        let mut reasons = Vec::new();
        for n in (first..options.len()).chain(0..first) {
            let login = async {
                let mut connection = connect(&options[n]).await?;
                if is_read_only(&mut connection).await? { Err(DatabaseError::ReadOnly) } else { Ok(connection) }
            };
            match self.in_time(login).await {
                Ok(connection) => {
                    // The session begins afterwards, so it is not void.
                    self.use_server(n);
                    return Ok(self.session(connection));
                }
                Err(error) if is_temporary(&error) => reasons.push(format!("{}: {error}", place(&options[n]))),
                Err(error) => return Err(error),
            }
        }
        Err(DatabaseError::NoPrimary(reasons.join("; ")))
    }

    fn session(&self, connection: PgConnection) -> Session {
        Session::own(connection, &self.server_state)
    }

    /// Makes the pool use another server than before. Its connections to the former one are void.
    fn use_server(&self, n: usize) {
        let Servers { options, current, pool } = &*self.servers;
        if current.swap(n, Ordering::Relaxed) != n {
            if let Some(pool) = pool.get() {
                pool.set_connect_options(options[n].clone());
            }
            self.server_state.record_outage();
            tracing::info!("the primary is {}", place(&options[n]));
        }
    }

    /// Limits the time of connecting. A server that accepts the connection and does not respond counts as unreachable.
    async fn in_time<T>(&self, connect: impl Future<Output = Result<T, DatabaseError>>) -> Result<T, DatabaseError> {
        let connected = tokio::time::timeout(self.timeout, connect).await;
        connected.unwrap_or(Err(DatabaseError::TimedOut("connecting to PostgreSQL")))
    }

    /// Connects the writer.
    pub(in crate::store) async fn writer(&self, role: Option<&'static str>) -> Result<Session, DatabaseError> {
        let mut connection = self.login().await?;
        self.in_time(async {
            connection.execute(WRITER_SETTINGS).await?;
            set_role(&mut connection, role).await?;
            ensure_current_epoch(&mut connection).await?;
            Ok(connection)
        })
        .await
    }

    /// Connects the tailer.
    pub(in crate::store) async fn tailer(&self, role: Option<&'static str>) -> Result<Session, DatabaseError> {
        let mut connection = self.login().await?;
        self.in_time(async {
            connection.execute(READ_SETTINGS).await?;
            set_role(&mut connection, role).await?;
            Ok(connection)
        })
        .await
    }

    /// Creates the pool for reads, once. Its connections are opened when they are first used.
    pub(in crate::store) fn pool(&self, config: &DatabaseConfig, role: Option<&'static str>) -> PgPool {
        let server_state = self.server_state.clone();
        let Servers { options, current, pool } = &*self.servers;
        let needs_check = options.len() > 1;
        let created = PgPoolOptions::new()
            .max_connections(config.max_connections - RESERVED)
            .idle_timeout(config.idle_timeout)
            .acquire_timeout(config.connect_timeout)
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let is_void = server_state.created_before_outage(meta.age);
                Box::pin(async move {
                    if !is_void && meta.idle_for > UNCHECKED_IDLE_MAX {
                        connection.ping().await?;
                    }
                    Ok(!is_void)
                })
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if needs_check && is_read_only(&mut *connection).await? {
                        return Err(sqlx::Error::Protocol("the server is not the primary".to_owned()));
                    }
                    connection.execute(READ_SETTINGS).await?;
                    set_role(connection, role).await
                })
            })
            .connect_lazy_with(options[current.load(Ordering::Relaxed)].clone());
        drop(pool.set(created.clone()));
        created
    }

    /// Returns the role of the service's connections: `None` if one login is used for everything, or if the role has no
    /// privileges (after a restore without them).
    pub(in crate::store) async fn role(&self, connection: &mut Session) -> Result<Option<&'static str>, DatabaseError> {
        let granted: bool = sqlx::query_scalar(APP_ROLE_IS_GRANTED).fetch_one(&mut *connection).await?;
        let taken = if granted { set_role(&mut *connection, Some(APP_ROLE)).await } else { Ok(()) };
        let taken = taken.map_err(DatabaseError::from);
        match taken {
            Ok(()) => {
                connection.execute("RESET ROLE").await?;
                Ok(granted.then_some(APP_ROLE))
            }
            Err(error) if has_sqlstate(&error, "42501") => Ok(None),
            Err(error) => Err(error),
        }
    }
}

async fn connect(server: &PgConnectOptions) -> Result<PgConnection, DatabaseError> {
    Ok(PgConnection::connect_with(server).await?)
}

/// Returns whether the server accepts no writes.
pub(in crate::store) async fn is_read_only<'c>(
    connection: impl Executor<'c, Database = Postgres>,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT current_setting('transaction_read_only')::boolean").fetch_one(connection).await
}

async fn set_role<'c>(
    connection: impl Executor<'c, Database = Postgres>,
    role: Option<&'static str>,
) -> Result<(), sqlx::Error> {
    if role.is_some() {
        connection.execute("SET ROLE annals_app").await?;
    }
    Ok(())
}
