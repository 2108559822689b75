//! Stored API keys.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection, Row};

use crate::store::error::StoreError;
use crate::store::primary::Primary;
use crate::store::reader::Reader;

const API_KEYS: &str = include_str!("../sql/api_keys.sql");
const CREATE_API_KEY: &str = include_str!("../sql/create_api_key.sql");
const REVOKE_API_KEY: &str = include_str!("../sql/revoke_api_key.sql");

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    pub key_id: String,
    pub name: String,
    pub secret_sha256: Vec<u8>,
    /// Grants in their text form, `scope:pattern`.
    pub grants: Vec<String>,
    pub requests_per_minute: Option<i32>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// An API key to store.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub key_id: String,
    pub name: String,
    pub secret_sha256: Vec<u8>,
    pub grants: Vec<String>,
    pub requests_per_minute: Option<i32>,
    pub expires_in: Option<Duration>,
}

/// Which API keys to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySelection {
    /// Those that have not expired and are not revoked.
    Valid,
    All,
}

impl Reader {
    /// Returns API keys, oldest first.
    pub async fn keys(&self, selection: KeySelection) -> Result<Vec<StoredKey>, StoreError> {
        let only_valid = selection == KeySelection::Valid;
        let rows = sqlx::query(API_KEYS).bind(only_valid).fetch_all(&mut *self.acquire().await?).await?;
        let key = |row: &sqlx::postgres::PgRow| {
            Ok::<_, sqlx::Error>(StoredKey {
                key_id: row.try_get("key_id")?,
                name: row.try_get("name")?,
                secret_sha256: row.try_get("secret_sha256")?,
                grants: row.try_get("grants")?,
                requests_per_minute: row.try_get("requests_per_minute")?,
                created_at: row.try_get("created_at")?,
                expires_at: row.try_get("expires_at")?,
                revoked_at: row.try_get("revoked_at")?,
            })
        };
        Ok(rows.iter().map(key).collect::<Result<_, _>>()?)
    }
}

impl Primary {
    /// Stores a key. Connects as the owner of the tables, because the role of the service may not write keys.
    pub async fn create_key(&self, key: &NewKey) -> Result<(), StoreError> {
        let mut connection = self.connector.owner().await?;
        sqlx::query(CREATE_API_KEY)
            .bind(&key.key_id)
            .bind(&key.name)
            .bind(&key.secret_sha256)
            .bind(&key.grants)
            .bind(key.requests_per_minute)
            .bind(key.expires_in.map(|time| time.as_secs_f64()))
            .execute(&mut connection)
            .await?;
        Ok(connection.close().await?)
    }

    /// Revokes a key. Returns when it was first revoked; `None` if it does not exist.
    pub async fn revoke_key(&self, key_id: &str) -> Result<Option<DateTime<Utc>>, StoreError> {
        let mut connection = self.connector.owner().await?;
        let revoked_at = sqlx::query_scalar(REVOKE_API_KEY).bind(key_id).fetch_optional(&mut connection).await?;
        connection.close().await?;
        Ok(revoked_at)
    }
}
