//! Paths that no other user can change.
//!
//! Root runs programs and writes files. A user who can write to a program, or to a folder above it, can replace what
//! root uses. So every component of a path is checked up to `/`, as OpenSSH and sudo do. The paths are resolved first,
//! so a symbolic link is never a component.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{ROOT, Uid, User};

use crate::own_postgres::error::OwnPostgresError;
use crate::own_postgres::user::RunAs;

const GROUP_OR_OTHERS_MAY_WRITE: u32 = 0o022;
const OTHERS_MAY_WRITE: u32 = 0o002;
/// In a folder with this bit, only the owner of an entry, the owner of the folder, and root can rename or remove the
/// entry.
const STICKY: u32 = 0o1000;

const DATA_DIR: &str = "ANNALS_DATA_DIR";
const PG_BIN: &str = "ANNALS_PG_BIN";

/// The users who may own the paths of a setting, and therefore change them.
pub(super) struct PathOwners {
    setting: &'static str,
    owners: Vec<Uid>,
}

impl PathOwners {
    /// Returns the owners of the data, if Annals runs as root: root and the user that runs PostgreSQL.
    pub(super) fn for_data(user: RunAs) -> Self {
        Self { setting: DATA_DIR, owners: vec![ROOT, user.uid] }
    }

    /// Returns the owner of the programs, if Annals runs as root: root alone. A program of the user that runs
    /// PostgreSQL could be changed by PostgreSQL itself.
    pub(super) fn for_programs() -> Self {
        Self { setting: PG_BIN, owners: vec![ROOT] }
    }

    /// Refuses a file or a folder that other users can change or replace. The path has no symbolic links.
    pub(super) fn check(&self, path: &Path) -> Result<(), OwnPostgresError> {
        self.check_component(path, |mode| mode & GROUP_OR_OTHERS_MAY_WRITE != 0)?;
        path.parent().map_or(Ok(()), |parent| self.check_folders(parent))
    }

    /// Refuses a folder in which other users can replace an entry of an owner. A sticky folder like `/tmp` is safe,
    /// because the owner of the entry is checked as well.
    pub(super) fn check_folders(&self, folder: &Path) -> Result<(), OwnPostgresError> {
        let replaceable = |mode: u32| mode & GROUP_OR_OTHERS_MAY_WRITE != 0 && mode & STICKY == 0;
        folder.ancestors().try_for_each(|folder| self.check_component(folder, replaceable))
    }

    fn check_component(&self, path: &Path, is_unsafe: impl Fn(u32) -> bool) -> Result<(), OwnPostgresError> {
        let metadata = fs::symlink_metadata(path).map_err(OwnPostgresError::io(path))?;
        if !self.owners.contains(&Uid::from_raw(metadata.uid())) {
            let owners: Vec<String> = self.owners.iter().map(|&owner| name_of(owner)).collect();
            let problem = format!("as root, Annals uses only paths of {}", owners.join(" or "));
            return Err(refusal(self.setting, path, &metadata, &problem, "chown root"));
        }
        if is_unsafe(metadata.mode()) {
            return Err(refusal(self.setting, path, &metadata, "other users can write to it", "chmod go-w"));
        }
        Ok(())
    }
}

/// Refuses a folder for the data that every user can write to, if Annals does not run as root.
pub(super) fn check_data_without_root(path: &Path) -> Result<(), OwnPostgresError> {
    let metadata = fs::symlink_metadata(path).map_err(OwnPostgresError::io(path))?;
    if metadata.mode() & OTHERS_MAY_WRITE != 0 {
        return Err(refusal(DATA_DIR, path, &metadata, "every user can write to it", "chmod o-w"));
    }
    Ok(())
}

fn refusal(
    setting: &'static str,
    path: &Path,
    metadata: &fs::Metadata,
    problem: &str,
    command: &str,
) -> OwnPostgresError {
    let (path, owner) = (path.display(), name_of(Uid::from_raw(metadata.uid())));
    OwnPostgresError::UnsafePath {
        setting,
        problem: format!("{path} belongs to {owner} and has the mode {:04o}: {problem}", metadata.mode() & 0o7777),
        remedy: format!("`{command} {path}`"),
    }
}

fn name_of(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => format!("{} (uid {uid})", user.name),
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    /// Creates `<temporary folder>/above/leaf` with the modes.
    fn path(above: u32, leaf: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let parent = folder.path().canonicalize().expect("a path").join("above");
        let path = parent.join("leaf");
        fs::create_dir_all(&path).expect("a folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(leaf)).expect("the mode is set");
        fs::set_permissions(&parent, fs::Permissions::from_mode(above)).expect("the mode is set");
        (folder, path)
    }

    fn owners(owners: &[Uid]) -> PathOwners {
        PathOwners { setting: DATA_DIR, owners: owners.to_vec() }
    }

    fn is_accepted(above: u32, leaf: u32) -> bool {
        let (_folder, path) = path(above, leaf);
        owners(&[ROOT, nix::unistd::geteuid()]).check(&path).is_ok()
    }

    #[test]
    fn a_path_is_refused_if_its_group_or_others_can_write_to_it() {
        assert!(is_accepted(0o755, 0o755));
        assert!(is_accepted(0o700, 0o700));
        for mode in [0o775, 0o757, 0o777, 0o1777] {
            assert!(!is_accepted(0o755, mode), "{mode:o}");
        }
    }

    #[test]
    fn a_folder_above_that_others_can_write_to_is_accepted_only_if_it_is_sticky() {
        for mode in [0o775, 0o757, 0o777] {
            assert!(!is_accepted(mode, 0o755), "{mode:o}");
        }
        assert!(is_accepted(0o1777, 0o755));
    }

    #[test]
    fn a_refusal_names_the_path_the_owner_the_mode_the_setting_and_the_remedy() {
        let (_folder, path) = path(0o755, 0o757);
        let text = owners(&[ROOT, nix::unistd::geteuid()]).check(&path).expect_err("an unsafe path").to_string();
        let path = path.display();
        assert!(text.starts_with(&format!("ANNALS_DATA_DIR: {path} belongs to ")), "{text}");
        assert!(text.contains(&format!("(uid {})", nix::unistd::geteuid())), "{text}");
        assert!(text.contains("has the mode 0757: other users can write to it"), "{text}");
        assert!(text.contains(&format!("`chmod go-w {path}`, or choose another ANNALS_DATA_DIR")), "{text}");
    }

    #[test]
    fn a_path_of_another_user_is_refused() {
        let (_folder, path) = path(0o755, 0o755);
        let text = owners(&[Uid::from_raw(54321)]).check(&path).expect_err("a path of this user").to_string();
        assert!(text.contains("Annals uses only paths of uid 54321"), "{text}");
        assert!(text.contains(&format!("`chown root {}`", path.display())), "{text}");
    }
}
