//! Finds the binaries: `postgres` and `initdb` of version 15 or newer.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::own_postgres::data_dir::default_data_dir;
use crate::own_postgres::error::OwnPostgresError;

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
    /// version, `major`, the binaries must have it, too.
    pub(super) fn find(bin: Option<&Path>, data_dir: &Path, major: Option<u32>) -> Result<Self, OwnPostgresError> {
        let fits = |found: &Self| major.is_none_or(|major| found.major == major);
        let found = match bin {
            Some(bin) => {
                vec![Self::probe(bin).map_err(|problem| OwnPostgresError::BadBin { path: bin.to_owned(), problem })?]
            }
            None => places(data_dir).iter().filter_map(|bin| Self::probe(bin).ok()).collect(),
        };
        let none_fits = || match major {
            Some(found) => OwnPostgresError::OtherMajor { path: data_dir.to_owned(), found },
            None => OwnPostgresError::NotFound,
        };
        found.into_iter().find(fits).ok_or_else(none_fits)
    }

    fn probe(bin: &Path) -> Result<Self, String> {
        if !bin.join("initdb").is_file() {
            return Err("the folder has no initdb".to_owned());
        }
        let output = Command::new(bin.join("postgres"))
            .arg("--version")
            .output()
            .map_err(|error| format!("postgres cannot be run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let major = major_of(&text).ok_or_else(|| format!("`postgres --version` says {text:?}"))?;
        if major < MAJOR_MIN {
            return Err(format!("it has PostgreSQL {major}, and Annals needs {MAJOR_MIN} or newer"));
        }
        Ok(Self { bin: bin.to_owned(), major })
    }
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
