//! The processor time that each request costs its client, the service and PostgreSQL. It does not depend on the disk. Linux
//! only.

use anyhow::Context;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

use crate::report::Spread;
use crate::scratch::Scratch;

/// The processor time of one request, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ProcessorTime {
    pub client_us: f64,
    pub service_us: f64,
    pub postgres_us: f64,
}

impl ProcessorTime {
    /// Returns the medians of the values.
    pub fn median(values: &[Self]) -> Option<Self> {
        let median =
            |value: fn(&Self) -> f64| Spread::from_values(&values.iter().map(value).collect::<Vec<_>>()).median;
        (!values.is_empty()).then(|| Self {
            client_us: median(|time| time.client_us),
            service_us: median(|time| time.service_us),
            postgres_us: median(|time| time.postgres_us),
        })
    }
}

impl std::fmt::Display for ProcessorTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} + {:.0} + {:.0} us", self.client_us, self.service_us, self.postgres_us)
    }
}

/// The processes whose time is measured.
#[derive(Debug, Clone, Copy)]
pub struct Processes {
    /// `None`: the clients use no service.
    service: Option<u32>,
    /// The first process of PostgreSQL.
    postgres: u32,
}

/// The times since the start of each process, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    client: f64,
    service: f64,
    postgres: f64,
}

impl Processes {
    /// Finds the processes. PostgreSQL must run on this machine.
    pub async fn find(scratch: &Scratch, service: u32) -> anyhow::Result<Self> {
        let mut session = scratch.session().await?;
        let backend = session.backend().await?;
        let stat = Stat::read(backend).context("PostgreSQL does not run on this machine")?;
        Ok(Self { service: Some(service), postgres: stat.parent })
    }

    /// Returns these processes without the service.
    pub fn without_service(self) -> Self {
        Self { service: None, ..self }
    }

    /// Reads the times.
    pub fn read(&self) -> anyhow::Result<Reading> {
        let used = |usage: Usage| (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6;
        let client = used(getrusage(UsageWho::RUSAGE_SELF)?) + used(getrusage(UsageWho::RUSAGE_CHILDREN)?);
        let service = self.service.map(Stat::read).transpose()?.map_or(0.0, |stat| stat.own);
        let first = Stat::read(self.postgres)?;
        // A session that has ended counts as a child of the first process that was waited for.
        let mut postgres = first.own + first.ended_children;
        for process in std::fs::read_dir("/proc")? {
            let name = process?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // The process may have ended meanwhile.
            if let Ok(stat) = Stat::read(id)
                && stat.parent == self.postgres
            {
                postgres += stat.own;
            }
        }
        Ok(Reading { client, service, postgres })
    }
}

impl Reading {
    /// Returns the time of each of a number of requests since an earlier reading.
    pub fn each_since(&self, earlier: &Self, requests: f64) -> ProcessorTime {
        let each = |now: f64, then: f64| (now - then).max(0.0) * 1e6 / requests;
        ProcessorTime {
            client_us: each(self.client, earlier.client),
            service_us: each(self.service, earlier.service),
            postgres_us: each(self.postgres, earlier.postgres),
        }
    }
}

/// What `/proc/<id>/stat` says of a process.
pub struct Stat {
    pub parent: u32,
    /// The time in user mode and in the kernel, in seconds.
    own: f64,
    /// The same of the children that have ended.
    ended_children: f64,
}

impl Stat {
    /// Reads the file of a process.
    pub fn read(id: u32) -> anyhow::Result<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{id}/stat"))?)
    }

    fn parse(stat: &str) -> anyhow::Result<Self> {
        // The name of the program is in parentheses, and may contain spaces.
        let (_, fields) = stat.rsplit_once(") ").context("/proc/<id>/stat has no name")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |n: usize| -> anyhow::Result<f64> { Ok(fields.get(n).context("too few fields")?.parse()?) };
        let ticks = sysconf(SysconfVar::CLK_TCK)?.context("the length of a tick is unknown")? as f64;
        Ok(Self {
            parent: number(1)? as u32,
            own: (number(11)? + number(12)?) / ticks,
            ended_children: (number(13)? + number(14)?) / ticks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_process_are_read() {
        let stat = "42 (a b) c) S 7 1 1 0 -1 4194560 1 2 3 4 500 100 30 10 20 0 1 0 5";
        let stat = Stat::parse(stat).expect("the fields");
        let ticks = sysconf(SysconfVar::CLK_TCK).expect("a value").expect("a length") as f64;
        assert_eq!((stat.parent, stat.own, stat.ended_children), (7, 600.0 / ticks, 40.0 / ticks));
        assert!(Stat::parse("42 (a) S 7").is_err());
        assert!(Stat::read(std::process::id()).is_ok());
    }
}
