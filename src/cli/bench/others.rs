//! What other work on the database costs: the append rate beside it, and the time that an event takes to those who follow.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::load::{self, Sent, Work};
use super::report::{Delivery, Report, Row};
use super::server::Site;
use super::{BenchArgs, subscribers};
use crate::store::error::StoreError;
use crate::store::scratch::{Scratch, Session};

/// The append rate while others hold transactions and vacuum, beside the rate without them.
pub async fn beside_others(args: &BenchArgs, site: &Site, direct: &Scratch, report: &mut Report) -> anyhow::Result<()> {
    const CLIENTS: usize = 16;
    let duration = Duration::from_secs(args.seconds);
    let (address, sent) = (&site.server.address, Sent::default());
    for streams in [1, 50, 20_000] {
        let (mut without, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            let work = Work::Streams(streams);
            without.push(load::run(address, CLIENTS, work, duration, &sent).await?.per_second);
            let others = Others::begin(&site.scratch, direct).await?;
            beside.push(load::run(address, CLIENTS, work, duration, &sent).await?);
            others.end().await?;
        }
        let what = format!("single events, {streams} streams, beside {OTHERS}");
        report.rows.push(Row::new(what, CLIENTS, &beside, "without them", &without));
    }
    Ok(())
}

/// How long an event takes to those who follow; on a site of our own, beside the others as well.
pub async fn to_subscribers(
    args: &BenchArgs,
    site: Option<&Site>,
    direct: &Scratch,
    address: &str,
    report: &mut Report,
) -> anyhow::Result<()> {
    let duration = Duration::from_secs(args.seconds);
    for _ in 0..args.rounds {
        let alone = subscribers::measure(address, args.subscribers, args.rate, duration).await?;
        report.deliveries.push(Delivery { what: "alone", ..alone });
        if let Some(site) = site {
            let others = Others::begin(&site.scratch, direct).await?;
            let beside = subscribers::measure(address, args.subscribers, args.rate, duration).await?;
            others.end().await?;
            report.deliveries.push(Delivery { what: "beside other work on the database", ..beside });
        }
    }
    Ok(())
}

const OTHERS: &str = "a REPEATABLE READ snapshot, a transaction that wrote elsewhere, a VACUUM every ten seconds";

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
