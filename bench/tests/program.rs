//! `annals-bench` as a process. The figures depend on the machine, so the test checks that both sides of each row are
//! measured, and that the program drops its databases.
//!
//! The program starts `annals` from its own folder. `cargo test --workspace` builds both programs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use annals::own_postgres::server::OwnPostgres;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

/// Returns the folder of the `postgres` and `initdb` that the tests use; `None`: the program searches for them.
fn bin() -> Option<PathBuf> {
    std::env::var_os("ANNALS_PG_BIN").map(PathBuf::from)
}

/// Runs the program with a PostgreSQL of its own in `data_dir`, and without pgbench.
async fn run(data_dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annals-bench"));
    command.env_clear().env("PATH", "/nonexistent").env("ANNALS_DATA_DIR", data_dir).args(arguments);
    if let Some(bin) = bin() {
        command.env("ANNALS_PG_BIN", bin);
    }
    tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await.expect("the task ends")
}

#[tokio::test]
async fn the_benchmark_measures_both_sides_and_drops_its_databases() {
    let folder = tempfile::Builder::new().prefix("annals-bench-").tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
        .expect("the mode of the folder is set");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let arguments = ["direct", "delivery", "import", "--rounds", "1", "--seconds", "1"];
    let options =
        ["--clients", "2", "--subscribers", "3", "--rate", "40", "--json", file.path().to_str().expect("a path")];
    let output = run(folder.path(), &[&arguments[..], &options[..]].concat()).await;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");

    let report: Value = serde_json::from_reader(file.as_file()).expect("JSON");
    let rows = report["rows"].as_array().expect("rows");
    let baselines: Vec<_> = rows.iter().map(|row| row["baseline"].as_str().expect("a name")).collect();
    let direct_sql = "direct SQL, sent by sqlx";
    assert_eq!(baselines, [direct_sql, direct_sql, direct_sql, "COPY into the same three tables"]);
    for row in rows {
        let (annals, baseline) = (row["annals"]["median"].as_f64(), row["baseline_rate"]["median"].as_f64());
        assert!(annals > Some(0.0) && baseline > Some(0.0), "{row}");
        assert!(stdout.contains(row["name"].as_str().expect("a name")), "{stdout}");
    }
    let deliveries = report["deliveries"].as_array().expect("deliveries");
    let names: Vec<_> = deliveries.iter().map(|delivery| delivery["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["without background load", "with background load"]);
    for delivery in deliveries {
        assert_eq!((&delivery["subscribers"], &delivery["out_of_order"]), (&json!(3), &json!(0)), "{delivery}");
    }

    let postgres = OwnPostgres::start_in(folder.path().to_owned(), bin(), &[]).await.expect("PostgreSQL starts");
    let mut connection = PgConnection::connect_with(&postgres.options()).await.expect("a connection");
    let remaining = "SELECT count(*) FROM pg_database WHERE datname LIKE 'annals_bench%'";
    let remaining: i64 = sqlx::query_scalar(remaining).fetch_one(&mut connection).await.expect("a count");
    connection.close().await.expect("the connection closes");
    postgres.stop().await.expect("PostgreSQL stops");
    assert_eq!(remaining, 0, "the program has dropped its databases");
}

#[tokio::test]
async fn the_good_client_is_measured_beside_each_attack_and_gets_no_error_of_its_own() {
    let folder = tempfile::Builder::new().prefix("annals-bench-").tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
        .expect("the mode of the folder is set");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let arguments = ["fairness", "--quick", "--rounds", "1", "--seconds", "1", "--events", "1000"];
    let output =
        run(folder.path(), &[&arguments[..], &["--json", file.path().to_str().expect("a path")]].concat()).await;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");

    let report: Value = serde_json::from_reader(file.as_file()).expect("JSON");
    let rows = report["fair_shares"].as_array().expect("rows");
    let attacks: Vec<_> = rows.iter().map(|row| row["attack"].as_str().expect("a name")).collect();
    assert_eq!(attacks, ["streams", "reducers", "snapshots", "scans", "scans", "waiters", "waiters", "appends"]);
    for row in rows {
        for phase in ["quiet", "attack", "control"] {
            let requests = &row["requests"][phase];
            let refused = requests["refused"].as_object().expect("counts");
            assert!(!refused.keys().any(|outcome| outcome.starts_with('4')), "{phase}: {row}");
            assert!(requests["successful"].as_u64() > Some(0) || !refused.is_empty(), "{phase}: {row}");
        }
        // 400 to 404 would mean that the attack lacks a grant, a reducer or an aggregate.
        let outcomes = row["attack_outcomes"].as_object().expect("counts");
        let is_fault = |outcome: &String| ["400", "401", "403", "404"].iter().any(|status| outcome.starts_with(status));
        assert!(!outcomes.is_empty() && !outcomes.keys().any(is_fault), "{row}");
        assert!(stdout.contains(row["description"].as_str().expect("a text")), "{stdout}");
    }
}

#[tokio::test]
async fn readers_that_catch_up_get_every_event_of_both_sides() {
    let folder = tempfile::Builder::new().prefix("annals-bench-").tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
        .expect("the mode of the folder is set");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let arguments = ["catch-up", "--rounds", "1", "--seconds", "1", "--events", "2000", "--filtering", "5"];
    let options = ["--subscribers", "3", "--rate", "40", "--json", file.path().to_str().expect("a path")];
    let output = run(folder.path(), &[&arguments[..], &options[..]].concat()).await;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");

    // The program itself fails if a side returns another number of events.
    let report: Value = serde_json::from_reader(file.as_file()).expect("JSON");
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 17, "{stdout}");
    for row in rows {
        let (annals, baseline) = (row["annals"]["median"].as_f64(), row["baseline_rate"]["median"].as_f64());
        assert!(annals > Some(0.0) && baseline > Some(0.0), "{row}");
    }
    for delivery in report["deliveries"].as_array().expect("deliveries") {
        assert_eq!((&delivery["subscribers"], &delivery["out_of_order"]), (&json!(3), &json!(0)), "{delivery}");
    }
}

#[tokio::test]
async fn slower_commits_need_the_folder_of_the_programs() {
    let output = Command::new(env!("CARGO_BIN_EXE_annals-bench"))
        .env_clear()
        .args(["direct", "--commit-delay-us", "1000"])
        .output()
        .expect("the program runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("ANNALS_PG_BIN"), "{stderr}");
}

#[tokio::test]
async fn parts_that_need_databases_of_their_own_are_refused_for_a_running_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(folder.path(), &["import", "--server", "127.0.0.1:1"]).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{stderr}");
    assert!(stderr.contains("--server is allowed only for direct and delivery"), "{stderr}");
}
