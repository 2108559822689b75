//! Finds the binaries: `postgres` and `initdb` of version 15 or newer.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::own_postgres::data_dir::default_data_dir;
use crate::own_postgres::error::OwnPostgresError;
use crate::own_postgres::safe_path::PathOwners;
use crate::own_postgres::user::RunAs;

/// The oldest supported major version.
const MAJOR_MIN: u32 = 15;

/// A folder of binaries, and their major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    pub bin: PathBuf,
    pub major: u32,
}

impl Installation {
    /// Returns the binaries in `bin` if it is given, otherwise the first ones that are found. If the data has a
    /// version, `major`, the binaries must have it, too. `user` runs them if Annals runs as root. Then binaries that a
    /// user other than root can change are not run at all.
    pub(super) fn find(
        bin: Option<&Path>,
        data_dir: &Path,
        major: Option<u32>,
        user: Option<RunAs>,
    ) -> Result<Self, OwnPostgresError> {
        let fits = |found: &Self| major.is_none_or(|major| found.major == major);
        let none_fits = || match major {
            Some(found) => OwnPostgresError::OtherMajor { path: data_dir.to_owned(), found },
            None => OwnPostgresError::NotFound,
        };
        if let Some(bin) = bin {
            return Some(Self::probe(bin, user)?).filter(fits).ok_or_else(none_fits);
        }
        let mut refused = None;
        for bin in places(data_dir) {
            match Self::probe(&bin, user) {
                Ok(found) if fits(&found) => return Ok(found),
                Err(error @ OwnPostgresError::UnsafePath { .. }) => {
                    tracing::warn!(%error, "a PostgreSQL is not used");
                    refused = refused.or(Some(error));
                }
                Ok(_) | Err(_) => {}
            }
        }
        Err(refused.unwrap_or_else(none_fits))
    }

    fn probe(bin: &Path, user: Option<RunAs>) -> Result<Self, OwnPostgresError> {
        let bad = |problem: String| OwnPostgresError::BadBin { path: bin.to_owned(), problem };
        if !bin.join("initdb").is_file() {
            return Err(bad("the folder has no initdb".to_owned()));
        }
        let resolved = fs::canonicalize(bin).map_err(|error| bad(error.to_string()))?;
        let cannot_run = |error: std::io::Error| bad(format!("postgres cannot be run: {error}"));
        if user.is_some() {
            let owners = PathOwners::for_programs();
            owners.check(&resolved)?;
            for program in ["initdb", "postgres"] {
                owners.check(&fs::canonicalize(resolved.join(program)).map_err(cannot_run)?)?;
            }
        }
        let output = command(&resolved, "postgres", user).arg("--version").output().map_err(cannot_run)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let major = major_of(&text).ok_or_else(|| bad(format!("`postgres --version` says {text:?}")))?;
        if major < MAJOR_MIN {
            return Err(bad(format!("it has PostgreSQL {major}, and Annals needs {MAJOR_MIN} or newer")));
        }
        Ok(Self { bin: resolved, major })
    }

    /// Returns a command that runs a program of the installation, with an almost empty environment.
    pub(super) fn command(&self, program: &str, user: Option<RunAs>) -> Command {
        command(&self.bin, program, user)
    }
}

fn command(bin: &Path, program: &str, user: Option<RunAs>) -> Command {
    let mut command = Command::new(bin.join(program));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// Returns the major version in a text like `postgres (PostgreSQL) 16.14`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let digits = number.find(|character: char| !character.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

/// Returns the folders to search, in order: those of scripts/get-postgres, PATH, and the usual folders, newest version
/// first.
fn places(data_dir: &Path) -> Vec<PathBuf> {
    let mut places = versions_in(&data_dir.join("postgresql"), "bin");
    places.extend(versions_in(&default_data_dir().join("postgresql"), "bin"));
    places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    places.extend(versions_in(Path::new("/usr/lib/postgresql"), "bin"));
    for parent in ["/usr", "/opt/homebrew/opt", "/usr/local/opt"] {
        places.extend(versions_in(Path::new(parent), "bin"));
    }
    places.push(PathBuf::from("/usr/local/pgsql/bin"));
    places.extend(versions_in(Path::new("/Applications/Postgres.app/Contents/Versions"), "bin"));
    places
}

/// Returns the folders `<parent>/<major>/<last>`, `<parent>/pgsql-<major>/<last>` and
/// `<parent>/postgresql@<major>/<last>`, newest version first.
fn versions_in(parent: &Path, last: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            let number = name.strip_prefix("pgsql-").or_else(|| name.strip_prefix("postgresql@")).unwrap_or(name);
            Some((number.parse().ok()?, entry.path().join(last)))
        })
        .collect();
    versions.sort_by(|one, other| other.cmp(one));
    versions.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_parsed_from_the_output_of_postgres() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18.6\n"), Some(18));
        assert_eq!(major_of("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(major_of("something else"), None);
    }
}
