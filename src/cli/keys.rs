//! `annals keys`: creates, lists and revokes API keys.

use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};

use crate::cli::database::{Database, with_database};
use crate::clock::Clock;
use crate::config::database::DatabaseArgs;
use crate::config::parse::{duration, whole_number};
use crate::domain::access::Grant;
use crate::domain::name::check_name;
use crate::domain::quota::Quotas;
use crate::keyring;
use crate::wire::time::format_time;

/// The arguments of `annals keys`.
#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Create a key, and show it once
    Create(CreateArgs),
    /// List all keys
    List(DatabaseArgs),
    /// Revoke a key (takes effect within one minute)
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Name of the key's owner, 1 to 255 characters
    #[arg(long, value_parser = name)]
    name: String,

    /// Grant of the key: a scope and a name, or a prefix with *; may be repeated. read, append and admin name aggregate
    /// types (read:Order*, append:Cart, admin:*), project names projections (project:orders-*)
    #[arg(long = "grant", value_name = "SCOPE:NAMES", required = true)]
    grants: Vec<Grant>,

    /// Time after which the key expires, like 90d, at most 100 years [default: never]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    expires_in: Option<Duration>,

    /// Limit of requests a minute, for each process of the service [default: no limit]
    #[arg(long, value_name = "REQUESTS", value_parser = whole_number(1..=i32::MAX))]
    requests_per_minute: Option<i32>,

    /// Limit of appended events a minute, for each process of the service [default: no limit]
    #[arg(long, value_name = "EVENTS", value_parser = whole_number(1..=i32::MAX))]
    events_per_minute: Option<i32>,

    /// Limit of bytes of request bodies a minute, for each process of the service [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = whole_number(1..=i32::MAX))]
    bytes_per_minute: Option<i32>,

    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// Id of the key: its second part, which `annals keys list` shows
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
    if lifetime > LONGEST {
        return Err("must be at most 100 years; omit it if the key must not expire".to_owned());
    }
    Ok(lifetime)
}

/// Accepts the id of a key, or a whole key, whose second part is its id.
fn key_id(text: &str) -> Result<String, String> {
    Ok(text.split('_').nth(1).unwrap_or(text).to_owned())
}

/// Describes quotas for the list of keys.
fn describe(quotas: Quotas) -> String {
    let units = [(quotas.requests, "requests"), (quotas.events, "events"), (quotas.bytes, "bytes")];
    units.iter().filter_map(|(quota, unit)| Some(format!("  {} {unit} a minute", (*quota)?))).collect()
}

/// Runs `annals keys`.
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
    let primary = database.primary().await?;
    match command {
        KeysCommand::Create(args) => {
            let quotas = Quotas {
                requests: args.requests_per_minute,
                events: args.events_per_minute,
                bytes: args.bytes_per_minute,
            };
            let (key, new) = keyring::generate(args.name, &args.grants, quotas, args.expires_in)?;
            primary.create_key(&new).await?;
            eprintln!("Store the key now: it is shown once, and Annals stores only its SHA-256.");
            println!("{key}");
        }
        KeysCommand::List(_) => {
            println!(
                "{:<12}  {:<20}  {:<7}  {:<20}  {:<20}  {:<20}  grants",
                "key id", "name", "state", "made", "last used", "until"
            );
            let format_seconds = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
            for key in primary.list_keys().await? {
                let now = Clock::system().now();
                let (state, until) = match (key.revoked_at, key.expires_at) {
                    (Some(at), _) => ("revoked", format_seconds(at)),
                    (None, Some(at)) if at <= now => ("expired", format_seconds(at)),
                    (None, at) => ("valid", at.map_or("-".to_owned(), format_seconds)),
                };
                println!(
                    "{:<12}  {:<20}  {state:<7}  {:<20}  {:<20}  {until:<20}  {}{}",
                    key.key_id,
                    key.name,
                    format_seconds(key.created_at),
                    key.last_used_at.map_or("-".to_owned(), format_seconds),
                    key.grants.join(" "),
                    describe(key.quotas)
                );
            }
        }
        KeysCommand::Revoke(args) => match primary.revoke_key(&args.key_id).await? {
            Some(at) => {
                let at = format_time(at);
                println!("{} was revoked at {at}; every process refuses it within a minute", args.key_id);
            }
            None => anyhow::bail!("no key has the id {}: `annals keys list` shows the ids", args.key_id),
        },
    }
    primary.close().await;
    Ok(())
}
