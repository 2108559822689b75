//! Whom to run PostgreSQL as: it refuses root.

use nix::unistd::{Gid, Uid, User, geteuid};

use super::DevDbError;

/// An unprivileged user.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunAs {
    pub uid: Uid,
    pub gid: Gid,
}

/// `postgres` or `nobody` where we are root; otherwise nobody else than ourselves.
pub(super) fn to_run_as() -> Result<Option<RunAs>, DevDbError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .map(|user| Some(RunAs { uid: user.uid, gid: user.gid }))
        .ok_or(DevDbError::NoUser)
}
