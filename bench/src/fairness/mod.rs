//! Fair shares: the requests of a good client beside attacks by clients of other API keys.
//!
//! Each attack is measured in three phases: *quiet*, without other clients; *attack*, beside the attack; and *control*,
//! beside threads that keep as many processors busy as the attack did. The difference between the control and the quiet
//! phase is what the processors explain. The service has to prevent the rest.
//!
//! Each phase runs on a server of its own, because work of an attack may remain in a server: folds, snapshots that are
//! due, and caches. All phases share one store.

pub mod attack;
pub mod connection;
pub mod event_stream;
pub mod probe;
pub mod processors;
pub mod row;
pub mod samples;
pub mod sizes;
pub mod store;

use std::time::Duration;

use annals::store::connection::config::ConnectOptions;
use anyhow::Context;
use clap::ValueEnum;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::args::{Attack, BenchArgs};
use crate::fairness::attack::{AttackPlan, RunningAttack};
use crate::fairness::probe::{GoodClient, Probe};
use crate::fairness::processors::{ProcessorTimes, Spinning};
use crate::fairness::row::{AttackFigures, FairShare, Phases};
use crate::fairness::samples::{Outcomes, Samples};
use crate::fairness::sizes::Sizes;
use crate::fairness::store::Store;
use crate::load::RequestCounter;
use crate::report::Report;

/// The time from the start of an attack to the first measured request.
const SETTLE: Duration = Duration::from_millis(500);

/// Measures the good client beside each attack, once in each round.
pub async fn measure(args: &BenchArgs, other: &ConnectOptions, report: &mut Report) -> anyhow::Result<()> {
    raise_file_limit()?;
    let sizes = if args.quick { Sizes::QUICK } else { Sizes::FULL };
    let store = Store::create(args, other, &sizes).await?;
    let bench = FairnessBench { args, store: &store, sizes, counter: RequestCounter::default() };
    let mut measured: Vec<_> = args.attacks().iter().map(|attack| Measured::new(*attack)).collect();
    for round in 1..=args.rounds {
        for measured in &mut measured {
            eprintln!("round {round} of {}: {}", args.rounds, name(measured.attack));
            bench.measure_round(measured).await?;
        }
    }
    for measured in measured {
        report.fair_shares.extend(measured.into_rows(&sizes));
    }
    store.remove().await
}

/// Returns the requests of the good client that an attack may slow down.
fn probes(attack: Attack) -> &'static [Probe] {
    match attack {
        Attack::Streams => &[Probe::Delivery],
        Attack::Reducers => &[Probe::State],
        Attack::Snapshots => &[Probe::Snapshot],
        Attack::Scans | Attack::Waiters => &[Probe::Stream, Probe::LogPage],
        Attack::Appends => &[Probe::Append],
    }
}

/// Returns the name of an attack on the command line.
fn name(attack: Attack) -> String {
    attack.to_possible_value().expect("no attack is hidden").get_name().to_owned()
}

/// The load beside the good client.
#[derive(Clone, Copy)]
enum Beside {
    Nothing,
    Attack,
    SpinningThreads(usize),
}

/// The results of one phase.
struct PhaseResult {
    /// For each probe of the attack.
    samples: Vec<Samples>,
    /// The average number of busy processors.
    busy_processors: f64,
    /// The responses to the clients of the attack.
    outcomes: Outcomes,
}

/// What every phase needs.
struct FairnessBench<'a> {
    args: &'a BenchArgs,
    store: &'a Store,
    sizes: Sizes,
    counter: RequestCounter,
}

impl FairnessBench<'_> {
    /// Runs the three phases of an attack once.
    async fn measure_round(&self, measured: &mut Measured) -> anyhow::Result<()> {
        let quiet = self.run(measured.attack, Beside::Nothing).await?;
        let attack = self.run(measured.attack, Beside::Attack).await?;
        let of_attack = (attack.busy_processors - quiet.busy_processors).max(0.0).round() as usize;
        let threads = self.args.spinning_threads.unwrap_or(of_attack);
        let control = self.run(measured.attack, Beside::SpinningThreads(threads)).await?;
        measured.add(quiet, attack, control, threads);
        Ok(())
    }

    /// Runs one phase.
    async fn run(&self, attack: Attack, beside: Beside) -> anyhow::Result<PhaseResult> {
        let server = self.store.start_server(self.args).await?;
        let good = GoodClient {
            address: server.address.clone(),
            key: self.store.keys.good.clone(),
            events: self.args.events,
            counter: self.counter.clone(),
        };
        for probe in probes(attack) {
            good.warm_up(*probe).await?;
        }
        let (mut running_attack, mut spinning) = (None, None);
        match beside {
            Beside::Nothing => {}
            Beside::Attack => {
                let plan = self.plan(attack, &server.address).await?;
                running_attack = Some(RunningAttack::start(plan).await?);
            }
            Beside::SpinningThreads(threads) => spinning = Some(Spinning::start(threads)),
        }
        tokio::time::sleep(SETTLE).await;
        let before = ProcessorTimes::read()?;
        let mut samples = Vec::new();
        for probe in probes(attack) {
            samples.push(good.measure(*probe, Duration::from_secs(self.args.seconds)).await?);
        }
        let busy_processors = ProcessorTimes::read()?.busy_since(&before)?;
        drop(spinning);
        let outcomes = match running_attack {
            Some(running_attack) => running_attack.stop().await?,
            None => Outcomes::default(),
        };
        // An orderly shutdown also ends the workers of reducers, which would disturb the next phase.
        server.stop()?;
        Ok(PhaseResult { samples, busy_processors, outcomes })
    }

    async fn plan(&self, attack: Attack, address: &str) -> anyhow::Result<AttackPlan> {
        Ok(AttackPlan {
            attack,
            sizes: self.sizes,
            address: address.to_owned(),
            keys: self.store.keys.clone(),
            head: self.store.head(address).await?,
            refused_pause: Duration::from_millis(self.args.attack_pause),
            counter: self.counter.clone(),
        })
    }
}

/// The results of all rounds of an attack.
struct Measured {
    attack: Attack,
    /// For each probe of the attack.
    samples: Vec<Phases<Samples>>,
    figures: AttackFigures,
}

impl Measured {
    fn new(attack: Attack) -> Self {
        let samples = probes(attack).iter().map(|_| Phases::default()).collect();
        Self { attack, samples, figures: AttackFigures::default() }
    }

    /// Adds the results of a round.
    fn add(&mut self, quiet: PhaseResult, attack: PhaseResult, control: PhaseResult, spinning_threads: usize) {
        let figures = &mut self.figures;
        figures.rounds += 1;
        figures.spinning_threads += spinning_threads;
        figures.busy_processors.quiet += quiet.busy_processors;
        figures.busy_processors.attack += attack.busy_processors;
        figures.busy_processors.control += control.busy_processors;
        figures.outcomes.merge(attack.outcomes);
        let of_round = quiet.samples.into_iter().zip(attack.samples).zip(control.samples);
        for (all, ((quiet, attack), control)) in self.samples.iter_mut().zip(of_round) {
            all.quiet.merge(quiet);
            all.attack.merge(attack);
            all.control.merge(control);
        }
    }

    /// Returns the rows of the report.
    fn into_rows(self, sizes: &Sizes) -> Vec<FairShare> {
        let Self { attack, samples, figures } = self;
        let rows = probes(attack).iter().zip(samples).map(|(probe, samples)| {
            let requests = Phases {
                quiet: samples.quiet.summarize(),
                attack: samples.attack.summarize(),
                control: samples.control.summarize(),
            };
            FairShare::new(name(attack), sizes.describe(attack), probe.describe(), requests, &figures)
        });
        rows.collect()
    }
}

/// Raises the limit of open files to the highest one that this process may have. Every connection is an open file.
fn raise_file_limit() -> anyhow::Result<()> {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    raised.context("the limit of open files cannot be raised")
}
