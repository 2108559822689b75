//! Databases that the benchmark creates, fills and drops, and sessions that use them without the service.

use std::fs::File;
use std::io::{Read, Write};

use annals::store::connection::config::ConnectOptions;
use futures_util::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection, Executor};

/// A database that exists until [`Scratch::remove`].
#[derive(Clone)]
pub struct Scratch {
    /// Another database of the same server. The database is created and dropped over a connection to it.
    other: ConnectOptions,
    name: String,
}

/// A connection to the database. Dropping it closes it, and rolls back its open transaction.
pub struct Session(PgConnection);

impl Session {
    /// Runs statements and discards their rows.
    pub async fn run(&mut self, sql: &'static str) -> anyhow::Result<()> {
        self.0.execute(sql).await?;
        Ok(())
    }

    /// Runs one statement with parameters of type text, and reads all its rows. The statement is prepared only once.
    pub async fn run_prepared(&mut self, sql: &str, parameters: impl Iterator<Item = &str>) -> anyhow::Result<()> {
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for parameter in parameters {
            query = query.bind(parameter.to_owned());
        }
        self.0.fetch_all(query).await?;
        Ok(())
    }

    /// Returns the id of the session's process.
    pub async fn backend(&mut self) -> anyhow::Result<u32> {
        let id: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut self.0).await?;
        Ok(u32::try_from(id)?)
    }

    /// Copies the rows of a table to a file.
    pub async fn copy_out(&mut self, table: &str, file: &mut File) -> anyhow::Result<()> {
        let mut rows = self.0.copy_out_raw(&format!("COPY (SELECT * FROM {table}) TO STDOUT")).await?;
        while let Some(bytes) = rows.try_next().await? {
            file.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Copies the rows of a query, discards them, and returns their number.
    pub async fn count_copied(&mut self, query: &str) -> anyhow::Result<u64> {
        let mut rows = self.0.copy_out_raw(&format!("COPY ({query}) TO STDOUT")).await?;
        let mut number = 0;
        // Each message of PostgreSQL has one row.
        while rows.try_next().await?.is_some() {
            number += 1;
        }
        Ok(number)
    }

    /// Copies rows to a table, from a file that [`Session::copy_out`] has written.
    pub async fn copy_in(&mut self, table: &str, file: &mut File) -> anyhow::Result<()> {
        const BUFFER_BYTES: usize = 64 * 1024;
        let mut copy = self.0.copy_in_raw(&format!("COPY {table} FROM STDIN")).await?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            copy.send(&buffer[..read]).await?;
        }
        copy.finish().await?;
        Ok(())
    }
}

impl Scratch {
    /// Creates the database `name` over a connection to the database `other`. Drops a database of that name first. The
    /// name must be a plain identifier.
    pub async fn create(other: ConnectOptions, name: &str) -> anyhow::Result<Self> {
        // Without this setting, sqlx logs the notice that no database of that name exists.
        let other = other.options([("client_min_messages", "warning")]);
        let scratch = Self { other, name: name.to_owned() };
        scratch.drop_database().await?;
        scratch.run_on_other(format!("CREATE DATABASE {name}")).await?;
        Ok(scratch)
    }

    /// Returns the options to connect to the database.
    pub fn options(&self) -> ConnectOptions {
        self.other.clone().database(&self.name)
    }

    /// Runs statements on a connection of their own, and discards their rows.
    pub async fn run(&self, sql: &'static str) -> anyhow::Result<()> {
        let mut connection = self.options().connect().await?;
        connection.execute(sql).await?;
        Ok(connection.close().await?)
    }

    /// Returns the only value of a query, which has type text.
    pub async fn query_text(&self, sql: &'static str) -> anyhow::Result<String> {
        let mut connection = self.options().connect().await?;
        let value = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(value)
    }

    /// Opens a session.
    pub async fn session(&self) -> anyhow::Result<Session> {
        Ok(Session(self.options().connect().await?))
    }

    /// Drops the database. PostgreSQL closes the connections to it.
    pub async fn remove(self) -> anyhow::Result<()> {
        self.drop_database().await
    }

    async fn drop_database(&self) -> anyhow::Result<()> {
        self.run_on_other(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).await
    }

    async fn run_on_other(&self, sql: String) -> anyhow::Result<()> {
        let mut connection = self.other.connect().await?;
        connection.execute(AssertSqlSafe(sql)).await?;
        Ok(connection.close().await?)
    }
}
