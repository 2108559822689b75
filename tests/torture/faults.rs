//! The faults, and what must continue during each fault and recover after it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;

use super::cluster::{Cluster, RECOVERY_MAX, REPLICAS, signal};
use super::workload::Load;

const POLL: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    KillPostgres,
    KillBackend,
    KillReplica,
    StopReplica,
    TerminateBackend,
    CutDatabase,
    CutClients,
    LoseDatabaseResponses,
    LoseClientResponses,
    Delay,
    FreezeReplica,
    FreezeLockHolder,
    WithholdSync,
}

impl Kind {
    /// Each kind with its share of 100 rounds.
    pub const ALL: [(Self, u8); 13] = [
        (Self::KillPostgres, 32),
        (Self::KillBackend, 16),
        (Self::KillReplica, 22),
        (Self::StopReplica, 7),
        (Self::TerminateBackend, 3),
        (Self::CutDatabase, 3),
        (Self::CutClients, 3),
        (Self::LoseDatabaseResponses, 3),
        (Self::LoseClientResponses, 2),
        (Self::Delay, 2),
        (Self::FreezeReplica, 2),
        (Self::FreezeLockHolder, 2),
        (Self::WithholdSync, 3),
    ];

    pub fn is_kill(self) -> bool {
        matches!(self, Self::KillPostgres | Self::KillBackend | Self::KillReplica)
    }
}

/// Returns the faults of a run. Every kind occurs once, in random order. Further faults are chosen at random, by their
/// shares. With `only`, all faults are of that kind.
pub fn schedule(rounds: usize, only: Option<Kind>, random: &mut fastrand::Rng) -> Vec<Kind> {
    if let Some(kind) = only {
        return vec![kind; rounds];
    }
    let mut faults: Vec<_> = Kind::ALL.iter().map(|(kind, _)| *kind).collect();
    random.shuffle(&mut faults);
    while faults.len() < rounds {
        let mut at = random.u8(0..100);
        let chosen = Kind::ALL.iter().find(|(_, share)| {
            let found = at < *share;
            at = at.saturating_sub(*share);
            found
        });
        faults.push(chosen.expect("the sum of the shares is 100").0);
    }
    faults.truncate(rounds);
    faults
}

pub struct Injector<'t> {
    pub cluster: &'t mut Cluster,
    pub load: &'t Load,
    pub random: &'t mut fastrand::Rng,
    /// A number of acknowledgements that exceeds the number of requests in progress.
    pub progress: u64,
}

impl Injector<'_> {
    /// Injects one fault, and waits for the recovery. Returns what did not continue or recover.
    pub async fn inject(&mut self, kind: Kind) -> anyhow::Result<Option<String>> {
        let replica = self.random.usize(0..REPLICAS);
        let harm = self.inject_at(kind, replica).await?;
        let recovered = async {
            self.cluster.wait_until_ready().await?;
            for replica in 0..REPLICAS {
                let continues = self.wait_for_progress(replica, || false);
                tokio::time::timeout(RECOVERY_MAX, continues)
                    .await
                    .with_context(|| format!("replica {replica} acknowledges no request within a minute"))?;
            }
            anyhow::Ok(())
        };
        let recovered = recovered.await.err().map(|error| format!("{error:#}"));
        Ok(harm.or(recovered))
    }

    async fn inject_at(&mut self, kind: Kind, at: usize) -> anyhow::Result<Option<String>> {
        let mut short = |max: u64| Duration::from_millis(self.random.u64(0..max));
        let (pause, longer) = (short(700), short(2_500));
        match kind {
            Kind::KillPostgres => self.cluster.postgres.kill_and_restart(pause).await?,
            Kind::KillBackend => self.signal_backend(Signal::SIGKILL).await?,
            Kind::TerminateBackend => self.signal_backend(Signal::SIGTERM).await?,
            Kind::KillReplica => {
                self.cluster.replicas[at].signal(Signal::SIGKILL)?;
                self.cluster.replicas[at].wait_for_end().await?;
                tokio::time::sleep(pause).await;
                self.cluster.replicas[at].restart()?;
            }
            Kind::StopReplica => {
                self.cluster.replicas[at].signal(Signal::SIGTERM)?;
                let status = self.cluster.replicas[at].wait_for_end().await?;
                self.cluster.replicas[at].restart()?;
                if !status.success() {
                    return Ok(Some(format!("after SIGTERM the replica ended with {status}")));
                }
            }
            Kind::CutDatabase => self.cluster.replicas[at].database.cut(),
            Kind::CutClients => self.cluster.replicas[at].clients.cut(),
            Kind::LoseDatabaseResponses => self.cluster.replicas[at].database.drop_responses(self.random.u32(1..6)),
            Kind::LoseClientResponses => self.cluster.replicas[at].clients.drop_responses(self.random.u32(1..20)),
            Kind::Delay => {
                let delay = Duration::from_millis(self.random.u64(5..120));
                let replica = &self.cluster.replicas[at];
                let proxy = if self.random.bool() { &replica.database } else { &replica.clients };
                proxy.delay(delay);
                tokio::time::sleep(longer).await;
                proxy.delay(Duration::ZERO);
            }
            Kind::FreezeReplica => {
                self.cluster.replicas[at].signal(Signal::SIGSTOP)?;
                let continues = tokio::time::timeout(RECOVERY_MAX, self.wait_for_progress(1 - at, || false)).await;
                tokio::time::sleep(pause).await;
                self.cluster.replicas[at].signal(Signal::SIGCONT)?;
                return Ok(continues.is_err().then(|| "a frozen replica blocked the other one".to_owned()));
            }
            Kind::FreezeLockHolder => {
                // While the holder is frozen, no append is possible. Every request must get an error in time.
                if let Some(pid) = self.cluster.postgres.freeze_lock_holder().await? {
                    tokio::time::sleep(longer * 2).await;
                    signal(pid, Signal::SIGCONT)?;
                }
            }
            Kind::WithholdSync => return self.withhold_sync(at).await,
        }
        Ok(None)
    }

    async fn signal_backend(&mut self, what: Signal) -> anyhow::Result<()> {
        let backends = self.cluster.postgres.backends().await?;
        if let Some(&pid) = self.random.choice(&backends) {
            signal(pid, what)?;
        }
        Ok(())
    }

    /// Withholds the last five bytes of an append of one replica. PostgreSQL has executed the append, and waits for the
    /// end of the request. The other replica must acknowledge appends meanwhile.
    async fn withhold_sync(&mut self, at: usize) -> anyhow::Result<Option<String>> {
        let proxy = &self.cluster.replicas[at].database;
        tokio::time::timeout(RECOVERY_MAX, proxy.withhold_append()).await.context("no append was sent")?;
        let continued = self.wait_for_progress(1 - at, || proxy.was_abandoned()).await;
        if self.random.bool() {
            proxy.cut();
        }
        proxy.release();
        Ok((!continued).then(|| "an append without its last message blocked the other replica".to_owned()))
    }

    /// Waits until a replica has acknowledged requests that were sent after this call. Returns false if `is_abandoned`
    /// returns true before.
    async fn wait_for_progress(&self, replica: usize, is_abandoned: impl Fn() -> bool) -> bool {
        let acknowledged = &self.load.acknowledged[replica];
        let until = acknowledged.load(Ordering::SeqCst) + self.progress;
        while acknowledged.load(Ordering::SeqCst) < until {
            if is_abandoned() {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }
}
