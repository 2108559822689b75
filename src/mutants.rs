//! Broken variants of Annals, which `annals-torture --mutants` must detect: a checker that never failed proves nothing.
//! Only builds with debug assertions contain them, so no release does.

use std::sync::LazyLock;

/// The writer returns results before the transaction is committed.
pub const ACKNOWLEDGED_BEFORE_COMMIT: &str = "acknowledged-before-commit";
/// A subscription that is behind the ring continues at the ring, and does not read the table.
pub const SKIP_ON_LAG: &str = "skip-on-lag";
/// A group hands out the events of a partition although it has a live lease.
pub const LIVE_LEASES_IGNORED: &str = "live-leases-ignored";
/// A claim contains events of parked streams.
pub const PARKED_STREAMS_IN_BATCHES: &str = "parked-streams-in-batches";
/// A claim after an expired lease has several events.
pub const CAREFUL_TO_IGNORED: &str = "careful-to-ignored";
/// The position of a group is that of its most advanced partition.
pub const GROUP_AT_MAXIMUM: &str = "group-at-maximum";
/// An acknowledgement is accepted for a claim that has ended.
pub const ACKNOWLEDGED_WITHOUT_FENCE: &str = "acknowledged-without-fence";
/// An acknowledgement acknowledges the whole claim.
pub const ACKNOWLEDGED_TO_THE_END: &str = "acknowledged-to-the-end";
/// A failed event is not parked.
pub const FAILURE_NOT_PARKED: &str = "failure-not-parked";
/// A parked stream is removed before all its events are processed.
pub const UNPARKED_TOO_EARLY: &str = "unparked-too-early";
/// The idempotency key of a claim is not looked up.
pub const CLAIM_KEY_IGNORED: &str = "claim-key-ignored";
/// After the partitions have doubled, events are assigned by their former number.
pub const FORMER_PARTITIONS: &str = "former-partitions";
/// A failure makes the whole partition rest.
pub const FAILURE_RESTS_PARTITION: &str = "failure-rests-partition";
/// A waiting worker is woken only by new events.
pub const NOT_WOKEN_AT_LEASE_END: &str = "not-woken-at-lease-end";

/// Archived events are returned with their erased content until the files are written again.
pub const ARCHIVED_ROWS_NOT_MASKED: &str = "archived-rows-not-masked";
/// The ring returns events that it read before an erasure.
pub const RING_NOT_RESTARTED: &str = "ring-not-restarted";
/// A reducer is called with erased events.
pub const ERASED_EVENTS_FOLDED: &str = "erased-events-folded";
/// A key with the scope `append` may erase.
pub const ERASED_WITH_SCOPE_APPEND: &str = "erased-with-scope-append";
/// The $erased events are appended before the content is erased.
pub const ANNOUNCED_FIRST: &str = "announced-first";
/// Bytes of erased content are left in the table: it is vacuumed, and not replaced.
pub const VACUUM_INSTEAD_OF_REWRITE: &str = "vacuum-instead-of-rewrite";

/// Returns whether this process is the given broken variant, which `ANNALS_MUTANT` names.
pub fn is(mutant: &str) -> bool {
    static CHOSEN: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("ANNALS_MUTANT").ok());
    cfg!(debug_assertions) && CHOSEN.as_deref() == Some(mutant)
}
