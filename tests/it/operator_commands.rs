//! Promise P8: the commands of operators as processes. Keys are created, listed and revoked. Real partitions are
//! archived, exported from the archive, verified and restored.

use crate::cli::{annals, output, run};
use crate::support::TestDatabase;

/// Runs a command. Returns whether it succeeded, and its output.
async fn run_with_archive(database: &TestDatabase, folder: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = annals(Some(database));
    command.env("ARCHIVE_URL", folder).args(arguments);
    let output = output(command).await;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

#[tokio::test]
async fn a_key_is_created_listed_and_revoked() {
    let database = TestDatabase::create().await;
    let create = [
        "keys",
        "create",
        "--name",
        "billing",
        "--grant",
        "read:Order*",
        "--grant",
        "append:Cart",
        "--requests-per-minute",
        "60",
        "--expires-in",
        "90d",
    ];
    let (ok, key, printed) = run(&database, &create).await;
    assert!(
        ok && key.starts_with("annals_") && key.trim().len() == 84 && printed.contains("it is shown once"),
        "{key}{printed}"
    );
    let key_id = key.split('_').nth(1).expect("a key id").to_owned();
    let (ok, list, _) = run(&database, &["keys", "list"]).await;
    assert!(ok && list.contains(&key_id) && list.contains("read:Order* append:Cart  60 requests a minute"), "{list}");
    assert!(list.contains("valid") && !list.contains(key.trim().rsplit('_').next().expect("a secret")), "{list}");
    let (ok, printed, _) = run(&database, &["keys", "revoke", &key_id]).await;
    assert!(ok && printed.contains("was revoked at"), "{printed}");
    let (_, list, _) = run(&database, &["keys", "list"]).await;
    assert!(list.contains("revoked"), "{list}");
    let (ok, _, printed) = run(&database, &["keys", "revoke", "unknown"]).await;
    assert!(!ok && printed.contains("no key has the id unknown"), "{printed}");
    for wrong in [&["--grant", "write:Order"][..], &["--grant", "read:"], &["--name", "", "--grant", "read:*"], &[]] {
        let (ok, _, printed) = run(&database, &[&["keys", "create", "--name", "x"], wrong].concat()).await;
        assert!(!ok && !printed.is_empty(), "{wrong:?}: {printed}");
    }
}

#[tokio::test]
async fn real_partitions_are_archived_verified_and_restored() {
    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/package-events.ndjson");
    let (database, folder) = (TestDatabase::create_empty().await, tempfile::tempdir().expect("a folder"));
    let path = folder.path().to_str().expect("a path");
    let (ok, _, printed) = run(&database, &["import", DATA]).await;
    assert!(ok, "{printed}");
    let (ok, before) = run_with_archive(&database, path, &["export"]).await;
    assert!(ok);
    let (ok, printed) = run_with_archive(&database, path, &["archive", "--older-than", "30d", "--dry-run"]).await;
    assert!(ok && printed.contains("can be archived") && printed.contains("nothing was changed"), "{printed}");
    let (ok, printed) = run_with_archive(&database, path, &["archive", "--older-than", "30d", "--yes"]).await;
    assert!(ok && printed.contains("events_2025_06  ") && printed.contains("events archived"), "{printed}");
    let (ok, after) = run_with_archive(&database, path, &["export"]).await;
    assert!(ok && after == before, "the export is equal byte by byte");
    let (ok, printed) = run_with_archive(&database, path, &["archive", "--older-than", "30d", "--yes"]).await;
    assert!(ok && printed.contains("no sealed partition in the database ended before"), "{printed}");
    let (ok, printed) = run_with_archive(&database, path, &["verify"]).await;
    assert!(ok && printed.contains("ok      ids, places and content equal in both tables: 5286 events"), "{printed}");
    let (ok, printed) = run_with_archive(&database, path, &["restore-archive", "2025-06"]).await;
    assert!(ok && printed.contains("events restored to the database"), "{printed}");
    let (ok, after) = run_with_archive(&database, path, &["export"]).await;
    assert!(ok && after == before);
    let (ok, printed) = run_with_archive(&database, path, &["restore-archive", "2024-01"]).await;
    assert!(!ok && printed.contains("no partition events_2024_01 is archived"), "{printed}");
    let (ok, printed) = run_with_archive(&database, path, &["restore-archive", "June"]).await;
    assert!(!ok && printed.contains("2025-01"), "{printed}");
    // Without the archive, archived events cannot be read.
    let (ok, printed) = run_with_archive(&database, "", &["archive", "--yes"]).await;
    assert!(!ok && printed.contains("ARCHIVE_URL"), "{printed}");
}
