//! Stored API keys.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::domain::quota::Quotas;
use crate::store::error::StoreError;
use crate::store::primary::Primary;
use crate::store::reader::Reader;

const API_KEYS: &str = include_str!("../sql/api_keys.sql");
const LIST_API_KEYS: &str = include_str!("../sql/list_api_keys.sql");
const RECORD_KEY_USE: &str = include_str!("../sql/record_key_use.sql");
const CREATE_API_KEY: &str = include_str!("../sql/create_api_key.sql");
const REVOKE_API_KEY: &str = include_str!("../sql/revoke_api_key.sql");

/// A valid API key, with the hash of its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    pub key_id: String,
    pub name: String,
    pub secret_sha256: Vec<u8>,
    /// Grants in their text form, `scope:pattern`.
    pub grants: Vec<String>,
    pub quotas: Quotas,
    pub expires_at: Option<DateTime<Utc>>,
}

/// An API key as operators see it, valid or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    pub key_id: String,
    pub name: String,
    pub grants: Vec<String>,
    pub quotas: Quotas,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    /// Exact to a minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// An API key to store.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub key_id: String,
    pub name: String,
    pub secret_sha256: Vec<u8>,
    pub grants: Vec<String>,
    pub quotas: Quotas,
    pub expires_in: Option<Duration>,
}

fn quotas(row: &PgRow) -> Result<Quotas, sqlx::Error> {
    Ok(Quotas {
        requests: row.try_get("requests_per_minute")?,
        events: row.try_get("events_per_minute")?,
        bytes: row.try_get("bytes_per_minute")?,
    })
}

impl Reader {
    /// Returns the valid keys, oldest first.
    pub async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        let rows = sqlx::query(API_KEYS).fetch_all(&mut *self.acquire().await?).await?;
        let key = |row: &PgRow| {
            Ok::<_, sqlx::Error>(StoredKey {
                key_id: row.try_get("key_id")?,
                name: row.try_get("name")?,
                secret_sha256: row.try_get("secret_sha256")?,
                grants: row.try_get("grants")?,
                quotas: quotas(row)?,
                expires_at: row.try_get("expires_at")?,
            })
        };
        Ok(rows.iter().map(key).collect::<Result<_, _>>()?)
    }

    /// Returns all keys, oldest first.
    pub async fn list_keys(&self) -> Result<Vec<ListedKey>, StoreError> {
        let rows = sqlx::query(LIST_API_KEYS).fetch_all(&mut *self.acquire().await?).await?;
        let key = |row: &PgRow| {
            Ok::<_, sqlx::Error>(ListedKey {
                key_id: row.try_get("key_id")?,
                name: row.try_get("name")?,
                grants: row.try_get("grants")?,
                quotas: quotas(row)?,
                created_at: row.try_get("created_at")?,
                expires_at: row.try_get("expires_at")?,
                revoked_at: row.try_get("revoked_at")?,
                last_used_at: row.try_get("last_used_at")?,
            })
        };
        Ok(rows.iter().map(key).collect::<Result<_, _>>()?)
    }
}

impl Primary {
    /// Records when keys were last used.
    pub async fn record_key_use(&self, used: &[(String, DateTime<Utc>)]) -> Result<(), StoreError> {
        let (key_ids, times): (Vec<_>, Vec<_>) = used.iter().cloned().unzip();
        sqlx::query(RECORD_KEY_USE).bind(key_ids).bind(times).execute(&mut *self.acquire_to_write().await?).await?;
        Ok(())
    }

    /// Stores a key. Connects as the owner of the tables, because the role of the service may not write keys.
    pub async fn create_key(&self, key: &NewKey) -> Result<(), StoreError> {
        let mut connection = self.connector.login().await?;
        sqlx::query(CREATE_API_KEY)
            .bind(&key.key_id)
            .bind(&key.name)
            .bind(&key.secret_sha256)
            .bind(&key.grants)
            .bind(key.quotas.requests)
            .bind(key.quotas.events)
            .bind(key.quotas.bytes)
            .bind(key.expires_in.map(|time| time.as_secs_f64()))
            .execute(&mut connection)
            .await?;
        Ok(connection.close().await?)
    }

    /// Revokes a key. Returns when it was first revoked; `None` if it does not exist.
    pub async fn revoke_key(&self, key_id: &str) -> Result<Option<DateTime<Utc>>, StoreError> {
        let mut connection = self.connector.login().await?;
        let revoked_at = sqlx::query_scalar(REVOKE_API_KEY).bind(key_id).fetch_optional(&mut connection).await?;
        connection.close().await?;
        Ok(revoked_at)
    }
}
