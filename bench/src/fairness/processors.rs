//! The processors of the machine: how many are busy, and a load that uses nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context;

/// The times of all processors since the start of the machine, in ticks. Linux only.
pub struct ProcessorTimes {
    processors: usize,
    busy: u64,
    total: u64,
}

impl ProcessorTimes {
    /// Reads the times.
    pub fn read() -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat").context("/proc/stat cannot be read")?;
        Self::parse(&stat)
    }

    fn parse(stat: &str) -> anyhow::Result<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).context("/proc/stat has no line cpu")?;
        let ticks = line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let [user, nice, system, idle, waiting, interrupts, soft_interrupts, stolen, ..] = ticks[..] else {
            anyhow::bail!("the line cpu of /proc/stat has {} numbers, expected 8 or more", ticks.len());
        };
        let busy = user + nice + system + interrupts + soft_interrupts;
        // The first line has the sums, and each processor has a line of its own.
        let processors = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
        Ok(Self { processors, busy, total: busy + idle + waiting + stolen })
    }

    /// Returns the average number of processors that were busy since an earlier reading.
    pub fn busy_since(&self, earlier: &Self) -> anyhow::Result<f64> {
        let (busy, total) = (self.busy.saturating_sub(earlier.busy), self.total.saturating_sub(earlier.total));
        anyhow::ensure!(total > 0, "/proc/stat counts no time");
        Ok(self.processors as f64 * busy as f64 / total as f64)
    }
}

/// Threads that use a processor each and do nothing else, at the priority of this process, until this is dropped.
pub struct Spinning {
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Spinning {
    /// Starts the threads.
    pub fn start(threads: usize) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let threads = (0..threads).map(|_| {
            let stopped = stopped.clone();
            std::thread::spawn(move || spin(&stopped))
        });
        let threads = threads.collect();
        Self { stopped, threads }
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread only counts, so it cannot have panicked.
            drop(thread.join());
        }
    }
}

fn spin(stopped: &AtomicBool) {
    // A pause instruction would hand the processor to another virtual machine.
    const STEPS: u64 = 10_000;
    while !stopped.load(Ordering::Relaxed) {
        for step in 0..STEPS {
            std::hint::black_box(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_processors_are_the_share_of_the_busy_ticks() {
        let earlier = ProcessorTimes::parse("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 1\ncpu1 1 1\n").expect("times");
        let later = ProcessorTimes::parse("cpu  200 10 80 830 55 5 5 20 0 0\ncpu0 2 2\ncpu1 2 2\n").expect("times");
        let busy = later.busy_since(&earlier).expect("a number");
        assert!((busy - 2.0 * 150.0 / 205.0).abs() < 1e-9, "{busy}");
        assert!(earlier.busy_since(&earlier).is_err());
        assert!(ProcessorTimes::parse("cpu  1 2 3\n").is_err() && ProcessorTimes::parse("").is_err());
    }
}
