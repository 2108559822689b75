//! Mutants: broken builds of Annals. Each breaks one thing that a promise depends on, and a run must find it. A checker
//! that was never seen failing proves nothing.
//!
//! A mutant of SQL patches functions in the run's own database. It identifies a line by a marker, which is a comment at
//! the end of the line (`-- marker: append-lock`). So the mutant does not depend on the text of the line. A marker
//! occurs in exactly one line of a function. Builds with debug assertions contain the mutants of Rust code, and
//! `ANNALS_MUTANT` selects one.

use anyhow::ensure;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

pub struct Mutant {
    pub name: &'static str,
    /// A description of the broken behaviour.
    pub what: &'static str,
    /// A statement that runs before the patches.
    prepare: Option<&'static str>,
    patches: &'static [Patch],
    place: Place,
    found_by: FoundBy,
}

/// What finds a mutant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    /// A run with faults, and the checker of its history.
    Run,
    /// The model of consumer groups.
    GroupModel,
    /// The scenario of erasures.
    ErasureModel,
}

/// The place of a mutant.
#[derive(PartialEq, Eq)]
enum Place {
    /// Only functions of the database.
    Database,
    /// The program. Functions of the database can be patched, too.
    Program,
}

/// One change of one line of a function.
struct Patch {
    function: &'static str,
    marker: &'static str,
    change: Change,
}

enum Change {
    RemoveLine,
    ReplaceLine(&'static str),
    InsertBefore(&'static str),
    InsertAfter(&'static str),
}

/// The procedures for a batch and for a single event, and the functions that each calls.
const PROCEDURE: &str = "append_events";
const LOCKED: &str = "append_events_locked";
const SINGLE_PROCEDURE: &str = "append_event";
const SINGLE_LOCKED: &str = "append_event_locked";

/// Returns a patch that removes a line.
const fn remove(function: &'static str, marker: &'static str) -> Patch {
    Patch { function, marker, change: Change::RemoveLine }
}

/// Returns a patch that replaces a line with other text.
const fn replace(function: &'static str, marker: &'static str, text: &'static str) -> Patch {
    Patch { function, marker, change: Change::ReplaceLine(text) }
}

/// Returns a patch that inserts text after a line.
const fn insert_after(function: &'static str, marker: &'static str, text: &'static str) -> Patch {
    Patch { function, marker, change: Change::InsertAfter(text) }
}

/// Returns a patch that inserts text before a line.
const fn insert_before(function: &'static str, marker: &'static str, text: &'static str) -> Patch {
    Patch { function, marker, change: Change::InsertBefore(text) }
}

const CREATE_SEQUENCE: &str = "CREATE SEQUENCE mutant_positions; GRANT ALL ON SEQUENCE mutant_positions TO PUBLIC";
const LOCK: &str = "LOCK TABLE append_lock IN EXCLUSIVE MODE;";
const SYNCHRONOUS_COMMIT_OFF: &str = "PERFORM set_config('synchronous_commit', 'off', true);";
/// Patches the line that assigns positions in the loop that decides requests one by one.
const POSITIONS_OF_DECIDED: Patch = replace(
    LOCKED,
    "first-position",
    "append_first_positions[a] := nextval('mutant_positions');
     PERFORM nextval('mutant_positions') FROM generate_series(2, v_count);",
);
/// Replaces the positions of a plain batch, which are computed before this line.
const POSITIONS_OF_PLAIN: Patch = insert_after(
    LOCKED,
    "plain-batch",
    "FOR a IN 1 .. v_appends LOOP
         append_first_positions[a] := nextval('mutant_positions');
         PERFORM nextval('mutant_positions')
            FROM generate_series(2, coalesce(p_append_offsets[a + 1], v_events) - p_append_offsets[a]);
     END LOOP;",
);
const POSITION_OF_SINGLE: Patch =
    replace(SINGLE_LOCKED, "first-position", "log_position := nextval('mutant_positions');");
const TRUST_END_OF_LOG: &str = "IF p_last_generation IS NOT NULL THEN
     log_position := p_log_position;
     log_time := p_log_time;
     open_from := p_open_from;
 END IF;";
const WRITTEN_APPENDS_ON_CONFLICT: &str = "WHERE append_first_versions[i.append] > 0 ON CONFLICT DO NOTHING;";
const IGNORE_KNOWN_IDS: Patch = replace(LOCKED, "insert-event-ids", WRITTEN_APPENDS_ON_CONFLICT);
const IGNORE_KNOWN_ID: Patch = replace(
    SINGLE_LOCKED,
    "insert-event-ids",
    "p_event_type, p_event_data, p_metadata, p_correlation_id, p_causation_id)) ON CONFLICT DO NOTHING;",
);

const STEP: &str = "step_partition";

/// Returns a mutant of consumer groups that is compiled into the program.
const fn of_groups(name: &'static str, what: &'static str, patches: &'static [Patch]) -> Mutant {
    Mutant { name, what, prepare: None, patches, place: Place::Program, found_by: FoundBy::GroupModel }
}

/// Returns a mutant of consumer groups that changes only functions of the database.
const fn of_steps(
    name: &'static str,
    what: &'static str,
    prepare: Option<&'static str>,
    patches: &'static [Patch],
) -> Mutant {
    Mutant { name, what, prepare, patches, place: Place::Database, found_by: FoundBy::GroupModel }
}

const ERASE: &str = "erase_events";

/// Returns a mutant of erasures that is compiled into the program.
const fn of_erasures(name: &'static str, what: &'static str) -> Mutant {
    Mutant { name, what, prepare: None, patches: &[], place: Place::Program, found_by: FoundBy::ErasureModel }
}

/// Returns a mutant of erasures that changes only functions of the database.
const fn of_erase_functions(name: &'static str, what: &'static str, patches: &'static [Patch]) -> Mutant {
    Mutant { name, what, prepare: None, patches, place: Place::Database, found_by: FoundBy::ErasureModel }
}

pub const MUTANTS: [Mutant; 38] = [
    Mutant {
        name: "lock-after-read",
        what: "heads and known ids are read before the append lock is acquired",
        prepare: None,
        patches: &[
            remove(LOCKED, "append-lock"),
            insert_after(LOCKED, "decide", LOCK),
            remove(SINGLE_LOCKED, "append-lock"),
            insert_after(SINGLE_LOCKED, "decide", LOCK),
        ],
        place: Place::Database,
        found_by: FoundBy::Run,
    },
    Mutant {
        name: "no-commit",
        what: "the procedure does not commit; the transaction commits only when the client's request ends",
        prepare: None,
        patches: &[remove(PROCEDURE, "commit"), remove(SINGLE_PROCEDURE, "commit")],
        place: Place::Database,
        found_by: FoundBy::Run,
    },
    Mutant {
        name: "acknowledged-before-commit",
        what: "the response is sent before the transaction is committed",
        prepare: None,
        patches: &[remove(PROCEDURE, "commit"), remove(SINGLE_PROCEDURE, "commit")],
        place: Place::Program,
        found_by: FoundBy::Run,
    },
    Mutant {
        name: "commit-not-flushed",
        what: "`synchronous_commit` is off for appends",
        prepare: None,
        patches: &[
            insert_before(PROCEDURE, "commit", SYNCHRONOUS_COMMIT_OFF),
            insert_before(SINGLE_PROCEDURE, "commit", SYNCHRONOUS_COMMIT_OFF),
        ],
        place: Place::Database,
        found_by: FoundBy::Run,
    },
    Mutant {
        name: "on-conflict-do-nothing",
        what: "no lock, and `ON CONFLICT DO NOTHING` instead",
        prepare: None,
        patches: &[
            remove(LOCKED, "append-lock"),
            replace(LOCKED, "insert-events", WRITTEN_APPENDS_ON_CONFLICT),
            replace(LOCKED, "insert-streams", "WHERE t.first_occurred_at IS NOT NULL ON CONFLICT DO NOTHING;"),
            IGNORE_KNOWN_IDS,
            remove(SINGLE_LOCKED, "append-lock"),
            replace(
                SINGLE_LOCKED,
                "insert-events",
                "log_time, p_correlation_id, p_causation_id, log_position) ON CONFLICT DO NOTHING;",
            ),
            replace(
                SINGLE_LOCKED,
                "insert-streams",
                "VALUES (stream_no, p_aggregate_type, p_aggregate_id, log_time) ON CONFLICT DO NOTHING;",
            ),
            IGNORE_KNOWN_ID,
        ],
        place: Place::Database,
        found_by: FoundBy::Run,
    },
    Mutant {
        name: "positions-from-sequence",
        what: "positions come from a sequence, under the lock",
        prepare: Some(CREATE_SEQUENCE),
        patches: &[POSITIONS_OF_DECIDED, POSITIONS_OF_PLAIN, POSITION_OF_SINGLE],
        place: Place::Database,
        found_by: FoundBy::Run,
    },
    Mutant {
        name: "sequence-without-lock",
        what: "positions come from a sequence, and no append acquires the lock",
        prepare: Some(CREATE_SEQUENCE),
        patches: &[
            remove(LOCKED, "append-lock"),
            POSITIONS_OF_DECIDED,
            POSITIONS_OF_PLAIN,
            remove(SINGLE_LOCKED, "append-lock"),
            POSITION_OF_SINGLE,
        ],
        place: Place::Database,
        found_by: FoundBy::Run,
    },
    Mutant {
        name: "stale-end-of-log",
        what: "a session uses its cached end of the log, although another session has appended since",
        prepare: None,
        patches: &[
            insert_after(LOCKED, "cache-miss", TRUST_END_OF_LOG),
            insert_after(SINGLE_LOCKED, "cache-miss", TRUST_END_OF_LOG),
        ],
        place: Place::Database,
        found_by: FoundBy::Run,
    },
    Mutant {
        name: "stale-stream-heads",
        what: "a session uses its cached stream heads, although another session has appended since",
        prepare: None,
        patches: &[
            insert_after(LOCKED, "cache-miss", "stream_nos := p_stream_nos;"),
            insert_after(SINGLE_LOCKED, "cache-miss", "stream_no := p_stream_no;"),
        ],
        place: Place::Database,
        found_by: FoundBy::Run,
    },
    Mutant {
        name: "ids-not-checked",
        what: "known event ids are not looked up",
        prepare: None,
        patches: &[
            replace(LOCKED, "known-ids", "false AND EXISTS ("),
            IGNORE_KNOWN_IDS,
            replace(SINGLE_LOCKED, "known-id", "v_is_known := false;"),
            replace(SINGLE_LOCKED, "known-ids", "SELECT false AND EXISTS ("),
            IGNORE_KNOWN_ID,
        ],
        place: Place::Database,
        found_by: FoundBy::Run,
    },
    Mutant {
        name: "skip-on-lag",
        what: "a subscriber that is behind the ring buffer continues at the start of the buffer",
        prepare: None,
        patches: &[],
        place: Place::Program,
        found_by: FoundBy::Run,
    },
    of_groups("acknowledged-to-the-end", "an acknowledgement acknowledges the whole claim", &[]),
    of_groups("failure-not-parked", "a failed event is not parked", &[]),
    of_groups("unparked-too-early", "a parked stream is removed before all its events are processed", &[]),
    of_groups("parked-streams-in-batches", "a claim contains events of parked streams", &[]),
    of_groups(
        "live-leases-ignored",
        "events are handed out although the partition has a live lease",
        &[replace(STEP, "live-lease", "AND false THEN")],
    ),
    of_steps(
        "step-without-compare",
        "a step is taken although the partition has another state than was read",
        None,
        &[replace(STEP, "compare-and-set", "p_after := v_last.step; IF false THEN")],
    ),
    of_groups("acknowledged-without-fence", "an acknowledgement is accepted for a claim that has ended", &[]),
    of_groups("former-partitions", "after doubling, events are assigned by the former number of partitions", &[]),
    of_steps(
        "doubled-under-claims",
        "partitions double, and groups are reset, although leases are live",
        None,
        &[replace("change_group", "open-claims", "AND false;")],
    ),
    of_groups("claim-key-ignored", "the idempotency key of a claim is not looked up", &[]),
    of_groups("group-at-maximum", "the position of a group is that of its most advanced partition", &[]),
    of_groups("failure-rests-partition", "a failure makes the whole partition rest", &[]),
    of_groups("careful-to-ignored", "a claim after an expired lease has several events", &[]),
    of_groups("not-woken-at-lease-end", "a waiting worker is woken only by new events, and not when a lease ends", &[]),
    of_steps(
        "epoch-not-compared",
        "a claim is of the epoch in which the process has read its events",
        None,
        &[replace(STEP, "epoch", "IF false THEN")],
    ),
    of_steps(
        "steps-as-updates",
        "a step updates the row of the step before",
        Some("GRANT UPDATE ON claims TO annals_app"),
        &[insert_before(
            STEP,
            "insert",
            "UPDATE claims c SET newly_parked = c.newly_parked
              WHERE c.group_no = v_new.group_no AND c.partition = v_new.partition AND c.step = p_after;",
        )],
    ),
    of_steps(
        "step-under-append-lock",
        "a step acquires the append lock",
        Some("GRANT ALL ON append_lock TO annals_app"),
        &[insert_before(STEP, "insert", LOCK)],
    ),
    of_erasures("archived-rows-not-masked", "archived events are returned with their content until they are rewritten"),
    of_erasures("ring-not-restarted", "the ring returns events that it read before an erasure"),
    of_erasures("erased-events-folded", "reducers are called with erased events"),
    of_erasures("announced-first", "the $erased events are appended before the content is erased"),
    of_erasures("vacuum-instead-of-rewrite", "a table with erased rows is vacuumed, and not replaced by a copy"),
    of_erasures("erased-with-scope-append", "a key with the scope append may erase"),
    of_erase_functions(
        "erased-rows-deleted",
        "an erasure deletes the rows of the events",
        &[insert_before(
            ERASE,
            "erased",
            "PERFORM set_config('session_replication_role', 'replica', true);
             DELETE FROM events e WHERE e.global_position = ANY (p_positions);
             PERFORM set_config('session_replication_role', 'origin', true);",
        )],
    ),
    of_erase_functions(
        "erased-content-compared",
        "the content of a retry is compared with that of an erased event",
        &[replace(LOCKED, "erased-is-equal", "array_agg(coalesce(")],
    ),
    of_erase_functions(
        "snapshot-of-erased-stored",
        "a snapshot from before an erasure is stored",
        &[replace("put_snapshot", "snapshot-of-erased", "END AND false)")],
    ),
    of_erase_functions(
        "erasing-for-the-session",
        "the setting that lets an erasure change events stays on in the session",
        &[
            replace(ERASE, "begin-changes", "PERFORM set_config('annals.erasing', 'on', false);"),
            remove(ERASE, "end-changes"),
        ],
    ),
];

impl Patch {
    /// Returns the source of a function after the change.
    fn apply(&self, source: &str) -> anyhow::Result<String> {
        let marker = format!("-- marker: {}", self.marker);
        let is_marked = |line: &&str| line.trim_end().ends_with(&marker);
        let marked = source.lines().filter(is_marked).count();
        ensure!(marked == 1, "{marked} lines of {} have the marker {}, and not one", self.function, self.marker);
        let mut patched = Vec::new();
        for line in source.lines() {
            match &self.change {
                _ if !is_marked(&line) => patched.push(line),
                Change::RemoveLine => {}
                Change::ReplaceLine(other) => patched.push(other),
                Change::InsertBefore(other) => patched.extend([*other, line]),
                Change::InsertAfter(other) => patched.extend([line, *other]),
            }
        }
        Ok(patched.join("\n"))
    }
}

impl Mutant {
    pub fn named(name: &str) -> anyhow::Result<&'static Self> {
        let names: Vec<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        let found = MUTANTS.iter().find(|mutant| mutant.name == name);
        found.ok_or_else(|| anyhow::anyhow!("no mutant is named {name}; the mutants are {}", names.join(", ")))
    }

    /// Returns the value of `ANNALS_MUTANT` for the program; `None` for a mutant that changes only the database.
    pub fn in_program(&self) -> anyhow::Result<Option<&'static str>> {
        let is_in_program = self.place == Place::Program;
        ensure!(
            cfg!(debug_assertions) || !is_in_program,
            "the mutant {} changes the program: run without --release",
            self.name
        );
        Ok(is_in_program.then_some(self.name))
    }

    /// Returns what finds it.
    pub fn found_by(&self) -> FoundBy {
        self.found_by
    }

    /// Patches the functions of the database.
    pub async fn apply(&self, connection: &mut PgConnection) -> anyhow::Result<()> {
        if let Some(statement) = self.prepare {
            connection.execute(statement).await?;
        }
        for patch in self.patches {
            let source: String = sqlx::query_scalar("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = $1")
                .bind(patch.function)
                .fetch_one(&mut *connection)
                .await?;
            connection.execute(AssertSqlSafe(patch.apply(&source)?)).await?;
        }
        Ok(())
    }
}
