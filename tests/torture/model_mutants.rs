//! Runs the models of consumer groups and of erasures against a mutant, on a cluster of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::cluster::{Cluster, Replica};
use super::erasure_model::{Place, run_scenario};
use super::group_model::{Broken, Model, run_scenarios};
use super::http_client::http_client;
use super::mutants::{FoundBy, Mutant};

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

/// Runs the model that finds the mutant.
pub async fn search(program: &Path, folder: &Path, mutant: &Mutant) -> anyhow::Result<Search> {
    std::fs::create_dir_all(folder)?;
    let data = tempfile::Builder::new().prefix("annals-torture-").tempdir()?;
    let archive = tempfile::Builder::new().prefix("annals-torture-archive-").tempdir()?;
    let settings = [("ARCHIVE_URL".to_owned(), archive.path().display().to_string())];
    let cluster = Cluster::start(program, data.path(), folder, &settings, mutant.in_program()?).await?;
    let started = Instant::now();
    let searched = match mutant.found_by() {
        FoundBy::ErasureModel => erase(&cluster, program, folder, archive.path(), mutant).await,
        _ => work(&cluster, mutant).await,
    };
    let Cluster { postgres, replicas } = cluster;
    drop(replicas);
    postgres.stop().await?;
    let (broken, histories) = searched?;
    Ok(Search { broken, histories, took: started.elapsed() })
}

fn bases(cluster: &Cluster) -> anyhow::Result<[String; 2]> {
    let bases: Vec<String> = cluster.replicas.iter().map(Replica::base).collect();
    bases.try_into().map_err(|_| anyhow::anyhow!("the cluster has two replicas"))
}

/// Runs the scenario of erasures.
async fn erase(
    cluster: &Cluster,
    program: &Path,
    folder: &Path,
    archive: &Path,
    mutant: &Mutant,
) -> anyhow::Result<(Vec<Broken>, u64)> {
    let mut session = cluster.postgres.session().await?;
    mutant.apply(&mut session).await?;
    let mut environment = vec![
        ("DATABASE_URL".to_owned(), cluster.postgres.url()),
        ("ARCHIVE_URL".to_owned(), archive.display().to_string()),
    ];
    environment.extend(mutant.in_program()?.map(|name| ("ANNALS_MUTANT".to_owned(), name.to_owned())));
    let created = std::process::Command::new(program)
        .args([
            "keys",
            "create",
            "--name",
            "a worker",
            "--grant",
            "read:*",
            "--grant",
            "append:*",
            "--grant",
            "admin:Unrelated",
        ])
        .envs(environment.iter().cloned())
        .output()?;
    let created = String::from_utf8(created.stdout)?;
    let key = created.split_whitespace().find(|word| word.starts_with("annals_")).context("a key")?.to_owned();
    let settings = [("ANNALS_AUTH".to_owned(), "keys".to_owned())];
    let with_keys = Replica::start(3, program, folder, &cluster.postgres, &settings, mutant.in_program()?).await?;
    let place = Place {
        bases: bases(cluster)?,
        base_with_keys: with_keys.base(),
        key,
        client: http_client().build()?,
        session,
        old_session: cluster.postgres.session().await?,
        program: program.to_owned(),
        environment,
        files: cluster.postgres.files(),
        archive: archive.to_owned(),
    };
    // A mutant may also lead to a response that the scenario does not allow.
    let broken = run_scenario(place).await;
    Ok((broken.unwrap_or_else(|error| vec![("every request gets an allowed response", format!("{error:#}"))]), 0))
}

/// Runs histories of workers until one breaks a rule.
async fn work(cluster: &Cluster, mutant: &Mutant) -> anyhow::Result<(Vec<Broken>, u64)> {
    let mut session = cluster.postgres.session().await?;
    mutant.apply(&mut session).await?;
    let bases = bases(cluster)?;
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
