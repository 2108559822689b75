//! Broken builds of Annals. Each breaks one thing that a promise rests on, and a run has to find it: a checker that was
//! never seen failing proves nothing.
//!
//! Those that break SQL change the functions of the run's own database; those that break Rust are in the program itself,
//! behind the cargo feature `mutants`, and chosen by `ANNALS_MUTANT`.

use anyhow::ensure;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

pub struct Mutant {
    pub name: &'static str,
    pub what: &'static str,
    /// What is replaced in which function; every text has to be there.
    changes: &'static [(&'static str, &'static [(&'static str, &'static str)])],
    /// Run before.
    prepare: &'static str,
    in_program: bool,
}

const LOCK: &str = "PERFORM pg_advisory_xact_lock('events'::regclass::oid::integer, 1);";
const TURN: &str = "IF v_turn IS DISTINCT FROM turn + 1 THEN";
const END_BELIEVED: &str = "IF v_turn IS DISTINCT FROM turn + 1 THEN stream_nos := NULL; END IF;
    IF turn IS NULL THEN";
const END_BELIEVED_SINGLE: &str = "IF v_turn IS DISTINCT FROM turn + 1 THEN stream_no := NULL; END IF;
    IF turn IS NULL THEN";
/// The place in each function after everything was read.
const DECIDE: &str = "-- 3. Decide.";
const LOCK_AND_DECIDE: &str = "PERFORM pg_advisory_xact_lock('events'::regclass::oid::integer, 1);
    -- 3. Decide.";
const FIRST_POSITION: &str = "append_first_positions[a] := log_position + 1;";
const FIRST_POSITION_OF_SEQUENCE: &str = "append_first_positions[a] := nextval('mutant_positions');
                PERFORM nextval('mutant_positions') FROM generate_series(2, v_count);";
/// Where a plain batch is as good as written.
const PLAIN: &str = "v_written_times := v_new_times;";
const PLAIN_POSITIONS_OF_SEQUENCE: &str = "v_written_times := v_new_times;
        FOR a IN 1 .. v_appends LOOP
            append_first_positions[a] := nextval('mutant_positions');
            PERFORM nextval('mutant_positions')
               FROM generate_series(2, coalesce(p_append_offsets[a + 1], v_events) - p_append_offsets[a]);
        END LOOP;";
const SINGLE_POSITION: &str = "log_position := log_position + 1;";
const SINGLE_POSITION_OF_SEQUENCE: &str = "log_position := nextval('mutant_positions');";
const SINGLE_DECIDE: &str = "IF v_known";
const LOCK_AND_SINGLE_DECIDE: &str = "PERFORM pg_advisory_xact_lock('events'::regclass::oid::integer, 1);
    IF v_known";
const SINGLE_INSERTS: [(&str, &str); 3] = [
    (
        "p_correlation_id, p_causation_id, log_position);",
        "p_correlation_id, p_causation_id, log_position) ON CONFLICT DO NOTHING;",
    ),
    (
        "VALUES (stream_no, p_aggregate_type, p_aggregate_id, log_time);",
        "VALUES (stream_no, p_aggregate_type, p_aggregate_id, log_time) ON CONFLICT DO NOTHING;",
    ),
    ("p_correlation_id, p_causation_id));", "p_correlation_id, p_causation_id)) ON CONFLICT DO NOTHING;"),
];
const INSERTS: [&str; 2] = [
    "WHERE append_first_versions[i.append] > 0;

    IF v_any_new",
    "WHERE append_first_versions[i.append] > 0;
END",
];
const COMMIT_NOT_FLUSHED: &str = "PERFORM set_config('synchronous_commit', 'off', true); COMMIT;";
const NEW_STREAMS: &str = "WHERE t.first_occurred_at IS NOT NULL;";

pub const MUTANTS: [Mutant; 11] = [
    Mutant {
        name: "lock-after-read",
        what: "heads and known ids are read before the append lock is taken",
        changes: &[
            ("append_events_locked", &[(LOCK, ""), (DECIDE, LOCK_AND_DECIDE)]),
            ("append_event_locked", &[(LOCK, ""), (SINGLE_DECIDE, LOCK_AND_SINGLE_DECIDE)]),
        ],
        prepare: "",
        in_program: false,
    },
    Mutant {
        name: "no-commit",
        what: "the procedure does not commit; the end of the client's request does",
        changes: &[("append_events", &[("COMMIT;", "")]), ("append_event", &[("COMMIT;", "")])],
        prepare: "",
        in_program: false,
    },
    Mutant {
        name: "acknowledged-before-commit",
        what: "the answer is sent before the transaction is committed",
        changes: &[("append_events", &[("COMMIT;", "")]), ("append_event", &[("COMMIT;", "")])],
        prepare: "",
        in_program: true,
    },
    Mutant {
        name: "commit-not-flushed",
        what: "synchronous_commit is off for appends",
        changes: &[
            ("append_events", &[("COMMIT;", COMMIT_NOT_FLUSHED)]),
            ("append_event", &[("COMMIT;", COMMIT_NOT_FLUSHED)]),
        ],
        prepare: "",
        in_program: false,
    },
    Mutant {
        name: "on-conflict-do-nothing",
        what: "no lock, and ON CONFLICT DO NOTHING instead",
        changes: &[
            (
                "append_events_locked",
                &[
                    (LOCK, ""),
                    (INSERTS[0], "WHERE append_first_versions[i.append] > 0 ON CONFLICT DO NOTHING; IF v_any_new"),
                    (NEW_STREAMS, "WHERE t.first_occurred_at IS NOT NULL ON CONFLICT DO NOTHING;"),
                    (INSERTS[1], "WHERE append_first_versions[i.append] > 0 ON CONFLICT DO NOTHING; END"),
                ],
            ),
            ("append_event_locked", &[(LOCK, ""), SINGLE_INSERTS[0], SINGLE_INSERTS[1], SINGLE_INSERTS[2]]),
        ],
        prepare: "",
        in_program: false,
    },
    Mutant {
        name: "positions-from-sequence",
        what: "positions come from a sequence, under the lock",
        changes: &[
            (
                "append_events_locked",
                &[(FIRST_POSITION, FIRST_POSITION_OF_SEQUENCE), (PLAIN, PLAIN_POSITIONS_OF_SEQUENCE)],
            ),
            ("append_event_locked", &[(SINGLE_POSITION, SINGLE_POSITION_OF_SEQUENCE)]),
        ],
        prepare: "CREATE SEQUENCE mutant_positions; GRANT ALL ON SEQUENCE mutant_positions TO PUBLIC",
        in_program: false,
    },
    Mutant {
        name: "sequence-without-lock",
        what: "positions come from a sequence, and nobody takes the lock",
        changes: &[
            (
                "append_events_locked",
                &[(LOCK, ""), (FIRST_POSITION, FIRST_POSITION_OF_SEQUENCE), (PLAIN, PLAIN_POSITIONS_OF_SEQUENCE)],
            ),
            ("append_event_locked", &[(LOCK, ""), (SINGLE_POSITION, SINGLE_POSITION_OF_SEQUENCE)]),
        ],
        prepare: "CREATE SEQUENCE mutant_positions; GRANT ALL ON SEQUENCE mutant_positions TO PUBLIC",
        in_program: false,
    },
    Mutant {
        name: "end-believed",
        what: "who has known the end of the log once goes by it, whoever else had a turn since",
        changes: &[
            ("append_events_locked", &[(TURN, END_BELIEVED)]),
            ("append_event_locked", &[(TURN, END_BELIEVED_SINGLE)]),
        ],
        prepare: "",
        in_program: false,
    },
    Mutant {
        name: "streams-believed",
        what: "who has known a stream once goes by it, whoever else had a turn since",
        changes: &[
            ("append_events_locked", &[("stream_nos := NULL;", "")]),
            ("append_event_locked", &[("stream_no := NULL;", "")]),
        ],
        prepare: "",
        in_program: false,
    },
    Mutant {
        name: "ids-forgotten",
        what: "known event ids are not looked for",
        changes: &[
            (
                "append_events_locked",
                &[
                    ("NOT p_ids_are_new AND EXISTS", "false AND EXISTS"),
                    (INSERTS[1], "WHERE append_first_versions[i.append] > 0 ON CONFLICT DO NOTHING; END"),
                ],
            ),
            (
                "append_event_locked",
                &[
                    ("NOT p_id_is_new AND EXISTS", "false AND EXISTS"),
                    ("v_known := EXISTS", "v_known := false AND EXISTS"),
                    SINGLE_INSERTS[2],
                ],
            ),
        ],
        prepare: "",
        in_program: false,
    },
    Mutant {
        name: "skip-on-lag",
        what: "a subscriber that is behind the ring goes on where the ring begins",
        changes: &[],
        prepare: "",
        in_program: true,
    },
];

impl Mutant {
    pub fn named(name: &str) -> anyhow::Result<&'static Self> {
        let names: Vec<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        let found = MUTANTS.iter().find(|mutant| mutant.name == name);
        found.ok_or_else(|| anyhow::anyhow!("there is no mutant {name}; there are {}", names.join(", ")))
    }

    /// What `ANNALS_MUTANT` has to be for the program.
    pub fn in_program(&self) -> anyhow::Result<Option<&'static str>> {
        ensure!(
            cfg!(feature = "mutants") || !self.in_program,
            "the mutant {} is in the program: run with --features mutants",
            self.name
        );
        Ok(self.in_program.then_some(self.name))
    }

    /// Breaks the functions of the database.
    pub async fn apply(&self, connection: &mut PgConnection) -> anyhow::Result<()> {
        connection.execute(self.prepare).await?;
        for (function, replacements) in self.changes {
            let mut source: String =
                sqlx::query_scalar("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = $1")
                    .bind(function)
                    .fetch_one(&mut *connection)
                    .await?;
            for (from, to) in *replacements {
                let times = source.matches(from).count();
                ensure!(times == 1, "the mutant {} replaces what is there {times} times: {from}", self.name);
                source = source.replace(from, to);
            }
            connection.execute(AssertSqlSafe(source)).await?;
        }
        Ok(())
    }
}
