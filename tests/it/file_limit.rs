//! Promise P10: the number of connections follows the limit of open files, so that the process never runs out of files.

use std::process::Command;

use crate::cli::{annals, output};
use crate::support::{LoggedService, TestDatabase, http_client};

/// The files that are reserved: 200, and 100 for connections above the limit, and 10 for connections to PostgreSQL.
const RESERVED: usize = 310;

/// Returns a command that serves with these limits of open files.
fn with_limits(database: &TestDatabase, soft: usize, hard: usize) -> Command {
    let annals = annals(Some(database));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -n \"$1\" && ulimit -Sn \"$2\" && exec \"$0\" serve"]);
    command.arg(annals.get_program()).args([hard, soft].map(|limit| limit.to_string()));
    command.env_clear().envs(annals.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("ANNALS_LISTEN", "127.0.0.1:0").env("ANNALS_LOG_LEVEL", "info");
    command
}

#[tokio::test]
async fn a_low_limit_of_open_files_lowers_the_number_of_connections() {
    const CONNECTIONS: usize = 12;
    let database = TestDatabase::create().await;
    // The service raises the soft limit to the hard one.
    let service = LoggedService::start(with_limits(&database, 64, RESERVED + CONNECTIONS)).await;
    let lines = service.lines();
    let warning = lines.iter().find(|line| line["connections"] == CONNECTIONS).expect("a line about the limit");
    assert_eq!((&warning["level"], &warning["limit"]), (&"WARN".into(), &(RESERVED + CONNECTIONS).into()), "{warning}");
    assert_eq!(warning["wanted"], 10_000, "{warning}");
    assert!(warning["message"].as_str().is_some_and(|text| text.contains("raise it (ulimit -Hn")), "{warning}");

    let client = http_client().build().expect("a client");
    let subscribe = async || {
        let request = client.get(format!("{}/events", service.base)).header("accept", "text/event-stream");
        request.send().await.expect("a response")
    };
    let mut event_streams = Vec::new();
    // One client may have requests in progress on half of the connections.
    for _ in 0..CONNECTIONS / 2 {
        let event_stream = subscribe().await;
        assert_eq!(event_stream.status(), 200);
        event_streams.push(event_stream);
    }
    let refused = subscribe().await;
    assert_eq!(refused.status(), 503);
    assert!(refused.text().await.expect("a body").contains("\"code\":\"overloaded\""));
}

#[tokio::test]
async fn a_limit_of_open_files_that_leaves_too_few_connections_stops_the_start() {
    let database = TestDatabase::create().await;
    for limit in [64, RESERVED + 9] {
        let output = output(with_limits(&database, limit, limit)).await;
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{printed}");
        assert!(printed.contains(&format!("the limit of open files is {limit}")), "{printed}");
        assert!(printed.contains(&format!("needs at least {}: raise it", RESERVED + 10)), "{printed}");
        assert!(printed.contains("LimitNOFILE="), "{printed}");
    }
    drop(LoggedService::start(with_limits(&database, RESERVED + 10, RESERVED + 10)).await);
}
