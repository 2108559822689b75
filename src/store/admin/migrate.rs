//! The schema. `annals migrate` brings it up to date, and so does `annals serve` unless it is configured otherwise.
//!
//! Tables change by numbered migrations, each applied once. Functions are files of their own: the service applies each
//! file whose SHA-256 differs from the recorded one, in one transaction. All of it happens under the lock of
//! migrations.
//!
//! Invariant: an older program never replaces a function that a newer one has applied, so two versions of the service
//! can run side by side during an upgrade.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection, Executor, Row, SqlSafeStr};

use crate::domain::hex::hex;
use crate::store::connection::config::DatabaseConfig;
use crate::store::connection::connector::Connector;
use crate::store::connection::explain::{explain, is_temporary, pooler};
use crate::store::connection::session::Session;
use crate::store::error::DatabaseError;

/// The table of applied migrations. It does not have sqlx's default name, because another program in the same database
/// may use sqlx, too.
const MIGRATIONS_TABLE: &str = "annals_migrations";

const APPLIED_VERSION: &str = include_str!("../sql/applied_version.sql");
const APPLIED_FUNCTIONS: &str = include_str!("../sql/applied_functions.sql");
const RECORD_FUNCTION: &str = include_str!("../sql/record_function.sql");
const FOREIGN_TABLES: &str = include_str!("../sql/foreign_tables.sql");

/// A file with one function or procedure, and its triggers.
pub struct FunctionFile {
    /// The name of the function, and of the file without `.sql`.
    pub name: &'static str,
    /// The text of the file.
    pub source: &'static str,
}

macro_rules! function_files {
    ($($name:literal),* $(,)?) => {
        &[$(FunctionFile {
            name: $name,
            source: include_str!(concat!("../../../migrations/functions/", $name, ".sql")),
        }),*]
    };
}

/// All function files. The bodies of functions are not checked while they are applied, so the order does not matter.
pub const FUNCTION_FILES: &[FunctionFile] = function_files![
    "append_event",
    "append_event_locked",
    "append_events",
    "append_events_locked",
    "attach_partition_table",
    "begin_epoch",
    "change_group",
    "count_events",
    "create_group",
    "create_partition",
    "create_partition_table",
    "delete_group",
    "end_of_log",
    "ensure_current_epoch",
    "erase_again",
    "erase_events",
    "erase_member",
    "erase_members",
    "event_content_hash",
    "first_version_after",
    "import_erasure",
    "last_event",
    "load_aggregate",
    "log_origin",
    "move_group",
    "partition_states",
    "put_snapshot",
    "record_announcement",
    "record_served_epochs",
    "record_snapshot_change",
    "refuse_change",
    "refuse_while_moving",
    "replace_partition_table",
    "seal_partition",
    "seal_streams",
    "set_move_triggers",
    "set_projection",
    "snapshot_checksum",
    "step_partition",
    "stream_bucket",
    "stream_head",
];

/// Grants the rights to execute functions; applied after the function files.
const GRANTS: &str = include_str!("../../../migrations/grants.sql");

/// Returns all migrations, by version. The macro `sqlx::migrate!` would find the files, but the build would compile the
/// driver and its TLS a second time for the macro.
fn migrations() -> Vec<Migration> {
    let files = [
        (1, "schema", include_str!("../../../migrations/0001_schema.sql")),
        (2, "groups", include_str!("../../../migrations/0002_groups.sql")),
        (3, "erasures", include_str!("../../../migrations/0003_erasures.sql")),
        (4, "unique first epoch", include_str!("../../../migrations/0004_unique_first_epoch.sql")),
        (5, "log moves", include_str!("../../../migrations/0005_log_moves.sql")),
        (6, "lost epochs", include_str!("../../../migrations/0006_lost_epochs.sql")),
    ];
    let migration = |(version, name, source): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, source.into_sql_str(), false)
    };
    files.into_iter().map(migration).collect()
}

fn migrator() -> Migrator {
    let mut migrator = Migrator::with_migrations(migrations());
    migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
    // The lock of migrations is held until the functions are applied, too.
    migrator.set_locking(false);
    migrator
}

/// Why the schema cannot be used, or brought up to date. The texts say what to do.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(
        "the database already has tables that Annals did not create: {0}. Give Annals a database or a schema of its \
         own (DATABASE_NAME, or options=-csearch_path=annals in DATABASE_URL), or rename the tables"
    )]
    ForeignTables(String),
    #[error(
        "the user that Annals logs in as has no schema to work in: run GRANT CREATE, USAGE ON SCHEMA public TO the \
         user, or create a schema and set the user's search_path"
    )]
    NoSchema,
    #[error("the schema of the database has version {found}, and this Annals supports {known}: run a newer Annals")]
    TooNew { found: i64, known: i64 },
    #[error("the schema of the database has version {found}, and this Annals needs {known}: run `annals migrate`")]
    TooOld { found: i64, known: i64 },
    #[error("these functions of the database are outdated: {0}. Run `annals migrate`")]
    FunctionsOutdated(String),
    #[error("PostgreSQL {0} is too old: Annals needs 15 or newer")]
    PostgresTooOld(String),
    #[error(
        "the encoding of the database is {0}, and Annals stores text of any script: create a database with \
         CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
    )]
    NotUtf8(String),
    #[error("the schema could not be brought up to date: {0}")]
    Migration(String),
    /// Why the database cannot be used, as a sentence.
    #[error("{0}")]
    Unusable(String),
    /// Why the database cannot be used at this time.
    #[error("{0}")]
    NotAvailable(String),
    #[error("{0}")]
    Database(DatabaseError),
}

impl SchemaError {
    /// Replaces an error of the database with a sentence for the operator, with the cause and the remedy.
    fn explained(self, config: &DatabaseConfig) -> Self {
        match self {
            Self::Database(error) if is_temporary(&error) => Self::NotAvailable(explain(&error, config)),
            Self::Database(error) => Self::Unusable(explain(&error, config)),
            other => other,
        }
    }
}

impl From<DatabaseError> for SchemaError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl From<MigrateError> for SchemaError {
    fn from(error: MigrateError) -> Self {
        Self::Migration(match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                return Self::Database(error.into());
            }
            MigrateError::VersionMismatch(version) => format!(
                "migration {version} of this Annals differs from the applied one: run the Annals that applied it"
            ),
            other => other.to_string(),
        })
    }
}

impl From<sqlx::Error> for SchemaError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Returns the version of the schema that this program needs.
pub fn known_version() -> i64 {
    migrator().iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Applies missing migrations, and changed function files. Returns the names of both.
pub async fn migrate(config: &DatabaseConfig) -> Result<Vec<String>, SchemaError> {
    migrate_database(config).await.map_err(|error| error.explained(config))
}

async fn migrate_database(config: &DatabaseConfig) -> Result<Vec<String>, SchemaError> {
    let mut connection = connect(config).await?;
    check_server(&mut connection).await?;
    refuse_foreign_tables(&mut connection).await?;
    fix_search_path(&mut connection).await?;
    connection.driver().lock().await?;
    let applied = apply(&mut connection).await?;
    connection.driver().unlock().await?;
    connection.close().await?;
    Ok(applied)
}

async fn apply(connection: &mut Session) -> Result<Vec<String>, SchemaError> {
    let before = applied_version(connection).await?;
    let migrator = migrator();
    migrator.run(connection.driver()).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) => SchemaError::TooNew { found, known: known_version() },
        other => other.into(),
    })?;
    let migrations = migrator.iter().filter(|migration| migration.version > before);
    let mut applied: Vec<_> =
        migrations.map(|migration| format!("{:04} {}", migration.version, migration.description)).collect();
    applied.extend(apply_functions(connection).await?);
    Ok(applied)
}

/// Applies the function files that changed, in one transaction.
async fn apply_functions(connection: &mut Session) -> Result<Vec<String>, SchemaError> {
    let outdated = outdated_functions(connection).await?;
    if outdated.is_empty() {
        return Ok(Vec::new());
    }
    let mut transaction = connection.driver().begin().await?;
    transaction.execute("SET LOCAL check_function_bodies = off").await?;
    // Appends and reads wait behind a statement that waits for a lock. With a limit it fails instead, and can be
    // retried.
    transaction.execute("SET LOCAL lock_timeout = '3s'").await?;
    for file in &outdated {
        transaction.execute(AssertSqlSafe(file.source)).await?;
        sqlx::query(RECORD_FUNCTION)
            .bind(file.name)
            .bind(sha256(file.source))
            .bind(env!("CARGO_PKG_VERSION"))
            .execute(&mut *transaction)
            .await?;
    }
    transaction.execute(AssertSqlSafe(GRANTS)).await?;
    transaction.commit().await?;
    Ok(outdated.iter().map(|file| format!("function {}", file.name)).collect())
}

/// Returns the files that differ from what is recorded, without those that a newer program has applied.
async fn outdated_functions(connection: &mut Session) -> Result<Vec<&'static FunctionFile>, sqlx::Error> {
    let recorded: Vec<(String, String, String)> = sqlx::query_as(APPLIED_FUNCTIONS).fetch_all(&mut *connection).await?;
    let recorded: HashMap<_, _> =
        recorded.into_iter().map(|(name, sha256, version)| (name, (sha256, version))).collect();
    let is_outdated = |file: &&FunctionFile| match recorded.get(file.name) {
        None => true,
        Some((recorded, version)) => *recorded != sha256(file.source) && !is_newer(version, env!("CARGO_PKG_VERSION")),
    };
    Ok(FUNCTION_FILES.iter().filter(is_outdated).collect())
}

fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Returns whether one version of the program, like `1.2.3`, is newer than another one.
fn is_newer(version: &str, than: &str) -> bool {
    let parse = |version: &str| -> Vec<u64> {
        let release = version.split(['-', '+']).next().unwrap_or(version);
        release.split('.').map(|number| number.parse().unwrap_or(0)).collect()
    };
    parse(version) > parse(than)
}

/// Returns an error unless the schema is the one that this program needs.
pub async fn check(config: &DatabaseConfig) -> Result<(), SchemaError> {
    check_database(config).await.map_err(|error| error.explained(config))
}

async fn check_database(config: &DatabaseConfig) -> Result<(), SchemaError> {
    let mut connection = connect(config).await?;
    check_server(&mut connection).await?;
    refuse_foreign_tables(&mut connection).await?;
    let (found, known) = (applied_version(&mut connection).await?, known_version());
    match found.cmp(&known) {
        std::cmp::Ordering::Less => return Err(SchemaError::TooOld { found, known }),
        std::cmp::Ordering::Equal => {}
        std::cmp::Ordering::Greater => return Err(SchemaError::TooNew { found, known }),
    }
    let outdated: Vec<_> = outdated_functions(&mut connection).await?.iter().map(|file| file.name).collect();
    connection.close().await?;
    if outdated.is_empty() { Ok(()) } else { Err(SchemaError::FunctionsOutdated(outdated.join(", "))) }
}

/// Connects, and returns an error if a pooler assigns sessions to transactions.
async fn connect(config: &DatabaseConfig) -> Result<Session, SchemaError> {
    let connector = Connector::new(config);
    let (mut connection, mut other) = (connector.login().await?, connector.login().await?);
    let has_session = has_session(&mut connection, &mut other).await?;
    other.close().await?;
    if has_session { Ok(connection) } else { Err(SchemaError::Unusable(pooler(&config.place()))) }
}

/// Returns whether a connection has a session of its own, in which a setting remains.
///
/// The other connection has a transaction open meanwhile. A pooler in transaction mode gives it the session in which the
/// setting was set, or the connection gets another session afterwards. The statements are not prepared, because such a
/// pooler refuses prepared ones.
async fn has_session(connection: &mut Session, other: &mut Session) -> Result<bool, sqlx::Error> {
    const SET: &str = "SELECT set_config('annals.session', gen_random_uuid()::text, false)";
    const GET: &str = "SELECT current_setting('annals.session', true)";
    let value: String = connection.fetch_one(SET).await?.try_get(0)?;
    other.execute("BEGIN").await?;
    let shared: Option<String> = other.fetch_one(GET).await?.try_get(0)?;
    let own: Option<String> = connection.fetch_one(GET).await?.try_get(0)?;
    other.execute("ROLLBACK").await?;
    Ok(own.as_ref() == Some(&value) && shared.as_ref() != Some(&value))
}

async fn check_server(connection: &mut Session) -> Result<(), SchemaError> {
    let (number, name, encoding): (i32, String, String) = sqlx::query_as(
        "SELECT current_setting('server_version_num')::integer, current_setting('server_version'),
                current_setting('server_encoding')",
    )
    .fetch_one(connection)
    .await?;
    if number < 150_000 {
        return Err(SchemaError::PostgresTooOld(name));
    }
    if encoding != "UTF8" {
        return Err(SchemaError::NotUtf8(encoding));
    }
    Ok(())
}

async fn refuse_foreign_tables(connection: &mut Session) -> Result<(), SchemaError> {
    let foreign: Option<String> = sqlx::query_scalar(FOREIGN_TABLES).fetch_one(connection).await?;
    foreign.map_or(Ok(()), |names| Err(SchemaError::ForeignTables(names)))
}

/// Sets the search path to the schema of the tables. Each function stores the search path under which it is created,
/// and that path must not name a schema in which another session could create objects.
async fn fix_search_path(connection: &mut Session) -> Result<(), SchemaError> {
    let schema: Option<String> =
        sqlx::query_scalar("SELECT quote_ident(current_schema())").fetch_one(&mut *connection).await?;
    let schema = schema.ok_or(SchemaError::NoSchema)?;
    connection
        .execute(AssertSqlSafe(format!("SET search_path = {schema}, pg_temp; SET client_min_messages = warning")))
        .await?;
    Ok(())
}

async fn applied_version(connection: &mut Session) -> Result<i64, sqlx::Error> {
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('annals_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    if !exists {
        return Ok(0);
    }
    sqlx::query_scalar(APPLIED_VERSION).fetch_one(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_program_does_not_replace_the_functions_of_a_newer_one() {
        assert!(is_newer("0.2.0", "0.1.0"));
        assert!(is_newer("0.10.0", "0.9.9"));
        assert!(is_newer("1.0.0", "0.99.0-beta.1"));
        assert!(!is_newer("0.1.0", "0.1.0"));
        assert!(!is_newer("0.1.0", "0.2.0"));
    }

    #[test]
    fn every_function_file_is_applied() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/functions");
        let entries = std::fs::read_dir(folder).expect("the folder of functions");
        let mut files: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .map(|name| name.trim_end_matches(".sql").to_owned())
            .collect();
        files.sort();
        let applied: Vec<_> = FUNCTION_FILES.iter().map(|file| file.name).collect();
        assert_eq!(files, applied);
    }
}
