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

/// What is wrong with a variable.
#[derive(Debug, PartialEq, Eq)]
enum Correction {
    Remove,
    /// Without the line break at the end, which comes from the file of a secret.
    Set(OsString),
}

/// Starts this program again with corrected variables, if some would mislead it: settings that are empty, which count as
/// not set, or that end with a line break; and the variables of libpq (`PGHOST`, `PGSSLMODE` and others), which the
/// driver and the programs of PostgreSQL read. Safe Rust cannot change a variable of its own process.
pub fn without_misleading_variables() -> anyhow::Result<()> {
    let corrections: Vec<(OsString, Correction)> =
        std::env::vars_os().filter_map(|(name, value)| Some((name.clone(), correction(&name, &value)?))).collect();
    if corrections.is_empty() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let mut again = Command::new(this_program()?);
    again.arg0(arguments.next().unwrap_or_else(|| "annals".into())).args(arguments);
    for (name, correction) in corrections {
        match correction {
            Correction::Remove => again.env_remove(name),
            Correction::Set(value) => again.env(name, value),
        };
    }
    // It returns only if the program cannot be started.
    Err(again.exec()).context("the program cannot start itself again with corrected variables")
}

/// Returns the correction of a variable, if it needs one.
fn correction(name: &OsStr, value: &OsStr) -> Option<Correction> {
    let name = name.to_str()?;
    if name.starts_with(LIBPQ) {
        return Some(Correction::Remove);
    }
    SETTINGS.iter().find(|prefix| name.starts_with(**prefix))?;
    let text = value.to_str()?;
    let trimmed = text.trim_end_matches(['\r', '\n']);
    if trimmed.is_empty() {
        Some(Correction::Remove)
    } else {
        (trimmed != text).then(|| Correction::Set(trimmed.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_corrected_and_variables_of_libpq_are_removed() {
        let correction = |name: &str, value: &str| correction(name.as_ref(), value.as_ref());
        for (name, value) in
            [("ANNALS_LISTEN", ""), ("AWS_REGION", "\n"), ("PGHOST", "db"), ("PGSSLMODE", ""), ("DATABASE_URL", "")]
        {
            assert_eq!(correction(name, value), Some(Correction::Remove), "{name}");
        }
        assert_eq!(correction("ANNALS_AUTH", "keys\r\n"), Some(Correction::Set("keys".into())));
        for (name, value) in [("ANNALS_LISTEN", "127.0.0.1:1"), ("HOME", ""), ("OTHER", "x\n"), ("AWS_REGION", "eu")] {
            assert_eq!(correction(name, value), None, "{name}");
        }
    }
}
