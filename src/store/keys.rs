//! API keys as they are stored.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection, Row};

use super::Store;
use super::error::StoreError;

const API_KEYS: &str = include_str!("sql/api_keys.sql");
const CREATE_API_KEY: &str = include_str!("sql/create_api_key.sql");
const REVOKE_API_KEY: &str = include_str!("sql/revoke_api_key.sql");

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    pub key_id: String,
    pub name: String,
    pub secret_sha256: Vec<u8>,
    /// `scope:pattern`, each.
    pub grants: Vec<String>,
    pub requests_per_minute: Option<i32>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A key to be stored.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub key_id: String,
    pub name: String,
    pub secret_sha256: Vec<u8>,
    pub grants: Vec<String>,
    pub requests_per_minute: Option<i32>,
    pub expires_in: Option<Duration>,
}

impl Store {
    /// Keys that are good now, or all that ever were.
    pub async fn keys(&self, good_ones: bool) -> Result<Vec<StoredKey>, StoreError> {
        let rows = sqlx::query(API_KEYS).bind(good_ones).fetch_all(&mut *self.acquire().await?).await?;
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

    /// Stores a key, as the owner of the tables: no service may.
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

    /// Ends a key; when it ended, `None` if there is none.
    pub async fn revoke_key(&self, key_id: &str) -> Result<Option<DateTime<Utc>>, StoreError> {
        let mut connection = self.connector.owner().await?;
        let revoked_at = sqlx::query_scalar(REVOKE_API_KEY).bind(key_id).fetch_optional(&mut connection).await?;
        connection.close().await?;
        Ok(revoked_at)
    }
}
