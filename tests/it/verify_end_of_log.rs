//! Promise P1, P3: `annals verify` finds the loss of the end of the log if one other table has noted a position beyond
//! it, on full runs and on runs since the last verification. No run lowers a note.

use serde_json::json;

use crate::cli::{annals, output};
use crate::support::TestDatabase;
use crate::verify::{copy_tables, findings, history, owner_session, restore_tables, verify};

/// Removes the events after position 107 and every note of them, as if they had never been appended. Position 109 is
/// version 18 of the stream Order/1, the last position is 111, and the sealed partitions end at position 74.
const LOSE_END: &str = "
    UPDATE event_counts c
       SET events = c.events - lost.events
      FROM (SELECT e.aggregate_type, e.event_type, count(*) AS events
              FROM events e
             WHERE e.global_position > 107
             GROUP BY e.aggregate_type, e.event_type) AS lost
     WHERE lost.aggregate_type = c.aggregate_type
       AND lost.event_type = c.event_type;
    UPDATE statistics SET as_of_position = 107;
    UPDATE verification SET verified_position = 107;
    DELETE FROM event_ids WHERE global_position > 107;
    DELETE FROM events_2026_01 WHERE global_position > 107";

/// Returns the last verification.
async fn recorded(database: &TestDatabase) -> String {
    let sql = "SELECT format('%s in epoch %s', verified_position, epoch) FROM verification";
    database.session().await.texts(sql).await.concat()
}

#[tokio::test]
async fn each_note_beyond_the_end_of_the_log_is_a_finding() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path");
    let database = history(path).await;
    let (status, report) = verify(&database, path, &[]).await;
    assert_eq!((status, recorded(&database).await.as_str()), (0, "111 in epoch 1"), "{report:#}");
    let mut session = owner_session(&database).await;

    // Without any note, the loss cannot be seen from inside the database. So each note below is found on its own.
    copy_tables(&mut session).await;
    session.run(LOSE_END).await;
    for arguments in [&["--since-last"][..], &[]] {
        let (status, report) = verify(&database, path, arguments).await;
        assert_eq!((status, &report["to_position"]), (0, &json!(107)), "{report:#}");
    }
    restore_tables(&mut session).await;

    for (note, finding) in [
        (
            "UPDATE verification SET verified_position = 111",
            "the log was verified up to position 111, which is beyond the head of the log (position 107)",
        ),
        (
            "UPDATE statistics SET as_of_position = 111",
            "the statistics are counted up to position 111, which is beyond the head of the log (position 107)",
        ),
        (
            "INSERT INTO projection_positions VALUES ('late', 111, now(), 1)",
            "projection late has processed position 111, which is beyond the head of the log (position 107)",
        ),
        (
            "UPDATE partitions SET last_position = 111 WHERE name = 'events_2025_12'",
            "the sealed partition events_2025_12 ends at position 111, and the head of the log is position 107: \
             the events after the partition are missing",
        ),
        (
            "UPDATE snapshots SET version = 18, checksum = snapshot_checksum(
                 aggregate_type, aggregate_id, 18, state, occurred_at, reducer, revision) WHERE aggregate_type = 'Order'",
            "snapshot of Order/1 at version 18: its stream does not have this version",
        ),
        (
            "UPDATE streams SET version = 18, last_occurred_at = '2026-01-10T00:00:00Z'
              WHERE aggregate_type = 'Order' AND aggregate_id = '1'",
            "stream Order/1 has version 18 in the table streams, and the log does not have the event of this version",
        ),
        (
            "INSERT INTO streams (aggregate_type, aggregate_id, first_occurred_at)
             VALUES ('Order', 'lost', '2026-01-10T00:00:00Z')",
            "stream Order/lost is in the table streams, and has no event",
        ),
        (
            "INSERT INTO event_ids VALUES (gen_random_uuid(), 1, 18, 109, now(), 0)",
            "the log ends at position 107, and the table event_ids has positions up to 109: \
             the last events are missing",
        ),
        (
            "INSERT INTO epochs VALUES (2, 112, now(), 'a test')",
            "epoch 2 began after position 111, which is beyond the head of the log (position 107)",
        ),
        // Positions of an earlier epoch are valid up to the position before the next one.
        (
            "INSERT INTO epochs VALUES (2, 101, now(), 'a test'); UPDATE verification SET verified_position = 103",
            "the log was verified up to position 103 of epoch 1, and a later epoch began after position 100",
        ),
        (
            "INSERT INTO epochs VALUES (2, 101, now(), 'a test'), (3, 104, now(), 'a test');
             UPDATE verification SET verified_position = 103, epoch = 2;
             INSERT INTO projection_positions VALUES ('early', 100, now(), 1), ('late', 101, now(), 1)",
            "projection late has processed position 101 of epoch 1, and a later epoch began after position 100",
        ),
        // An epoch that does not exist belongs to another history, whether it is a later or an earlier one.
        (
            "UPDATE verification SET epoch = 7, verified_position = 5",
            "the log was verified up to position 5 of epoch 7, which is not in the table epochs \
             (the current epoch is 1)",
        ),
        (
            "UPDATE verification SET epoch = 0, verified_position = 5",
            "the log was verified up to position 5 of epoch 0, which is not in the table epochs \
             (the current epoch is 1)",
        ),
        (
            "INSERT INTO projection_positions VALUES ('foreign', 5, now(), 7)",
            "projection foreign has processed position 5 of epoch 7, which is not in the table epochs \
             (the current epoch is 1)",
        ),
    ] {
        copy_tables(&mut session).await;
        session.run(LOSE_END).await;
        session.run(note).await;
        let before = recorded(&database).await;
        for arguments in [&["--since-last"][..], &[]] {
            let (status, report) = verify(&database, path, arguments).await;
            assert_eq!((status, &report["ok"]), (1, &json!(false)), "{note}: {report:#}");
            let expected = json!([finding]).to_string();
            assert_eq!(findings(&report, "records"), expected, "{note} {arguments:?}: {report:#}");
        }
        assert_eq!(recorded(&database).await, before, "{note}: a run with findings records nothing");
        restore_tables(&mut session).await;
    }
}

#[tokio::test]
async fn the_loss_of_all_events_after_a_sealed_month_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path");
    let database = history(path).await;
    let mut session = owner_session(&database).await;
    // Only the sealed partitions and their streams have noted that the log was longer.
    session
        .run(
            "DELETE FROM events_2026_01; DELETE FROM event_ids; DELETE FROM snapshots; DELETE FROM snapshot_counts;
             DELETE FROM snapshot_changes; DELETE FROM event_counts; DELETE FROM stream_counts;
             UPDATE statistics SET as_of_position = 0",
        )
        .await;
    let (status, report) = verify(&database, path, &["--since-last"]).await;
    let found = findings(&report, "records");
    assert_eq!(status, 1, "{report:#}");
    for (partition, last) in [("events_2025_11", 37), ("events_2025_12", 74)] {
        let finding = format!("the sealed partition {partition} ends at position {last}, and the head of the log is");
        assert!(found.contains(&finding), "{report:#}");
    }
}

#[tokio::test]
async fn a_range_that_runs_backwards_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path");
    let database = history(path).await;
    let mut session = owner_session(&database).await;
    session.run("INSERT INTO verification VALUES (111, 1, now())").await;
    session.run(LOSE_END).await;
    session.run("UPDATE verification SET verified_position = 111").await;
    let (status, report) = verify(&database, path, &["--since-last"]).await;
    assert_eq!(
        (status, &report["after_position"], &report["to_position"], &report["checks"][1]["checked"]),
        (1, &json!(111), &json!(107), &json!(0)),
        "{report:#}"
    );
    let mut command = annals(Some(&database));
    command.env("ARCHIVE_URL", path).args(["verify", "--since-last"]);
    let output = output(command).await;
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    for line in [
        "the range runs backwards: epoch 1 was verified up to position 111, and the log ends at position 107\n",
        "WRONG   ids, streams, snapshots, positions and counts do not exceed the log: ",
        "        the log was verified up to position 111, which is beyond the head of the log (position 107)\n",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
}

#[tokio::test]
async fn a_recorded_verification_is_never_lowered_within_an_epoch() {
    let database = TestDatabase::create().await;
    let mut session = database.session().await;
    let record = include_str!("../../src/store/sql/record_verification.sql");
    session.run(&format!("PREPARE record (bigint, integer) AS {record}")).await;
    for (position, epoch, remains) in [
        (5, 1, "5 in epoch 1"),
        (4, 1, "5 in epoch 1"),
        (5, 1, "5 in epoch 1"),
        (9, 1, "9 in epoch 1"),
        // The log may be shorter in a later epoch.
        (3, 2, "3 in epoch 2"),
        (8, 1, "3 in epoch 2"),
        (2, 2, "3 in epoch 2"),
        (4, 2, "4 in epoch 2"),
    ] {
        session.run(&format!("EXECUTE record ({position}, {epoch})")).await;
        assert_eq!(recorded(&database).await, remains, "after ({position}, {epoch})");
    }
}
