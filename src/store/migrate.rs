//! The schema: brought up to date by `annals migrate` and, unless told otherwise, by `annals serve`.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

use super::connect::Connector;
use super::database::DatabaseConfig;

/// Which migrations a database has; its own name, since a service beside us may use sqlx too.
const MIGRATIONS_TABLE: &str = "annals_migrations";

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
    migrator
}

pub(super) const APPLIED_VERSION: &str = "SELECT coalesce(max(version), 0) FROM annals_migrations WHERE success";

#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(
        "the database already has tables that Annals did not make: {0}. Give Annals a database or a schema of its own \
         (DATABASE_NAME, or options=-csearch_path=annals in DATABASE_URL), or rename them"
    )]
    ForeignTables(String),
    #[error(
        "the login has no schema to work in: CREATE SCHEMA, or set search_path, for the user that Annals logs in as"
    )]
    NoSchema,
    #[error("the database's schema is at version {found}, newer than this Annals knows ({known}): run a newer Annals")]
    TooNew { found: i64, known: i64 },
    #[error("the database's schema is at version {found}, and this Annals needs {known}: run `annals migrate`")]
    TooOld { found: i64, known: i64 },
    #[error("PostgreSQL {0} is too old: Annals needs 15 or newer")]
    PostgresTooOld(String),
    #[error(
        "the database's encoding is {0}, and names and events are of any script: CREATE DATABASE … ENCODING 'UTF8' \
         TEMPLATE template0, and use that one"
    )]
    NotUtf8(String),
    #[error("the schema could not be brought up to date")]
    Migration(#[from] MigrateError),
    #[error("the database cannot be reached; DATABASE_URL, or DATABASE_HOST and the others, say where it is")]
    Database(#[from] sqlx::Error),
}

/// The version that this program needs.
pub fn known_version() -> i64 {
    migrator().iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Applies what is missing; returns the names of the migrations that were applied.
pub async fn migrate(config: &DatabaseConfig) -> Result<Vec<String>, SchemaError> {
    let mut connection = Connector::new(config).owner().await?;
    check_server(&mut connection).await?;
    refuse_foreign_tables(&mut connection).await?;
    work_in_one_schema(&mut connection).await?;
    let before = applied_version(&mut connection).await?;

    let migrator = migrator();
    migrator.run(&mut connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) => SchemaError::TooNew { found, known: known_version() },
        other => SchemaError::Migration(other),
    })?;
    connection.close().await?;
    Ok(migrator
        .iter()
        .filter(|migration| migration.version > before)
        .map(|migration| format!("{:04} {}", migration.version, migration.description))
        .collect())
}

/// Fails unless the schema is the one that this program needs.
pub async fn check(config: &DatabaseConfig) -> Result<(), SchemaError> {
    let mut connection = Connector::new(config).owner().await?;
    check_server(&mut connection).await?;
    refuse_foreign_tables(&mut connection).await?;
    let (found, known) = (applied_version(&mut connection).await?, known_version());
    connection.close().await?;
    match found.cmp(&known) {
        std::cmp::Ordering::Less => Err(SchemaError::TooOld { found, known }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(SchemaError::TooNew { found, known }),
    }
}

async fn check_server(connection: &mut PgConnection) -> Result<(), SchemaError> {
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

async fn refuse_foreign_tables(connection: &mut PgConnection) -> Result<(), SchemaError> {
    let foreign: Option<String> = sqlx::query_scalar(
        "SELECT string_agg(name, ', ')
           FROM unnest(ARRAY['events', 'snapshots', 'projection_positions', 'streams', 'event_ids', 'partitions',
                             'epochs', 'reducers']) AS names (name)
          WHERE to_regclass(quote_ident(current_schema()) || '.' || name) IS NOT NULL
            AND to_regclass(quote_ident(current_schema()) || '.annals_migrations') IS NULL",
    )
    .fetch_one(connection)
    .await?;
    foreign.map_or(Ok(()), |names| Err(SchemaError::ForeignTables(names)))
}

/// Functions keep the search_path that they are created under: exactly the schema of the tables, and nothing a session
/// could put before it.
async fn work_in_one_schema(connection: &mut PgConnection) -> Result<(), SchemaError> {
    let schema: Option<String> =
        sqlx::query_scalar("SELECT quote_ident(current_schema())").fetch_one(&mut *connection).await?;
    let schema = schema.ok_or(SchemaError::NoSchema)?;
    connection
        .execute(sqlx::AssertSqlSafe(format!("SET search_path = {schema}, pg_temp; SET client_min_messages = warning")))
        .await?;
    Ok(())
}

async fn applied_version(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('annals_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    if !exists {
        return Ok(0);
    }
    sqlx::query_scalar(APPLIED_VERSION).fetch_one(connection).await
}
