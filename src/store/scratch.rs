//! Databases that a benchmark fills and throws away, and what it does to them beside the service.

use std::fs::File;
use std::io::{Read, Write};

use futures_util::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection, Executor};

use super::database::ConnectOptions;
use super::error::StoreError;

/// A database that exists until [`Scratch::remove`].
#[derive(Clone)]
pub struct Scratch {
    other: ConnectOptions,
    name: String,
}

/// Somebody else at work in it.
pub struct Session(PgConnection);

impl Session {
    pub async fn run(&mut self, sql: &'static str) -> Result<(), StoreError> {
        self.0.execute(sql).await?;
        Ok(())
    }

    /// Runs one statement, which stays prepared, and takes its rows as they come.
    pub async fn query(&mut self, sql: &str, parameters: impl Iterator<Item = &str>) -> Result<(), StoreError> {
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for parameter in parameters {
            query = query.bind(parameter.to_owned());
        }
        self.0.fetch_all(query).await?;
        Ok(())
    }

    /// Writes a table to a file, as `COPY` does.
    pub async fn copy_out(&mut self, table: &str, file: &mut File) -> Result<(), StoreError> {
        let mut rows = self.0.copy_out_raw(&format!("COPY (SELECT * FROM {table}) TO STDOUT")).await?;
        while let Some(bytes) = rows.try_next().await? {
            file.write_all(&bytes).map_err(sqlx::Error::from)?;
        }
        Ok(())
    }

    /// Reads a table from such a file.
    pub async fn copy_in(&mut self, table: &str, file: &mut File) -> Result<(), StoreError> {
        const PIECE: usize = 64 * 1024;
        let mut copy = self.0.copy_in_raw(&format!("COPY {table} FROM STDIN")).await?;
        let mut piece = vec![0; PIECE];
        loop {
            let read = file.read(&mut piece).map_err(sqlx::Error::from)?;
            if read == 0 {
                break;
            }
            copy.send(&piece[..read]).await?;
        }
        copy.finish().await?;
        Ok(())
    }
}

impl Scratch {
    /// Makes the database `name`, a plain identifier, anew, over a connection to another one.
    pub async fn create(other: ConnectOptions, name: &str) -> Result<Self, StoreError> {
        // Without a notice that there was no such database.
        let other = other.options([("client_min_messages", "warning")]);
        let scratch = Self { other, name: name.to_owned() };
        scratch.drop_database().await?;
        scratch.run_beside(format!("CREATE DATABASE {name}")).await?;
        Ok(scratch)
    }

    pub fn options(&self) -> ConnectOptions {
        self.other.clone().database(&self.name)
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
