//! Files and folders that are opened without following a symbolic link.
//!
//! If root opens a path in a folder of another user, that user could put a link there, so that root changes a file
//! elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::own_postgres::error::OwnPostgresError;

/// Only the owner can read and write.
const PRIVATE: u32 = 0o600;

/// Opens a file to append to it or to lock it, and creates it if it is missing. Only the owner can read it.
pub(super) fn open_private_file(path: &Path) -> Result<File, OwnPostgresError> {
    let refused = |found| OwnPostgresError::ForeignFile { path: path.to_owned(), found };
    let opened = options().create(true).append(true).mode(PRIVATE).open(path);
    let file = opened.map_err(|error| match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => refused("a symbolic link"),
        Ok(_) | Err(_) => OwnPostgresError::Io { path: path.to_owned(), error },
    })?;
    let metadata = file.metadata().map_err(OwnPostgresError::io(path))?;
    if !metadata.is_file() {
        return Err(refused("not a regular file"));
    }
    // A hard link gives a file of another folder a name in this one.
    if metadata.nlink() > 1 {
        return Err(refused("a file with several hard links"));
    }
    if metadata.mode() & 0o777 != PRIVATE {
        file.set_permissions(fs::Permissions::from_mode(PRIVATE)).map_err(OwnPostgresError::io(path))?;
    }
    Ok(file)
}

/// Reads a text file.
pub(super) fn read_private_file(path: &Path) -> io::Result<String> {
    options().read(true).open(path).and_then(io::read_to_string)
}

/// Opens a folder, to change its owner or its mode.
pub(super) fn open_folder(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY).bits()).open(path)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(OFlag::O_NOFOLLOW.bits());
    options
}
