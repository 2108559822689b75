//! What is done to the service, and what has to go on meanwhile and come back afterwards.

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
    LoseDatabaseAnswers,
    LoseClientAnswers,
    Delay,
    FreezeReplica,
    FreezeLockHolder,
    WithholdSync,
}

impl Kind {
    /// Each with its share of a hundred rounds.
    pub const ALL: [(Self, u8); 13] = [
        (Self::KillPostgres, 32),
        (Self::KillBackend, 16),
        (Self::KillReplica, 22),
        (Self::StopReplica, 7),
        (Self::TerminateBackend, 3),
        (Self::CutDatabase, 3),
        (Self::CutClients, 3),
        (Self::LoseDatabaseAnswers, 3),
        (Self::LoseClientAnswers, 2),
        (Self::Delay, 2),
        (Self::FreezeReplica, 2),
        (Self::FreezeLockHolder, 2),
        (Self::WithholdSync, 3),
    ];

    pub fn is_kill(self) -> bool {
        matches!(self, Self::KillPostgres | Self::KillBackend | Self::KillReplica)
    }
}

/// The faults of a run: every kind once, in an order of the seed, then at random by their shares; or `only` one of them.
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
        faults.push(chosen.expect("the shares make a hundred").0);
    }
    faults.truncate(rounds);
    faults
}

pub struct Torturer<'t> {
    pub cluster: &'t mut Cluster,
    pub load: &'t Load,
    pub random: &'t mut fastrand::Rng,
    /// So many acknowledgements are more than what was under way before.
    pub enough: u64,
}

impl Torturer<'_> {
    /// Does one thing, and waits until everything works again; what should have gone on or come back and did not.
    pub async fn strike(&mut self, kind: Kind) -> anyhow::Result<Option<String>> {
        let replica = self.random.usize(0..REPLICAS);
        let harm = self.inflict(kind, replica).await?;
        let recovered = async {
            self.cluster.recover().await?;
            for replica in 0..REPLICAS {
                let goes_on = self.goes_on(replica, || false);
                tokio::time::timeout(RECOVERY_MAX, goes_on)
                    .await
                    .with_context(|| format!("replica {replica} acknowledges nothing within a minute"))?;
            }
            anyhow::Ok(())
        };
        let recovered = recovered.await.err().map(|error| format!("{error:#}"));
        Ok(harm.or(recovered))
    }

    async fn inflict(&mut self, kind: Kind, at: usize) -> anyhow::Result<Option<String>> {
        let mut short = |max: u64| Duration::from_millis(self.random.u64(0..max));
        let (pause, longer) = (short(700), short(2_500));
        match kind {
            Kind::KillPostgres => self.cluster.postgres.kill_and_restart(pause).await?,
            Kind::KillBackend => self.signal_backend(Signal::SIGKILL).await?,
            Kind::TerminateBackend => self.signal_backend(Signal::SIGTERM).await?,
            Kind::KillReplica => {
                self.cluster.replicas[at].signal(Signal::SIGKILL)?;
                self.cluster.replicas[at].ended().await?;
                tokio::time::sleep(pause).await;
                self.cluster.replicas[at].restart()?;
            }
            Kind::StopReplica => {
                self.cluster.replicas[at].signal(Signal::SIGTERM)?;
                let ended = self.cluster.replicas[at].ended().await?;
                self.cluster.replicas[at].restart()?;
                if !ended.success() {
                    return Ok(Some(format!("an orderly stop ended with {ended}")));
                }
            }
            Kind::CutDatabase => self.cluster.replicas[at].database.cut(),
            Kind::CutClients => self.cluster.replicas[at].clients.cut(),
            Kind::LoseDatabaseAnswers => self.cluster.replicas[at].database.swallow(self.random.u32(1..6)),
            Kind::LoseClientAnswers => self.cluster.replicas[at].clients.swallow(self.random.u32(1..20)),
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
                let goes_on = tokio::time::timeout(RECOVERY_MAX, self.goes_on(1 - at, || false)).await;
                tokio::time::sleep(pause).await;
                self.cluster.replicas[at].signal(Signal::SIGCONT)?;
                return Ok(goes_on.is_err().then(|| "a frozen replica held up the other one".to_owned()));
            }
            Kind::FreezeLockHolder => {
                // Nobody can append meanwhile; everybody has to be told so, and not to wait.
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

    /// The last five bytes of an append of one replica do not arrive: PostgreSQL has carried it out, and waits for the end
    /// of the request. The other replica must not wait with it.
    async fn withhold_sync(&mut self, at: usize) -> anyhow::Result<Option<String>> {
        let proxy = &self.cluster.replicas[at].database;
        tokio::time::timeout(RECOVERY_MAX, proxy.hold_append()).await.context("no append came to be held back")?;
        let went_on = self.goes_on(1 - at, || proxy.has_given_up()).await;
        if self.random.bool() {
            proxy.cut();
        }
        proxy.release();
        Ok((!went_on).then(|| "an append whose last message was late held up the other replica".to_owned()))
    }

    /// Waits until a replica has acknowledged requests that were sent after this call; false if `given_up` comes first.
    async fn goes_on(&self, replica: usize, given_up: impl Fn() -> bool) -> bool {
        let acknowledged = &self.load.acknowledged[replica];
        let until = acknowledged.load(Ordering::SeqCst) + self.enough;
        while acknowledged.load(Ordering::SeqCst) < until {
            if given_up() {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }
}
