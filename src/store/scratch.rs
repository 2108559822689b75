//! Databases that a benchmark fills and throws away, and what it does to them beside the service.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection, Executor};

use super::database::ConnectOptions;
use super::error::StoreError;

/// A database that exists until [`Scratch::remove`].
pub struct Scratch {
    other: ConnectOptions,
    name: &'static str,
}

/// Somebody else at work in it.
pub struct Session(PgConnection);

impl Session {
    pub async fn run(&mut self, sql: &'static str) -> Result<(), StoreError> {
        self.0.execute(sql).await?;
        Ok(())
    }
}

impl Scratch {
    /// Makes the database `name`, a plain identifier, anew, over a connection to another one.
    pub async fn create(other: ConnectOptions, name: &'static str) -> Result<Self, StoreError> {
        let scratch = Self { other, name };
        scratch.drop_database().await?;
        scratch.run_beside(format!("CREATE DATABASE {name}")).await?;
        Ok(scratch)
    }

    pub fn options(&self) -> ConnectOptions {
        self.other.clone().database(self.name)
    }

    /// Runs statements in it.
    pub async fn run(&self, sql: &'static str) -> Result<(), StoreError> {
        let mut connection = self.options().connect().await?;
        connection.execute(sql).await?;
        Ok(connection.close().await?)
    }

    /// A setting or a number, as text.
    pub async fn ask(&self, sql: &'static str) -> Result<String, StoreError> {
        let mut connection = self.options().connect().await?;
        let answer = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(answer)
    }

    /// A session that goes on until it is dropped.
    pub async fn session(&self) -> Result<Session, StoreError> {
        Ok(Session(self.options().connect().await?))
    }

    pub async fn remove(self) -> Result<(), StoreError> {
        self.drop_database().await
    }

    async fn drop_database(&self) -> Result<(), StoreError> {
        self.run_beside(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).await
    }

    async fn run_beside(&self, sql: String) -> Result<(), StoreError> {
        let mut connection = self.other.connect().await?;
        connection.execute(AssertSqlSafe(sql)).await?;
        Ok(connection.close().await?)
    }
}
