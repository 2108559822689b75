//! The default folder of the data.

use std::path::PathBuf;

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
