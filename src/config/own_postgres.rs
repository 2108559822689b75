//! Settings of the PostgreSQL that Annals runs if no database is configured.

use std::path::PathBuf;

use clap::Args;

/// Settings of the PostgreSQL that Annals runs if no database is configured.
#[derive(Debug, Clone, Args)]
pub struct OwnPostgresArgs {
    /// Folder for the data of the PostgreSQL that Annals runs if no database is configured [default: the platform's
    /// state folder, /var/lib/annals for root]
    #[arg(long, env = "ANNALS_DATA_DIR", value_name = "ANNALS_DATA_DIR")]
    pub annals_data_dir: Option<PathBuf>,

    /// Folder of the programs `postgres` and `initdb` for that PostgreSQL, 15 or newer [default: found on the system]
    #[arg(long, env = "ANNALS_PG_BIN", value_name = "ANNALS_PG_BIN")]
    pub annals_pg_bin: Option<PathBuf>,
}

impl OwnPostgresArgs {
    /// Returns the folder of the data, if it is set. An empty variable counts as not set.
    pub fn data_dir(&self) -> Option<PathBuf> {
        self.annals_data_dir.clone().filter(|dir| !dir.as_os_str().is_empty())
    }

    /// Returns the folder of the binaries, if it is set. An empty variable counts as not set.
    pub fn bin(&self) -> Option<PathBuf> {
        self.annals_pg_bin.clone().filter(|bin| !bin.as_os_str().is_empty())
    }
}
