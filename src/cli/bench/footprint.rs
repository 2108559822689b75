//! What the service takes: memory under many clients and subscribers, and the time until it is ready.

use std::time::Duration;

use super::load::{self, Sent, Work};
use super::report::{Figure, Report, Spread};
use super::server::{On, Server, Site};
use super::{BenchArgs, Database, SERVICE_DATABASE, subscribers};

pub async fn measure(args: &BenchArgs, database: &Database, report: &mut Report) -> anyhow::Result<()> {
    let mut figures = Figures::default();
    for _ in 0..args.rounds {
        let site = Site::start(&database.config.options, SERVICE_DATABASE).await?;
        figures.add("start to ready, with an empty database", "ms", ms(site.server.ready_after));
        let memory = under_load(args, &site.server).await?;
        let what = format!("resident memory under 256 clients and {} subscribers", args.subscribers);
        figures.add(&what, "MB", memory as f64);
        let Site { scratch, server } = site;
        drop(server);
        let again = Server::start(On::Database(&scratch.options())).await?;
        figures.add("start to ready, with a database in use", "ms", ms(again.ready_after));
        Site { scratch, server: again }.remove().await?;

        // Only where this command runs such a PostgreSQL itself.
        if database.own.is_some() {
            let folder = tempfile::tempdir()?;
            for what in
                ["start to ready, with a new PostgreSQL of its own", "start to ready, with one that was stopped"]
            {
                let server = Server::start(On::Folder(folder.path(), args)).await?;
                figures.add(what, "ms", ms(server.ready_after));
                server.stop()?;
            }
        }
    }
    figures.report(report);
    Ok(())
}

async fn under_load(args: &BenchArgs, server: &Server) -> anyhow::Result<u64> {
    const CLIENTS: usize = 256;
    let following = subscribers::idle(&server.address, args.subscribers).await?;
    let duration = Duration::from_secs(args.seconds);
    load::run(&server.address, CLIENTS, Work::NewStreams { events: 1 }, duration, &Sent::default()).await?;
    drop(following);
    server.peak_memory_mb()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Values by what they are of, in the order of their first ones.
#[derive(Default)]
struct Figures(Vec<(String, &'static str, Vec<f64>)>);

impl Figures {
    fn add(&mut self, what: &str, unit: &'static str, value: f64) {
        match self.0.iter_mut().find(|(of, _, _)| of == what) {
            Some((_, _, values)) => values.push(value),
            None => self.0.push((what.to_owned(), unit, vec![value])),
        }
    }

    fn report(self, report: &mut Report) {
        for (what, unit, values) in self.0 {
            report.figures.push(Figure { what, unit, value: Spread::of(&values) });
        }
    }
}
