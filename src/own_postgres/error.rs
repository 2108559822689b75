//! Why Annals' own PostgreSQL cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use crate::store::error::StoreError;

/// Why Annals' own PostgreSQL cannot be used. Most texts say what the user can do.
#[derive(Debug, thiserror::Error)]
pub enum OwnPostgresError {
    #[error(
        "no database is configured, and no PostgreSQL (15 or newer) was found to run one. Set DATABASE_URL; or run \
         scripts/get-postgres, which downloads a PostgreSQL; or install one (apt install postgresql, brew install \
         postgresql) and, if it is in an unusual place, set ANNALS_PG_BIN to the folder of `postgres` and `initdb`"
    )]
    NotFound,
    #[error("ANNALS_PG_BIN={}: {problem}", path.display())]
    BadBin { path: PathBuf, problem: String },
    #[error(
        "the data in {} was written by PostgreSQL {found}, and no PostgreSQL {found} was found. Install it, or set \
         ANNALS_PG_BIN to its folder; or move the data with pg_dump or pg_upgrade; or choose another ANNALS_DATA_DIR",
        path.display()
    )]
    OtherMajor { path: PathBuf, found: u32 },
    #[error("ANNALS_DATA_DIR={}: the path is too long for a Unix socket: choose one of at most 87 bytes", .0.display())]
    PathTooLong(PathBuf),
    #[error(
        "PostgreSQL does not run as root, and no user `postgres` or `nobody` exists to run it as: create one of them, \
         run Annals as another user, or set DATABASE_URL"
    )]
    NoUser,
    #[error("{setting}: {problem}. Remedy: {remedy}, or choose another {setting}")]
    UnsafePath { setting: &'static str, problem: String, remedy: String },
    #[error(
        "{}: it is {found}, and Annals writes only to files of its own: remove it, or choose another ANNALS_DATA_DIR",
        path.display()
    )]
    ForeignFile { path: PathBuf, found: &'static str },
    #[error("{what}: {output}")]
    Failed { what: &'static str, output: String },
    #[error("ANNALS_DATA_DIR={}: the folder cannot be created: {error}", path.display())]
    DataDir { path: PathBuf, error: io::Error },
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("the PostgreSQL that was started cannot be used")]
    Database(#[from] StoreError),
}

impl OwnPostgresError {
    /// Returns a function that adds the path to an I/O error.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |error| Self::Io { path: path.to_owned(), error }
    }
}
