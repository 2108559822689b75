//! JSON documents between here and PostgreSQL, as texts: nothing here makes a tree of one.
//!
//! In the binary format of the protocol a JSONB value is its version, 1, and then the text. A cast from or to text in a statement
//! would have PostgreSQL copy that text twice more.

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, Postgres};
use sqlx::{ColumnIndex, Row, Type, ValueRef};

const VERSION: u8 = 1;
/// Of the types `jsonb` and `jsonb[]`, in every PostgreSQL (`pg_type.dat`).
const JSONB: Oid = Oid(3802);
const JSONB_ARRAY: Oid = Oid(3807);

/// A document on its way to PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'d>(pub(super) &'d str);

impl Type<Postgres> for Document<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(JSONB)
    }
}

impl PgHasArrayType for Document<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(JSONB_ARRAY)
    }
}

impl Encode<'_, Postgres> for Document<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.push(VERSION);
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn size_hint(&self) -> usize {
        1 + self.0.len()
    }
}

/// A JSONB column as the text that PostgreSQL prints.
pub(super) fn document(row: &PgRow, column: impl ColumnIndex<PgRow>) -> Result<Option<&str>, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(None);
    }
    match value.as_bytes().map_err(sqlx::Error::Decode)?.split_first() {
        Some((&VERSION, text)) => {
            std::str::from_utf8(text).map(Some).map_err(|error| sqlx::Error::Decode(error.into()))
        }
        _ => Err(sqlx::Error::Decode("a document of JSONB in an unknown form".into())),
    }
}
