//! Limits of folds.

/// The largest state, in bytes. If a state is larger, its reducer has failed.
pub const STATE_BYTES_MAX: usize = 1024 * 1024;
/// The largest number of states that a trial or a page of states returns.
pub const STATES_MAX: usize = 1_000;
/// The limit of the bytes of events that are passed to a reducer for these states, and of the bytes of the states.
pub const STATES_BYTES_MAX: usize = 8 * 1024 * 1024;
