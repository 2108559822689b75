//! Runs the model of consumer groups against a mutant, on a cluster of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::group_model::{Broken, Model, run_scenarios};
use super::http_client::http_client;
use super::mutants::Mutant;

/// The number of histories after which a mutant counts as not found, and the operations of each.
const HISTORIES_MAX: u64 = 40;
const OPERATIONS: u32 = 150;

/// The result of running the model against a mutant.
pub struct Search {
    pub broken: Vec<Broken>,
    /// The number of histories until the mutant was found.
    pub histories: u64,
    pub took: Duration,
}

/// Runs histories until one breaks a rule.
pub async fn search(program: &Path, folder: &Path, mutant: &Mutant) -> anyhow::Result<Search> {
    std::fs::create_dir_all(folder)?;
    let data = tempfile::Builder::new().prefix("annals-torture-").tempdir()?;
    let cluster = Cluster::start(program, data.path(), folder, mutant.in_program()?).await?;
    let started = Instant::now();
    let searched = run(&cluster, mutant).await;
    let Cluster { postgres, replicas } = cluster;
    drop(replicas);
    postgres.stop().await?;
    let (broken, histories) = searched?;
    Ok(Search { broken, histories, took: started.elapsed() })
}

async fn run(cluster: &Cluster, mutant: &Mutant) -> anyhow::Result<(Vec<Broken>, u64)> {
    let mut session = cluster.postgres.session().await?;
    mutant.apply(&mut session).await?;
    let bases: Vec<String> = cluster.replicas.iter().map(super::cluster::Replica::base).collect();
    let bases: [String; 2] = bases.try_into().map_err(|_| anyhow::anyhow!("the cluster has two replicas"))?;
    let client = http_client().tcp_nodelay(true).build()?;
    let broken = run_scenarios(&bases, &client, &mut session).await?;
    if !broken.is_empty() {
        return Ok((broken, 0));
    }
    for seed in 1..=HISTORIES_MAX {
        let model = Model::start(bases.clone(), client.clone(), &mut session, seed).await?;
        // A mutant may also lead to a response that no history allows.
        let broken = match model.run(OPERATIONS).await {
            Ok(broken) => broken,
            Err(error) => vec![("every request gets an allowed response", format!("{error:#}"))],
        };
        if !broken.is_empty() {
            return Ok((broken, seed));
        }
    }
    Ok((Vec::new(), HISTORIES_MAX))
}
