//! JSON documents as text between this process and PostgreSQL. No document is parsed into a tree.
//!
//! In the binary format of the protocol, a JSONB value is the version 1 of the format, followed by the text. A cast
//! from or to text in a statement would make PostgreSQL copy the text two more times.

use sqlx::Type;
use sqlx::decode::Decode;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef, Postgres};

/// The version of the binary format.
const VERSION: u8 = 1;
/// The types `jsonb` and `jsonb[]`, the same in every PostgreSQL (`pg_type.dat`).
const JSONB: Oid = Oid(3802);
const JSONB_ARRAY: Oid = Oid(3807);

/// A JSON document as text: a parameter of a statement, or a JSONB column as PostgreSQL prints it.
#[derive(Debug, Clone, Copy)]
pub(super) struct JsonbText<'d>(pub(super) &'d str);

impl Type<Postgres> for JsonbText<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(JSONB)
    }
}

impl PgHasArrayType for JsonbText<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(JSONB_ARRAY)
    }
}

impl Encode<'_, Postgres> for JsonbText<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.push(VERSION);
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn size_hint(&self) -> usize {
        1 + self.0.len()
    }
}

impl<'r> Decode<'r, Postgres> for JsonbText<'r> {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        match value.as_bytes()?.split_first() {
            Some((&VERSION, text)) => Ok(Self(std::str::from_utf8(text)?)),
            _ => Err("a JSONB value of an unknown version".into()),
        }
    }
}
