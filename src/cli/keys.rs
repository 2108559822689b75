//! `annals keys`: makes API keys, lists them, ends them.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Database, with_database};
use crate::clock::Clock;
use crate::config::{DatabaseArgs, duration};
use crate::domain::access::Grant;
use crate::domain::name::check_name;
use crate::http::wire::time;
use crate::keyring;

#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a key, and show it this one time
    Create(CreateArgs),
    /// List all keys that were ever made
    List(DatabaseArgs),
    /// End a key, within a minute and for ever
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Who uses it
    #[arg(long, value_parser = name)]
    name: String,

    /// What it may do: a scope (read, append, admin) and the aggregate types, like read:Order* or append:Cart or admin:*;
    /// may be repeated
    #[arg(long = "grant", value_name = "SCOPE:TYPES", required = true)]
    grants: Vec<Grant>,

    /// Ends by itself after this time, like 90d [default: never]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    expires_in: Option<Duration>,

    /// Requests a minute that each process lets pass [default: any number]
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(i32).range(1..))]
    requests_per_minute: Option<i32>,

    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// The second part of the key, which `annals keys list` shows
    #[arg(value_parser = key_id)]
    key_id: String,

    #[command(flatten)]
    database: DatabaseArgs,
}

fn name(name: &str) -> Result<String, String> {
    check_name(name).map(|()| name.to_owned()).map_err(|fault| fault.to_string())
}

fn lifetime(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    let lifetime = duration(text)?;
    if lifetime > LONGEST { Err("must be at most 100 years; leave it out for never".to_owned()) } else { Ok(lifetime) }
}

/// The id of a key; of a whole key, its second part.
fn key_id(text: &str) -> Result<String, String> {
    Ok(text.split('_').nth(1).unwrap_or(text).to_owned())
}

pub async fn run(args: KeysArgs) -> anyhow::Result<ExitCode> {
    let database = match &args.command {
        KeysCommand::Create(args) => args.database.clone(),
        KeysCommand::List(database) => database.clone(),
        KeysCommand::Revoke(args) => args.database.clone(),
    };
    with_database(&database, async |database| keys(args.command, database).await).await?;
    Ok(ExitCode::SUCCESS)
}

async fn keys(command: KeysCommand, database: &Database) -> anyhow::Result<()> {
    let store = database.store().await?;
    match command {
        KeysCommand::Create(args) => {
            let (key, new) = keyring::make(args.name, &args.grants, args.requests_per_minute, args.expires_in)?;
            store.create_key(&new).await?;
            eprintln!("Keep it now: only its SHA-256 is stored, and it is shown this one time.");
            println!("{key}");
        }
        KeysCommand::List(_) => {
            println!("{:<12}  {:<20}  {:<9}  {:<27}  grants", "key id", "name", "state", "until");
            for key in store.keys(false).await? {
                let now = Clock::system().now();
                let (state, until) = match (key.revoked_at, key.expires_at) {
                    (Some(at), _) => ("revoked", time(at)),
                    (None, Some(at)) if at <= now => ("expired", time(at)),
                    (None, at) => ("good", at.map_or("-".to_owned(), time)),
                };
                let quota = key.requests_per_minute.map_or(String::new(), |most| format!("  {most} requests a minute"));
                println!(
                    "{:<12}  {:<20}  {state:<9}  {until:<27}  {}{quota}",
                    key.key_id,
                    key.name,
                    key.grants.join(" ")
                );
            }
        }
        KeysCommand::Revoke(args) => match store.revoke_key(&args.key_id).await? {
            Some(at) => println!("{} is revoked since {}; no process takes it a minute later", args.key_id, time(at)),
            None => anyhow::bail!("no key has the id {}; `annals keys list` shows them", args.key_id),
        },
    }
    store.close().await;
    Ok(())
}
