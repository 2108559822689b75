//! Limits of folds.

/// The largest state, in bytes. If a state is larger, its reducer has failed.
pub const STATE_BYTES_MAX: usize = 1024 * 1024;
/// The largest number of events of a trial.
pub const TRIAL_EVENTS_MAX: usize = 1_000;
/// The limit of the bytes that a trial passes to a reducer, and of the bytes of the states that it returns.
pub const TRIAL_BYTES_MAX: usize = 8 * 1024 * 1024;
