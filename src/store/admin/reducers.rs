//! Stored reducers. This module does not execute them.

use chrono::{DateTime, Utc};

use crate::domain::reducer::{Reducer, ReducerSource};
use crate::store::error::StoreError;
use crate::store::primary::Primary;
use crate::store::reader::Reader;

const PUT_REDUCER: &str = include_str!("../sql/put_reducer.sql");
const REDUCERS: &str = include_str!("../sql/reducers.sql");
const DELETE_REDUCER: &str = include_str!("../sql/delete_reducer.sql");

type Row = (String, i64, String, String, i32, DateTime<Utc>);

impl Primary {
    /// Registers a type's reducer, or replaces it. Returns the reducer, and whether the type had none before.
    pub async fn put_reducer(
        &self,
        aggregate_type: &str,
        source: ReducerSource,
    ) -> Result<(Reducer, bool), StoreError> {
        let (created, revision, created_at): (bool, i64, DateTime<Utc>) = sqlx::query_as(PUT_REDUCER)
            .bind(aggregate_type)
            .bind(source.language.as_str())
            .bind(&source.source)
            .bind(i32::try_from(source.snapshot_every).unwrap_or(i32::MAX))
            .fetch_one(&mut *self.acquire_to_write().await?)
            .await?;
        Ok((Reducer { aggregate_type: aggregate_type.to_owned(), revision, source, created_at }, created))
    }

    /// Deletes a type's reducer. Returns whether it existed.
    pub async fn delete_reducer(&self, aggregate_type: &str) -> Result<bool, StoreError> {
        let deleted =
            sqlx::query(DELETE_REDUCER).bind(aggregate_type).execute(&mut *self.acquire_to_write().await?).await?;
        Ok(deleted.rows_affected() > 0)
    }
}

impl Reader {
    /// Returns a type's reducer; `None` if it has none.
    pub async fn reducer(&self, aggregate_type: &str) -> Result<Option<Reducer>, StoreError> {
        Ok(self.read_reducers(Some(aggregate_type)).await?.into_iter().next())
    }

    /// Returns all reducers, in byte order of their types.
    pub async fn reducers(&self) -> Result<Vec<Reducer>, StoreError> {
        self.read_reducers(None).await
    }

    async fn read_reducers(&self, aggregate_type: Option<&str>) -> Result<Vec<Reducer>, StoreError> {
        let rows: Vec<Row> =
            sqlx::query_as(REDUCERS).bind(aggregate_type).fetch_all(&mut *self.acquire().await?).await?;
        rows.into_iter().map(reducer).collect()
    }
}

fn reducer(
    (aggregate_type, revision, language, source, snapshot_every, created_at): Row,
) -> Result<Reducer, StoreError> {
    let language = language.parse().map_err(StoreError::unreadable)?;
    let snapshot_every = u32::try_from(snapshot_every).map_err(StoreError::unreadable)?;
    let source = ReducerSource { language, source, snapshot_every };
    Ok(Reducer { aggregate_type, revision, source, created_at })
}
