//! The user that runs PostgreSQL, which does not run as root.

use nix::unistd::{Gid, Uid, User, geteuid};

use crate::own_postgres::error::OwnPostgresError;

/// An unprivileged user.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunAs {
    pub uid: Uid,
    pub gid: Gid,
}

/// Returns `postgres` or `nobody` if this process runs as root; otherwise `None`: PostgreSQL runs as the same user.
pub(super) fn unprivileged_user() -> Result<Option<RunAs>, OwnPostgresError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .map(|user| Some(RunAs { uid: user.uid, gid: user.gid }))
        .ok_or(OwnPostgresError::NoUser)
}
