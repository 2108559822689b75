//! The footprint of the service: its memory with many clients and subscribers, and the time from start to ready.

use std::time::Duration;

use annals::cli::database::Database;

use crate::args::BenchArgs;
use crate::instance::{BenchInstance, SERVICE_DATABASE, Server, ServerDatabase};
use crate::load;
use crate::load::{RequestCounter, Work};
use crate::report::{Figure, Report, Spread};
use crate::subscribers;

/// The number of clients that append while the memory is measured.
const CLIENTS: usize = 256;

/// Measures each figure once in each round, on new instances.
pub async fn measure(args: &BenchArgs, database: &Database, report: &mut Report) -> anyhow::Result<()> {
    let mut figures = Figures::default();
    for _ in 0..args.rounds {
        let instance = BenchInstance::start(args, &database.config.servers[0], SERVICE_DATABASE).await?;
        figures.add("start to ready, empty database", "ms", milliseconds(instance.server.ready_after));
        let memory = peak_memory(args, &instance.server).await?;
        let name = format!("peak resident memory, {CLIENTS} clients and {} subscribers", args.subscribers);
        figures.add(&name, "MiB", memory as f64);
        let BenchInstance { scratch, server } = instance;
        drop(server);
        let restarted = Server::start(args, ServerDatabase::Url(&scratch.options())).await?;
        figures.add("start to ready, database in use", "ms", milliseconds(restarted.ready_after));
        BenchInstance { scratch, server: restarted }.remove().await?;

        // With a configured database, the binaries of PostgreSQL may be missing on this machine.
        if database.own.is_some() {
            let data_dir = tempfile::tempdir()?;
            for name in
                ["start to ready, new PostgreSQL of its own", "start to ready, PostgreSQL of its own that was stopped"]
            {
                let server = Server::start(args, ServerDatabase::DataDir(data_dir.path())).await?;
                figures.add(name, "ms", milliseconds(server.ready_after));
                server.stop()?;
            }
        }
    }
    figures.move_to(report);
    Ok(())
}

/// Returns the peak memory of a server, in MiB, after a run of appends with open event streams.
async fn peak_memory(args: &BenchArgs, server: &Server) -> anyhow::Result<u64> {
    let event_streams = subscribers::subscribe_and_discard(&server.address, args.subscribers).await?;
    let duration = Duration::from_secs(args.seconds);
    load::run(&server.address, CLIENTS, Work::NewStreams { events: 1 }, duration, &RequestCounter::default()).await?;
    drop(event_streams);
    server.peak_memory_mib()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The values of figures, by name and unit, in the order in which the names were first added.
#[derive(Default)]
struct Figures(Vec<(String, &'static str, Vec<f64>)>);

impl Figures {
    fn add(&mut self, name: &str, unit: &'static str, value: f64) {
        match self.0.iter_mut().find(|(known, _, _)| known == name) {
            Some((_, _, values)) => values.push(value),
            None => self.0.push((name.to_owned(), unit, vec![value])),
        }
    }

    fn move_to(self, report: &mut Report) {
        for (name, unit, values) in self.0 {
            report.figures.push(Figure { name, unit, value: Spread::from_values(&values) });
        }
    }
}
