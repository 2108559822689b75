//! The sizes of the attacks.

use crate::args::Attack;

/// The number of requests and events of each attack.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Event streams that the attacker opens, unless the service refuses one earlier.
    pub event_streams: usize,
    /// Requests for states at a time, half of them for each of two types.
    pub folds: usize,
    /// Events of each aggregate with a slow reducer. Each takes about 20 ms of a processor.
    pub slow_events: usize,
    /// Snapshots that the attacker makes due at a time.
    pub snapshots: usize,
    /// Connections that read the log.
    pub scans: usize,
    /// Requests that wait for a projection at a time.
    pub waiters: usize,
    /// Connections that append a megabyte with each request.
    pub large_appends: usize,
}

impl Sizes {
    /// The attacks that an audit between tenants has found.
    pub const FULL: Self = Self {
        event_streams: 1_000,
        folds: 32,
        slow_events: 400,
        snapshots: 5,
        scans: 20,
        waiters: 1_000,
        large_appends: 16,
    };

    /// Attacks that a test of this program can afford.
    pub const QUICK: Self =
        Self { event_streams: 20, folds: 4, slow_events: 20, snapshots: 2, scans: 2, waiters: 20, large_appends: 2 };

    /// Describes an attack for the report.
    pub fn describe(&self, attack: Attack) -> String {
        let Self { event_streams, folds, slow_events, snapshots, scans, waiters, large_appends } = self;
        match attack {
            Attack::Streams => format!("up to {event_streams} event streams of one key"),
            Attack::Reducers => {
                format!(
                    "{folds} requests at a time for states of {slow_events} events, of two types with slow reducers"
                )
            }
            Attack::Snapshots => {
                format!("{snapshots} snapshots due at a time, of {slow_events} events of a type with a slow reducer")
            }
            Attack::Scans => {
                format!("{scans} connections that read the log, with a key that may read none of its events")
            }
            Attack::Waiters => format!("{waiters} requests at a time that wait for a projection"),
            Attack::Appends => format!("{large_appends} connections that append a megabyte at a time"),
        }
    }
}
