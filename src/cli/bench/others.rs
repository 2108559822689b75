//! What other work on the database costs: the append rate beside it, and the time that an event takes to those who follow.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::load::{self, Work};
use super::report::Spread;
use super::server::Server;
use super::{BenchArgs, subscribers};
use crate::store::error::StoreError;
use crate::store::scratch::{Scratch, Session};

/// The append rate while others hold transactions and vacuum, beside the rate without them.
pub async fn beside_others(
    args: &BenchArgs,
    service: &Scratch,
    direct: &Scratch,
    server: &Server,
) -> anyhow::Result<()> {
    const CLIENTS: usize = 16;
    let duration = Duration::from_secs(args.seconds);
    let sent = Arc::new(AtomicU64::new(0));
    println!(
        "{} rounds of {} s each, {CLIENTS} clients, medians (lowest to highest); the others: {OTHERS}\n\n\
         | streams | appends/s | beside the others | ratio |\n|---:|---:|---:|---:|",
        args.rounds, args.seconds
    );
    for streams in [1, 50, 20_000] {
        let (mut without, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            let work = Work::Streams(streams);
            without.push(load::run(&server.address, CLIENTS, work, duration, &sent).await?.per_second);
            let others = Others::begin(service, direct).await?;
            beside.push(load::run(&server.address, CLIENTS, work, duration, &sent).await?.per_second);
            others.end().await?;
        }
        let (without, beside) = (Spread::of(&without), Spread::of(&beside));
        println!("| {streams} | {without} | {beside} | {:.2} |", beside.median / without.median);
    }
    Ok(())
}

/// How long an event takes to those who follow, without the others and beside them.
pub async fn to_subscribers(
    args: &BenchArgs,
    subscribers: usize,
    service: &Scratch,
    direct: &Scratch,
    server: &Server,
) -> anyhow::Result<()> {
    let duration = Duration::from_secs(args.seconds);
    println!(
        "{} rounds of {} s each, {subscribers} subscribers, from the sending of an append to its reading by each of them; \
         the others: {OTHERS}\n\n\
         | | appends/s | p50 | p99 | longest | missed or out of order |\n|---|---:|---:|---:|---:|---:|",
        args.rounds, args.seconds
    );
    for beside in [false, true] {
        for _ in 0..args.rounds {
            let others = if beside { Some(Others::begin(service, direct).await?) } else { None };
            let delivered = subscribers::measure(&server.address, subscribers, args.rate, duration).await?;
            if let Some(others) = others {
                others.end().await?;
            }
            let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
            println!(
                "| {} | {:.0} | {:.1} ms | {:.1} ms | {:.1} ms | {} |",
                if beside { "beside the others" } else { "alone" },
                delivered.appends_per_second,
                ms(delivered.p50),
                ms(delivered.p99),
                ms(delivered.longest),
                delivered.out_of_order
            );
        }
    }
    Ok(())
}

const OTHERS: &str =
    "a REPEATABLE READ snapshot, a transaction that has written in another database, a VACUUM every ten seconds";

/// What else a PostgreSQL does at the same time.
struct Others {
    held: (Session, Session),
    vacuum: tokio::task::JoinHandle<Result<(), StoreError>>,
    enough: CancellationToken,
}

impl Others {
    async fn begin(service: &Scratch, elsewhere: &Scratch) -> anyhow::Result<Self> {
        let mut report = service.session().await?;
        report.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM partitions").await?;
        let mut writer = elsewhere.session().await?;
        writer.run("CREATE TABLE IF NOT EXISTS idle (n integer); BEGIN; INSERT INTO idle VALUES (1)").await?;
        let mut vacuuming = service.session().await?;
        // At the pace of autovacuum.
        vacuuming.run("SET vacuum_cost_delay = '2ms'").await?;
        let enough = CancellationToken::new();
        let until = enough.clone();
        let vacuum = tokio::spawn(async move {
            while !until.is_cancelled() {
                vacuuming.run("VACUUM events, event_ids, streams").await?;
                until.run_until_cancelled(tokio::time::sleep(Duration::from_secs(10))).await;
            }
            Ok(())
        });
        Ok(Self { held: (report, writer), vacuum, enough })
    }

    async fn end(self) -> anyhow::Result<()> {
        self.enough.cancel();
        self.vacuum.await??;
        drop(self.held);
        Ok(())
    }
}
