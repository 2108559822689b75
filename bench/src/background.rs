//! Background load: other work on the database, and its effect on appends and on the delivery of events to subscribers.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::args::BenchArgs;
use crate::instance::BenchInstance;
use crate::load;
use crate::load::{RequestCounter, Work};
use crate::report::{Report, Row};
use crate::scratch::{Scratch, Session};
use crate::subscribers;

/// The description of the background load in a report.
const BACKGROUND_LOAD: &str =
    "a REPEATABLE READ snapshot, a transaction that has written in another database, and a VACUUM every ten seconds";
/// The pause between two runs of VACUUM.
const VACUUM_PAUSE: Duration = Duration::from_secs(10);

/// Measures the rate of appends with background load. The baseline is the rate without background load.
pub async fn compare_appends(
    args: &BenchArgs,
    instance: &BenchInstance,
    direct: &Scratch,
    report: &mut Report,
) -> anyhow::Result<()> {
    const CLIENTS: usize = 16;
    let duration = Duration::from_secs(args.seconds);
    let (address, counter) = (&instance.server.address, RequestCounter::default());
    for streams in [1, 50, 20_000] {
        let work = Work::FixedStreams { streams };
        let (mut loaded, mut baseline) = (Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            baseline.push(load::run(address, CLIENTS, work, duration, &counter).await?.per_second);
            let background = BackgroundLoad::start(&instance.scratch, direct).await?;
            loaded.push(load::run(address, CLIENTS, work, duration, &counter).await?);
            background.stop().await?;
        }
        let name = format!("single events, number of streams: {streams}, with {BACKGROUND_LOAD}");
        report.rows.push(Row::new(name, CLIENTS, &loaded, "without background load", &baseline));
    }
    Ok(())
}

/// Measures the time from sending an append until each subscriber has read the event, without background load. On an
/// instance of the benchmark, the time is also measured with background load.
pub async fn measure_delivery(
    args: &BenchArgs,
    instance: Option<&BenchInstance>,
    direct: &Scratch,
    address: &str,
    report: &mut Report,
) -> anyhow::Result<()> {
    for _ in 0..args.rounds {
        report.deliveries.push(subscribers::measure(args, address, "without background load").await?);
        if let Some(instance) = instance {
            let background = BackgroundLoad::start(&instance.scratch, direct).await?;
            report.deliveries.push(subscribers::measure(args, address, "with background load").await?);
            background.stop().await?;
        }
    }
    Ok(())
}

/// Other work on the server of the database: two open transactions and a repeated VACUUM.
struct BackgroundLoad {
    /// Sessions with open transactions. When this value is dropped, PostgreSQL rolls the transactions back.
    open_transactions: [Session; 2],
    vacuum: JoinHandle<anyhow::Result<()>>,
    stopped: CancellationToken,
}

impl BackgroundLoad {
    /// Opens a snapshot in the database of the service, starts to vacuum that database, and writes to another database
    /// without a commit.
    async fn start(service: &Scratch, other: &Scratch) -> anyhow::Result<Self> {
        let mut reader = service.session().await?;
        reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM partitions").await?;
        let mut writer = other.session().await?;
        writer.run("CREATE TABLE IF NOT EXISTS idle (n integer); BEGIN; INSERT INTO idle VALUES (1)").await?;
        let mut vacuuming = service.session().await?;
        // The default of autovacuum, so that VACUUM uses as much of the disk as autovacuum does.
        vacuuming.run("SET vacuum_cost_delay = '2ms'").await?;
        let stopped = CancellationToken::new();
        let until = stopped.clone();
        let vacuum = tokio::spawn(async move {
            while !until.is_cancelled() {
                vacuuming.run("VACUUM events, event_ids, streams").await?;
                until.run_until_cancelled(tokio::time::sleep(VACUUM_PAUSE)).await;
            }
            anyhow::Ok(())
        });
        Ok(Self { open_transactions: [reader, writer], vacuum, stopped })
    }

    /// Waits until a running VACUUM has completed, and closes the transactions.
    async fn stop(self) -> anyhow::Result<()> {
        self.stopped.cancel();
        self.vacuum.await??;
        drop(self.open_transactions);
        Ok(())
    }
}
