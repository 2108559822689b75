//! pgmq and message-db: functions in a database.

use std::path::Path;
use std::time::{Duration, Instant};

use annals::store::connection::config::ConnectOptions;
use anyhow::Context;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor};
use tokio::task::JoinSet;

use super::per_second;
use crate::load::{EVENT_DATA, EVENTS_OF_STREAM, PARTITIONS};
use crate::scratch::Scratch;

/// The largest number of events that a worker reads at once.
const BATCH: i64 = 100;
/// The seconds for which a worker owns a message of pgmq.
const VISIBILITY_SECONDS: i32 = 30;

/// A queue of pgmq, whose messages are grouped by stream.
pub struct Pgmq {
    scratch: Scratch,
    events: u64,
}

/// A category of message-db.
pub struct MessageDb {
    scratch: Scratch,
}

impl Pgmq {
    pub async fn create(other: &ConnectOptions, functions: &Path, events: u64) -> anyhow::Result<Self> {
        let scratch = Scratch::create(other.clone(), "annals_bench_pgmq").await?;
        install(&scratch, functions).await?;
        Ok(Self { scratch, events })
    }

    /// Fills a new queue, and lets workers empty it. Returns the number of messages per second.
    pub async fn catch_up(&self, workers: usize, time: Duration) -> anyhow::Result<f64> {
        let mut session = self.scratch.options().connect().await?;
        session.execute("SELECT pgmq.drop_queue(queue_name) FROM pgmq.list_queues()").await?;
        session.execute("SELECT pgmq.create('work')").await?;
        let fill = "
            SELECT count(*)
              FROM (SELECT array_agg($1::jsonb ORDER BY n) AS messages,
                           array_agg(jsonb_build_object('x-pgmq-group', 'ord-' || (n - 1) / $3) ORDER BY n) AS headers
                      FROM generate_series(1, $2) AS n
                     GROUP BY (n - 1) / 1000
                     ORDER BY (n - 1) / 1000) AS m,
                   pgmq.send_batch('work', m.messages, m.headers)";
        sqlx::query(fill)
            .bind(EVENT_DATA)
            .bind(i64::try_from(self.events)?)
            .bind(i64::try_from(EVENTS_OF_STREAM)?)
            .execute(&mut session)
            .await?;
        session.execute("ANALYZE").await?;
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            let session = self.scratch.options().connect().await?;
            tasks.spawn(empty_queue(session, started + time));
        }
        count(tasks, started).await
    }

    pub async fn remove(self) -> anyhow::Result<()> {
        self.scratch.remove().await
    }
}

async fn empty_queue(mut session: PgConnection, until: Instant) -> anyhow::Result<u64> {
    let mut processed = 0;
    loop {
        let read = "SELECT r.msg_id, r.message::text FROM pgmq.read_grouped_head('work', $1, $2) AS r";
        let messages: Vec<(i64, String)> =
            sqlx::query_as(read).bind(VISIBILITY_SECONDS).bind(i32::try_from(BATCH)?).fetch_all(&mut session).await?;
        let ids: Vec<i64> = messages.iter().map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            sqlx::query("SELECT pgmq.delete('work', $1)").bind(&ids).fetch_all(&mut session).await?;
        }
        processed += ids.len() as u64;
        if ids.is_empty() || Instant::now() >= until {
            return Ok(processed);
        }
    }
}

impl MessageDb {
    pub async fn create(other: &ConnectOptions, functions: &Path, events: u64) -> anyhow::Result<Self> {
        let scratch = Scratch::create(other.clone(), "annals_bench_message_db").await?;
        install(&scratch, functions).await?;
        let mut session = scratch.options().connect().await?;
        let fill = "
            INSERT INTO message_store.messages (stream_name, type, position, data)
            SELECT 'bench-' || (n - 1) / $3, 'OrderPlaced', (n - 1) % $3, $1::jsonb
              FROM generate_series(1, $2) AS n
             ORDER BY n";
        sqlx::query(fill)
            .bind(EVENT_DATA)
            .bind(i64::try_from(events)?)
            .bind(i64::try_from(EVENTS_OF_STREAM)?)
            .execute(&mut session)
            .await?;
        session.execute("ANALYZE").await?;
        Ok(Self { scratch })
    }

    /// Lets the members of a group read all messages. Returns the number of messages per second.
    pub async fn catch_up(&self, workers: usize, time: Duration) -> anyhow::Result<f64> {
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for worker in 0..workers as u64 {
            let session = self.scratch.options().connect().await?;
            let members = (0..u64::from(PARTITIONS)).filter(|member| member % workers as u64 == worker).collect();
            tasks.spawn(read_members(session, members, started + time));
        }
        count(tasks, started).await
    }

    pub async fn remove(self) -> anyhow::Result<()> {
        self.scratch.remove().await
    }
}

async fn read_members(mut session: PgConnection, members: Vec<u64>, until: Instant) -> anyhow::Result<u64> {
    session.execute("SET search_path TO message_store, public").await?;
    let mut processed = 0;
    let mut open: Vec<(u64, i64)> = members.into_iter().map(|member| (member, 1)).collect();
    while !open.is_empty() && Instant::now() < until {
        let mut rest = Vec::new();
        for (member, position) in open {
            let read = "
                SELECT m.global_position, m.data
                  FROM get_category_messages('bench', $1, $2, NULL, $3, $4) AS m";
            let messages: Vec<(i64, String)> = sqlx::query_as(read)
                .bind(position)
                .bind(BATCH)
                .bind(i64::try_from(member)?)
                .bind(i64::from(PARTITIONS))
                .fetch_all(&mut session)
                .await?;
            let Some((last, _)) = messages.last() else { continue };
            let record = "
                SELECT write_message(gen_random_uuid()::varchar, 'bench:position-' || $1, 'Recorded',
                                     jsonb_build_object('position', $2))";
            sqlx::query(record).bind(i64::try_from(member)?).bind(*last).execute(&mut session).await?;
            processed += messages.len() as u64;
            rest.push((member, last + 1));
        }
        open = rest;
    }
    Ok(processed)
}

async fn install(scratch: &Scratch, functions: &Path) -> anyhow::Result<()> {
    let sql = std::fs::read_to_string(functions).with_context(|| format!("{}", functions.display()))?;
    scratch.options().connect().await?.execute(AssertSqlSafe(sql)).await?;
    Ok(())
}

/// Waits for all workers. Returns the number of messages per second.
async fn count(mut tasks: JoinSet<anyhow::Result<u64>>, started: Instant) -> anyhow::Result<f64> {
    let mut processed = 0;
    while let Some(done) = tasks.join_next().await {
        processed += done??;
    }
    Ok(per_second(processed, started))
}
