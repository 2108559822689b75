//! The memory of the service while many subscribers catch up.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::args::BenchArgs;
use crate::instance::{Server, ServerDatabase};
use crate::load::open;
use crate::report::{Figure, Report, Spread};
use crate::scratch::Scratch;

/// The number of subscribers. Half of them read as fast as they can, and the others read nothing, so that the service
/// holds events for them.
const SUBSCRIBERS: usize = 200;

/// Measures the largest resident memory of a new server.
pub async fn measure(args: &BenchArgs, scratch: &Scratch, report: &mut Report) -> anyhow::Result<()> {
    let mut peaks = Vec::new();
    for _ in 0..args.rounds {
        let server = Server::start(args, ServerDatabase::Url(&scratch.options())).await?;
        let (mut reading, mut silent) = (JoinSet::new(), Vec::new());
        for n in 0..SUBSCRIBERS {
            let mut connection = open(&server.address, "/events?after=0", "text/event-stream").await?;
            if n % 2 == 0 {
                // The end of the measurement ends the event stream.
                reading.spawn(async move { tokio::io::copy(&mut connection, &mut tokio::io::sink()).await });
            } else {
                silent.push(connection);
            }
        }
        tokio::time::sleep(Duration::from_secs(args.seconds)).await;
        peaks.push(server.peak_memory_mib()? as f64);
        drop(reading);
        server.stop()?;
    }
    let name = format!("peak resident memory, {SUBSCRIBERS} subscribers that catch up");
    report.figures.push(Figure { name, unit: "MiB", value: Spread::from_values(&peaks) });
    Ok(())
}
