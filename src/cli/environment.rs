//! The variables of the process.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;

use crate::config::program::this_program;

/// The prefixes of variables that are settings of Annals, or of the clouds of its archive.
const SETTINGS: [&str; 7] = ["ANNALS_", "ARCHIVE_", "DATABASE_", "SNAPSHOT_", "AWS_", "AZURE_", "GOOGLE_"];
/// The prefix of the variables of libpq and of PostgreSQL.
const LIBPQ: &str = "PG";

/// Starts this program again without the variables that would mislead it, if there are any: settings that are empty,
/// which count as not set, and the variables of libpq (`PGHOST`, `PGSSLMODE` and others), which the driver and the
/// programs of PostgreSQL read. Safe Rust cannot remove a variable from its own process.
pub fn without_misleading_variables() -> anyhow::Result<()> {
    let misleading: Vec<OsString> =
        std::env::vars_os().filter(|(name, value)| is_misleading(name, value)).map(|(name, _)| name).collect();
    if misleading.is_empty() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let mut again = Command::new(this_program()?);
    again.arg0(arguments.next().unwrap_or_else(|| "annals".into())).args(arguments);
    misleading.iter().for_each(|name| {
        again.env_remove(name);
    });
    // It returns only if the program cannot be started.
    Err(again.exec()).context("the program cannot start itself again without the empty and the PG variables")
}

fn is_misleading(name: &OsStr, value: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let is_empty_setting = value.is_empty() && SETTINGS.iter().any(|prefix| name.starts_with(prefix));
    is_empty_setting || name.starts_with(LIBPQ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_settings_and_variables_of_libpq_are_misleading() {
        let misleading = |name: &str, value: &str| is_misleading(name.as_ref(), value.as_ref());
        for (name, value) in [("ANNALS_LISTEN", ""), ("AWS_REGION", ""), ("PGHOST", "db"), ("PGSSLMODE", "")] {
            assert!(misleading(name, value), "{name}");
        }
        for (name, value) in [("ANNALS_LISTEN", "127.0.0.1:1"), ("HOME", ""), ("AWS_REGION", "eu")] {
            assert!(!misleading(name, value), "{name}");
        }
    }
}
