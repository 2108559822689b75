//! Broken variants of Annals, which `annals-torture --mutants` has to find: a checker that was never seen failing proves
//! nothing. Without the feature `mutants` there is none, and nothing of them is in the program.

/// The writer answers before the transaction is committed.
pub const ACKNOWLEDGED_BEFORE_COMMIT: &str = "acknowledged-before-commit";
/// A subscriber that is behind the ring goes on where the ring begins, and does not read the table.
pub const SKIP_ON_LAG: &str = "skip-on-lag";

/// Whether this process is to be broken in this way.
#[cfg(feature = "mutants")]
pub fn is(mutant: &str) -> bool {
    std::env::var("ANNALS_MUTANT").is_ok_and(|chosen| chosen == mutant)
}

#[cfg(not(feature = "mutants"))]
pub const fn is(_: &str) -> bool {
    false
}
