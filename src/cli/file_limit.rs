//! The limit of open files, and the number of connections that it permits. Every connection is an open file.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// The fewest connections of clients with which the service starts.
const CONNECTIONS_MIN: u64 = 10;
/// Files that belong to no connection: those of the log, of workers, of the archive and of the runtime.
const OTHER_FILES: u64 = 200;
/// A limit that every system permits to a process whose hard limit is infinite. macOS refuses a higher one.
const OPEN_MAX: rlim_t = 10_240;

/// Raises the limit of open files as far as this process may. Returns the number of connections of clients that it
/// permits: `wanted`, or fewer. `reserved` is the number of other connections, those of clients above the limit and
/// those to PostgreSQL. Fails if the limit permits too few.
pub fn connections_within_limit(wanted: usize, reserved: usize) -> anyhow::Result<usize> {
    let limit = match raise_limit() {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files is unknown");
            return Ok(wanted);
        }
    };
    let others = reserved as u64 + OTHER_FILES;
    let connections = permitted(limit, wanted as u64, others);
    if connections < CONNECTIONS_MIN {
        anyhow::bail!(
            "the limit of open files is {limit}, and Annals needs at least {}: raise it to {} (ulimit -Hn, \
             LimitNOFILE= of systemd, --ulimit nofile= of Docker)",
            others + CONNECTIONS_MIN,
            others + wanted as u64,
        );
    }
    if connections < wanted as u64 {
        tracing::warn!(
            limit,
            connections,
            wanted,
            "the limit of open files permits fewer connections of clients than configured: raise it (ulimit -Hn, \
             LimitNOFILE= of systemd, --ulimit nofile= of Docker)"
        );
    }
    Ok(usize::try_from(connections).unwrap_or(wanted))
}

/// Returns how many of the wanted connections a limit permits beside other files.
fn permitted(limit: u64, wanted: u64, others: u64) -> u64 {
    limit.saturating_sub(others).min(wanted)
}

/// Raises the soft limit to the hard one, or as far as the system permits. Returns the soft limit.
fn raise_limit() -> nix::Result<rlim_t> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let mut higher = [hard, hard.min(OPEN_MAX)].into_iter().filter(|limit| *limit > soft);
    let raised = higher.find(|limit| setrlimit(Resource::RLIMIT_NOFILE, *limit, hard).is_ok());
    Ok(raised.unwrap_or(soft))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_other_files_do_not_need() {
        for (limit, wanted, others, expected) in [
            (1_048_576, 10_000, 310, 10_000),
            (10_310, 10_000, 310, 10_000),
            (10_309, 10_000, 310, 9_999),
            (1_024, 10_000, 310, 714),
            (310, 10_000, 310, 0),
            (64, 10_000, 310, 0),
        ] {
            assert_eq!(permitted(limit, wanted, others), expected, "{limit}");
        }
    }
}
