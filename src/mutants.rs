//! Broken variants of Annals, which `annals-torture --mutants` must detect: a checker that never failed proves nothing.
//! Without the cargo feature `mutants`, the program contains none of them.

/// The writer returns results before the transaction is committed.
pub const ACKNOWLEDGED_BEFORE_COMMIT: &str = "acknowledged-before-commit";
/// A subscription that is behind the ring continues at the ring, and does not read the table.
pub const SKIP_ON_LAG: &str = "skip-on-lag";

/// Returns whether this process is the given broken variant, which `ANNALS_MUTANT` names.
#[cfg(feature = "mutants")]
pub fn is(mutant: &str) -> bool {
    std::env::var("ANNALS_MUTANT").is_ok_and(|chosen| chosen == mutant)
}

/// Returns false: without the cargo feature, no variant exists.
#[cfg(not(feature = "mutants"))]
pub const fn is(_: &str) -> bool {
    false
}
