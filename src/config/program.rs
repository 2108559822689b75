//! The path of this program.

use std::path::PathBuf;

use crate::config::error::ConfigError;

/// Returns a path that starts this program. On Linux, it does so even after the file was replaced or removed.
pub fn this_program() -> Result<PathBuf, ConfigError> {
    if cfg!(target_os = "linux") {
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    std::env::current_exe()
        .map_err(|error| ConfigError(format!("the path of this program cannot be determined: {error}")))
}
