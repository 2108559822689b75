//! Partitions of `events`: created ahead of time, and sealed when their month is over.
//!
//! A partition whose month is over never changes again, because times never go backwards along the log. The existence
//! of a later event proves that it is over; a clock does not. Sealing writes the last version of each stream into
//! `streams`, so the head of a stream is searched only in the few open partitions. Sealed partitions are always the
//! oldest ones. Sealing can be interrupted and repeated, and several processes can do it at the same time.

use chrono::{DateTime, Months, Utc};

use crate::domain::event::BEGINNING_OF_TIME;
use crate::store::connection::session::Session;
use crate::store::error::StoreError;
use crate::store::log::epochs::{ensure_current_epoch, origin_is_visible};
use crate::store::log::head::read_log_head;
use crate::store::partitions::catalogue::read_open_from;
use crate::store::primary::Primary;

/// The number of months for which partitions are created ahead of the log.
const MONTHS_AHEAD: u32 = 3;
/// The number of streams that one statement seals.
const SEAL_STREAMS: i64 = 10_000;

const CREATE_PARTITIONS: &str = include_str!("../sql/create_partitions.sql");
const PARTITIONS_TO_SEAL: &str = include_str!("../sql/partitions_to_seal.sql");
const SEAL_STREAMS_SQL: &str = include_str!("../sql/seal_streams.sql");
const SEAL_PARTITION: &str = include_str!("../sql/seal_partition.sql");

impl Primary {
    /// Runs one pass of the maintenance job: creates partitions ahead of the log, and seals those whose month is over.
    pub async fn maintain_partitions(&self) -> Result<(), StoreError> {
        let mut connection = self.connector.login().await?;
        // An epoch must begin before any request is served, so that a client with an older cursor gets `epoch_changed`.
        ensure_current_epoch(&mut connection).await?;
        if !origin_is_visible(&mut connection).await? {
            let advice = "after a failover or a restore, run `annals epoch --begin REASON`";
            tracing::warn!(advice, "PostgreSQL does not show its timeline");
        }
        create_missing_partitions(&mut connection, self.clock.set_to()).await?;
        seal_partitions(&mut connection).await?;
        self.reload_catalogue(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}

/// Creates the partition of the next event, and those of the following months, if they are missing. `now` is the time
/// of a clock that a test has set.
pub(in crate::store) async fn create_missing_partitions(
    connection: &mut Session,
    now: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    let now: DateTime<Utc> = match now {
        Some(now) => now,
        None => sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut *connection).await?,
    };
    // If no partition exists, no event exists.
    let last = match read_open_from(connection).await? {
        Some(open_from) => read_log_head(connection, open_from).await?.occurred_at,
        None => None,
    };
    let next = last.map_or(now, |last| last.max(now));
    create_partitions(connection, next, next + Months::new(MONTHS_AHEAD)).await
}

/// Creates the partitions from the month of `from` to the month of `to` where they are missing.
pub(in crate::store) async fn create_partitions(
    connection: &mut Session,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let created: i64 = sqlx::query_scalar(CREATE_PARTITIONS).bind(from).bind(to).fetch_one(connection).await?;
    if created > 0 {
        tracing::info!(created, from = %from.format("%Y-%m"), to = %to.format("%Y-%m"), "created partitions");
    }
    Ok(())
}

/// Seals the partitions whose month is over.
pub(in crate::store) async fn seal_partitions(connection: &mut Session) -> Result<(), sqlx::Error> {
    let open_from = read_open_from(connection).await?.unwrap_or(BEGINNING_OF_TIME);
    let Some(last) = read_log_head(connection, open_from).await?.occurred_at else { return Ok(()) };
    let partitions: Vec<(DateTime<Utc>, DateTime<Utc>)> =
        sqlx::query_as(PARTITIONS_TO_SEAL).bind(last).fetch_all(&mut *connection).await?;
    for (starts_at, ends_at) in &partitions {
        let mut sealed_up_to = Some((String::new(), String::new()));
        while let Some((aggregate_type, aggregate_id)) = sealed_up_to {
            sealed_up_to = sqlx::query_as(SEAL_STREAMS_SQL)
                .bind(starts_at)
                .bind(ends_at)
                .bind(aggregate_type)
                .bind(aggregate_id)
                .bind(SEAL_STREAMS)
                .fetch_optional(&mut *connection)
                .await?;
        }
        sqlx::query(SEAL_PARTITION).bind(starts_at).bind(ends_at).execute(&mut *connection).await?;
    }
    if let (Some((first, _)), Some((last, _))) = (partitions.first(), partitions.last()) {
        let (from, to) = (first.format("%Y-%m"), last.format("%Y-%m"));
        tracing::info!(%from, %to, "sealed partitions");
    }
    Ok(())
}
