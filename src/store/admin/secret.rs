//! The secret of the store: the namespace of derived event ids. The migration made it, and backups contain it.

use uuid::Uuid;

use crate::domain::derived_id::DerivedIds;
use crate::store::connection::session::Session;
use crate::store::error::StoreError;
use crate::store::reader::Reader;

const ID_NAMESPACE: &str = include_str!("../sql/id_namespace.sql");

impl Reader {
    /// Returns the derivation of event ids, with the secret of this store.
    pub async fn derived_ids(&self) -> Result<DerivedIds, StoreError> {
        Ok(read_derived_ids(&mut *self.acquire().await?).await?)
    }
}

/// Reads the derivation of event ids.
pub(in crate::store) async fn read_derived_ids(connection: &mut Session) -> Result<DerivedIds, sqlx::Error> {
    let namespace: Uuid = sqlx::query_scalar(ID_NAMESPACE).fetch_one(connection).await?;
    Ok(DerivedIds::new(namespace))
}
