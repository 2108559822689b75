//! Compares rows of two databases by their number and a sum of hashes of their texts.

use sqlx::AssertSqlSafe;

use crate::store::connection::session::Session;

/// The number of rows, and the sum of the first 64 bits of the MD5 of each row's text. It finds rows that are missing,
/// doubled or different. It does not resist a forger, who could as well change both sides.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Digest {
    rows: i64,
    sum: String,
}

impl Digest {
    /// Returns the digest of the rows of a query. Both databases have the same columns in the same order.
    pub(super) async fn of(session: &mut Session, query: &str) -> Result<Self, sqlx::Error> {
        let statement = format!(
            "SELECT count(*) AS rows, \
                    coalesce(sum(('x' || left(md5(r::text), 16))::bit(64)::bigint::numeric), 0)::text AS sum \
               FROM ({query}) AS r"
        );
        let (rows, sum) = sqlx::query_as(AssertSqlSafe(statement)).fetch_one(session).await?;
        Ok(Self { rows, sum })
    }
}
