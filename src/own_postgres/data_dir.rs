//! The folder of the data.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::own_postgres::error::OwnPostgresError;
use crate::own_postgres::private_file::open_folder;
use crate::own_postgres::safe_path::{PathOwners, check_data_without_root};
use crate::own_postgres::user::RunAs;

/// The name of the cluster in the folder of the data.
pub(super) const CLUSTER: &str = "pg";

/// Only the owner can enter the folder.
const PRIVATE: u32 = 0o700;
/// Another user can enter the folder, and cannot list it. The unprivileged user must be able to enter its cluster.
const ENTERABLE: u32 = 0o711;

/// Returns the platform's folder for state.
pub(super) fn default_data_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/annals");
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("HOME").unwrap_or_else(|| PathBuf::from("."));
    if cfg!(target_os = "macos") {
        return home.join("Library/Application Support/annals");
    }
    set("XDG_STATE_HOME").unwrap_or_else(|| home.join(".local/state")).join("annals")
}

/// Creates the folder if it is missing, checks that no other user can change it, and returns its path without symbolic
/// links. `user` runs PostgreSQL if Annals runs as root.
pub(super) fn prepare_data_dir(data_dir: &Path, user: Option<RunAs>) -> Result<PathBuf, OwnPostgresError> {
    let failed = |error| OwnPostgresError::DataDir { path: data_dir.to_owned(), error };
    let absolute = std::path::absolute(data_dir).map_err(failed)?;
    if let (Some(user), Some(existing)) = (user, nearest_folder(&absolute)) {
        // Root must not create a folder where another user chooses the place.
        PathOwners::for_data(user).check_folders(&existing)?;
    }
    let mode = if user.is_some() { ENTERABLE } else { PRIVATE };
    fs::DirBuilder::new().recursive(true).mode(mode).create(&absolute).map_err(failed)?;
    let path = fs::canonicalize(&absolute).map_err(OwnPostgresError::io(&absolute))?;
    match user {
        Some(user) => {
            let owners = PathOwners::for_data(user);
            owners.check(&path)?;
            // The cluster itself may be a symbolic link to another disk.
            if let Ok(cluster) = fs::canonicalize(path.join(CLUSTER)) {
                owners.check(&cluster)?;
            }
            let_users_enter(&path).map_err(OwnPostgresError::io(&path))?;
        }
        None => check_data_without_root(&path)?,
    }
    Ok(path)
}

/// Returns the folder that exists and is nearest to the path, without symbolic links.
fn nearest_folder(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|ancestor| fs::canonicalize(ancestor).ok().filter(|found| found.is_dir()))
}

fn let_users_enter(folder: &Path) -> std::io::Result<()> {
    let folder = open_folder(folder)?;
    let mode = folder.metadata()?.permissions().mode();
    folder.set_permissions(fs::Permissions::from_mode(mode | ENTERABLE))
}
