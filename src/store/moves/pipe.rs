//! Copies rows from one database to another: the output of a COPY is the input of the other one.

use futures_util::TryStreamExt;

use crate::store::connection::session::Session;

/// Copies the rows of a query of the source into a table of the target.
pub(super) async fn copy(
    source: &mut Session,
    query: &str,
    target: &mut Session,
    table: &str,
) -> Result<u64, sqlx::Error> {
    let mut rows = source.driver().copy_out_raw(&format!("COPY ({query}) TO STDOUT (FORMAT binary)")).await?;
    let mut sink = target.driver().copy_in_raw(&format!("COPY {table} FROM STDIN (FORMAT binary)")).await?;
    loop {
        match rows.try_next().await {
            Ok(Some(bytes)) => {
                sink.send(bytes).await?;
            }
            Ok(None) => return sink.finish().await,
            Err(error) => {
                // The error of the source is the cause.
                drop(sink.abort("the source has failed").await);
                return Err(error);
            }
        }
    }
}
