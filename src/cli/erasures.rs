//! `annals erasures`: lists erasures, removes the bytes of erased content, and erases again after a restore.
//!
//! A restored database is from before the erasures that were made after its backup. So `annals erasures export` writes
//! all erasures to a file that is stored with the backups, and `annals erasures apply` erases their events again.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use chrono::DateTime;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cli::counted::counted;
use crate::cli::database::{Database, with_database};
use crate::config::database::DatabaseArgs;
use crate::domain::erasure::{ErasedContent, ErasureNo};
use crate::store::erasures::erase::{ErasableEvent, NewErasure};
use crate::store::primary::Primary;
use crate::wire::json_error::describe;
use crate::wire::object::Object;
use crate::wire::time::format_time;

pub const EXAMPLES: &str = "Examples:
  annals erasures list
  annals erasures run                              remove erased content from the files now
  annals erasures export > erasures.ndjson         with every backup
  annals erasures apply erasures.ndjson            after a restore, before the service starts";

/// The number of erasures that are read at once.
const PAGE: usize = 1_000;

/// The arguments of `annals erasures`.
#[derive(Debug, Args)]
pub struct ErasuresArgs {
    #[command(subcommand)]
    command: ErasuresCommand,
}

#[derive(Debug, Subcommand)]
enum ErasuresCommand {
    /// List all erasures
    List(DatabaseArgs),
    /// Remove the content of all erasures from the files of tables and of the archive
    Run(DatabaseArgs),
    /// Export all erasures to standard output, one a line, without the erased content
    Export(DatabaseArgs),
    /// Erase the events of exported erasures that still have the content
    Apply(ApplyArgs),
}

#[derive(Debug, Args)]
struct ApplyArgs {
    /// File that `annals erasures export` has written
    file: PathBuf,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// A line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportedErasure {
    erasure: ErasureNo,
    reason: String,
    requested_at: String,
    requested_by: Option<String>,
    event_ids: Vec<Uuid>,
    members: Option<Vec<String>>,
}

/// Runs `annals erasures`.
pub async fn run(args: ErasuresArgs) -> anyhow::Result<ExitCode> {
    let database = match &args.command {
        ErasuresCommand::List(args) | ErasuresCommand::Run(args) | ErasuresCommand::Export(args) => args.clone(),
        ErasuresCommand::Apply(args) => args.database.clone(),
    };
    with_database(&database, async |database| erasures(args.command, database).await).await?;
    Ok(ExitCode::SUCCESS)
}

async fn erasures(command: ErasuresCommand, database: &Database) -> anyhow::Result<()> {
    let primary = database.primary().await?;
    let done = match command {
        ErasuresCommand::List(_) => list(&primary).await,
        ErasuresCommand::Run(_) => remove(&primary).await,
        ErasuresCommand::Export(_) => export(&primary).await,
        ErasuresCommand::Apply(args) => apply(&primary, &args).await,
    };
    primary.close().await;
    done
}

async fn list(primary: &Primary) -> anyhow::Result<()> {
    println!("{:>7}  {:>6}  {:>7}  {:<27}  {:<27}  reason", "erasure", "events", "streams", "hidden at", "removed at");
    let mut after = 0;
    loop {
        let page = primary.erasures_after(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.erasure;
        for erasure in page {
            let time = |at: Option<_>| at.map_or("-".to_owned(), format_time);
            println!(
                "{:>7}  {:>6}  {:>7}  {:<27}  {:<27}  {}",
                erasure.erasure,
                erasure.events,
                erasure.streams,
                time(erasure.hidden_at),
                time(erasure.removed_at),
                erasure.reason.escape_debug(),
            );
        }
    }
}

/// Removes erased content from the files.
async fn remove(primary: &Primary) -> anyhow::Result<()> {
    primary.maintain_partitions().await?;
    let mut remover = primary.remover().await?;
    let bar = ProgressBar::new_spinner().with_message("events written again");
    let removed = remover.run(&|events| bar.inc(events)).await;
    bar.finish_and_clear();
    remover.close().await?;
    let removed = removed?;
    println!(
        "the content of {} is removed from all files; {} written again",
        counted(removed.erasures, "erasure"),
        counted(removed.months as u64, "month")
    );
    let pending = primary.pending_erasures().await?.count;
    if pending > 0 {
        let pending = counted(pending.unsigned_abs(), "erasure");
        println!("{pending} still pending: run the command again when a running service has announced them");
    }
    Ok(())
}

async fn export(primary: &Primary) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut after = 0;
    loop {
        let page = primary.erasures_after(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.erasure;
        for erasure in page {
            let (event_ids, members) = primary.erased_event_ids(erasure.erasure).await?;
            let line = ExportedErasure {
                erasure: erasure.erasure,
                reason: erasure.reason,
                requested_at: format_time(erasure.requested_at),
                requested_by: erasure.requested_by,
                event_ids,
                members,
            };
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(out.flush()?)
}

/// Erases the events of exported erasures. A running service announces the new erasures.
async fn apply(primary: &Primary, args: &ApplyArgs) -> anyhow::Result<()> {
    primary.maintain_partitions().await?;
    let name = args.file.display();
    let file = File::open(&args.file).with_context(|| name.to_string())?;
    let (mut erased, mut complete, mut unknown) = (0, 0, 0_u64);
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let number = index + 1;
        let line = line.with_context(|| format!("{name}, line {number}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let parsed: Result<Object<ExportedErasure>, _> = serde_json::from_str(&line);
        let Object(exported) =
            parsed.map_err(|error| anyhow::anyhow!("{name}, line {number}: {}", describe(&error)))?;
        let requested_at = DateTime::parse_from_rfc3339(&exported.requested_at)
            .map_err(|_| anyhow::anyhow!("{name}, line {number}: requested_at must be a time, as exported"))?;
        let content = ErasedContent::parse(exported.members.as_deref())
            .map_err(|error| anyhow::anyhow!("{name}, line {number}: members {error}"))?;
        let (mut events, mut known) = (Vec::new(), 0);
        for id in &exported.event_ids {
            let found = primary.read_event(*id, |event| content.is_in(event).then(|| ErasableEvent::new(event)));
            match found.await? {
                Some(event) => {
                    known += 1;
                    events.extend(event);
                }
                None => unknown += 1,
            }
        }
        events.sort_by_key(|event| event.global_position);
        if events.is_empty() {
            complete += u32::from(known > 0);
            continue;
        }
        let request = serde_json::json!({"event_ids": exported.event_ids, "members": exported.members}).to_string();
        let new = NewErasure {
            reason: &exported.reason,
            request: &request,
            requested_by: exported.requested_by.as_deref(),
            content: &content,
            exported: Some((exported.erasure, requested_at.to_utc())),
            events: &events,
        };
        primary.erase(new).await?;
        erased += 1;
    }
    println!("{} applied, {complete} complete already", counted(erased, "erasure"));
    if unknown > 0 {
        println!("{} of the file not in this log", counted(unknown, "event"));
    }
    if erased > 0 {
        println!("the service appends the $erased events within seconds, at once or when it starts");
    }
    Ok(())
}
