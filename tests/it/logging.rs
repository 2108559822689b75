//! No promise: the request log. Refused and failed requests have a line with their cause.

use crate::cli::annals;
use crate::support::{LoggedService, TestDatabase};

async fn start(database: &TestDatabase, level: &str) -> LoggedService {
    let mut command = annals(Some(database));
    command.env("ANNALS_LOG_LEVEL", level);
    LoggedService::start(command).await
}

#[tokio::test]
async fn each_refused_or_failed_request_has_a_line_with_its_cause() {
    let database = TestDatabase::create().await;
    let served = start(&database, "info").await;
    assert_eq!(served.get("/livez", "r1").await, 200);
    assert_eq!(served.get("/streams/No/1", "r2").await, 404);
    database.session().await.run("ALTER TABLE projection_positions RENAME TO elsewhere").await;
    assert_eq!(served.get("/projections", "r3").await, 500);
    let lines = served.requests();
    assert_eq!(lines.len(), 2, "a successful request has no line: {lines:#?}");
    let (refused, failed) = (&lines[0], &lines[1]);
    assert_eq!((&refused["level"], &refused["status"]), (&"INFO".into(), &404.into()), "{refused}");
    assert_eq!(
        (&refused["code"], &refused["path"]),
        (&"stream_not_found".into(), &"/streams/No/1".into()),
        "{refused}"
    );
    assert_eq!(refused["request_id"], "r2");
    assert_eq!(refused["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(failed["request_id"], "r3");
    assert!(failed["cause"].as_str().is_some_and(|cause| cause.contains("projection_positions")), "{failed}");
    assert_eq!((&failed["level"], &failed["status"]), (&"ERROR".into(), &500.into()), "{failed}");
    assert_eq!(failed["code"], "internal", "{failed}");
}

#[tokio::test]
async fn at_the_level_debug_every_request_has_a_line() {
    let database = TestDatabase::create().await;
    let served = start(&database, "debug").await;
    assert_eq!(served.get("/livez", "r1").await, 200);
    let lines = served.requests();
    let line = lines.iter().find(|line| line["request_id"] == "r1").expect("a line");
    assert_eq!(
        (&line["level"], &line["status"], &line["method"]),
        (&"DEBUG".into(), &200.into(), &"GET".into()),
        "{line}"
    );
}

#[tokio::test]
async fn the_line_of_a_refused_request_has_the_detail_and_a_flood_is_limited() {
    let database = TestDatabase::create().await;
    let served = start(&database, "info").await;
    assert_eq!(served.get("/events?nonsense=1", "r1").await, 400);
    let lines = served.requests();
    let detail = lines[0]["detail"].as_str().expect("a detail");
    assert!(detail.starts_with("parameter nonsense: is unknown"), "{detail}");
    for n in 0..200 {
        assert_eq!(served.get("/nowhere", &format!("flood-{n}")).await, 404);
    }
    let lines = served.requests();
    // A line is left out only within the second of 20 others, so the number of lines depends on the speed.
    let left_out: u64 = lines.iter().filter_map(|line| line["left_out"].as_u64()).sum();
    let last = lines.iter().rposition(|line| line["request_id"].as_str().is_some_and(|id| id.starts_with("flood-")));
    let after_last = 200
        - lines[last.expect("a line")]["request_id"].as_str().expect("an id")[6..].parse::<u64>().expect("a number")
        - 1;
    assert_eq!(lines.len() as u64 - 1 + left_out + after_last, 200, "each request has a line or is counted");
}
