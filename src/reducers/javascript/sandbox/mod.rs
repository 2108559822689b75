//! Confines a worker process before it reads the source of a reducer.
//!
//! QuickJS is a library in C. A source that exploits a defect of it runs as native code in the worker. The kernel then
//! refuses files, the network, other processes and new privileges to this code.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod filter;

/// Forbids this thread, and the threads that it starts from now on, to gain privileges. Returns the reason if that is
/// not possible.
#[cfg(target_os = "linux")]
pub fn forbid_new_privileges() -> Result<(), String> {
    nix::sys::prctl::set_no_new_privs().map_err(|error| format!("no_new_privs cannot be set: {error}"))
}

/// Returns the reason why new privileges cannot be forbidden.
#[cfg(not(target_os = "linux"))]
pub fn forbid_new_privileges() -> Result<(), String> {
    Err(format!("{} has no such filter", std::env::consts::OS))
}

/// Makes the kernel refuse the system calls that a fold does not need, in all threads of this process and for ever.
/// Returns the reason if the system has no such filter.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn filter_system_calls() -> Result<(), String> {
    filter::install().map_err(|error| error.to_string())
}

/// Returns the reason why system calls cannot be filtered.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub fn filter_system_calls() -> Result<(), String> {
    Err(format!("Annals has no filter for {} on {}", std::env::consts::OS, std::env::consts::ARCH))
}
