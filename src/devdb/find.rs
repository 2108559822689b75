//! Finds the binaries: `postgres` and `initdb` of version 15 or newer.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::DevDbError;

const MAJOR_MIN: u32 = 15;

/// A folder of binaries and the major version they are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    pub bin: PathBuf,
    pub major: u32,
}

impl Installation {
    /// The binaries to use: those in `bin` if given, else the first found; of `major`, where there are data of it.
    pub(super) fn find(bin: Option<&Path>, data_dir: &Path, major: Option<u32>) -> Result<Self, DevDbError> {
        let fits = |found: &Self| major.is_none_or(|major| found.major == major);
        let found = match bin {
            Some(bin) => {
                vec![Self::probe(bin).map_err(|problem| DevDbError::BadBin { path: bin.to_owned(), problem })?]
            }
            None => places(data_dir).iter().filter_map(|bin| Self::probe(bin).ok()).collect(),
        };
        let none_fits = || match major {
            Some(found) => DevDbError::OtherMajor { path: data_dir.to_owned(), found },
            None => DevDbError::NotFound,
        };
        found.into_iter().find(fits).ok_or_else(none_fits)
    }

    fn probe(bin: &Path) -> Result<Self, String> {
        if !bin.join("initdb").is_file() {
            return Err("there is no initdb in it".to_owned());
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

/// The number in `postgres (PostgreSQL) 16.14`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let digits = number.find(|character: char| !character.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

/// Where to look, in this order: what scripts/get-postgres fetched, PATH, and the usual folders, newest first.
fn places(data_dir: &Path) -> Vec<PathBuf> {
    let mut places = versions_in(&data_dir.join("postgresql"), "bin");
    places.extend(versions_in(&super::default_data_dir().join("postgresql"), "bin"));
    places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    places.extend(versions_in(Path::new("/usr/lib/postgresql"), "bin"));
    for parent in ["/usr", "/opt/homebrew/opt", "/usr/local/opt"] {
        places.extend(versions_in(Path::new(parent), "bin"));
    }
    places.push(PathBuf::from("/usr/local/pgsql/bin"));
    places.extend(versions_in(Path::new("/Applications/Postgres.app/Contents/Versions"), "bin"));
    places
}

/// `<parent>/<major>/<last>`, `<parent>/pgsql-<major>/<last>` and `<parent>/postgresql@<major>/<last>`, newest first.
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
    fn the_major_version_is_read_from_what_postgres_says() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18.6\n"), Some(18));
        assert_eq!(major_of("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(major_of("something else"), None);
    }
}
