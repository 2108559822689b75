//! A streaming standby: it shows a prefix of the log in the same order, and when it takes over without the end of the log,
//! every cursor beyond is told so.

use std::ops::ControlFlow;
use std::sync::Arc;

use annals::clock::Clock;
use annals::domain::cursor::Cursor;
use annals::domain::filter::EventFilter;
use annals::store::Store;
use annals::store::log::{LogScan, ScanLimits};
use annals::telemetry::metrics::Metrics;
use serde_json::json;

use crate::support::{Call, Pair, Proxy, Reply, TestApp, TestDatabase, Wanted, events, within_a_minute};

async fn replayed(standby: &TestDatabase, events: i64) {
    let mut session = standby.session().await;
    within_a_minute("the standby has replayed", async {
        while session.number("SELECT count(*) FROM events").await < events {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The standby hears nothing any more; what is appended now is acknowledged, and will be lost.
async fn cut_off(primary: &TestDatabase, standby: &TestDatabase) {
    let mut session = standby.session().await;
    session.run("ALTER SYSTEM SET primary_conninfo = ''").await;
    session.run("SELECT pg_reload_conf()").await;
    within_a_minute("the standby is cut off", async {
        while primary.session().await.number("SELECT count(*) FROM pg_stat_replication").await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The standby becomes the primary, and is found where the old one was.
async fn take_over(pair: &Pair, proxy: &Proxy) {
    proxy.down();
    pair.fail_over().await;
    proxy.retarget(&pair.standby());
    proxy.up();
}

/// The first answer that is not "not now": connections to the old primary are found broken one by one.
async fn answered(call: impl Fn() -> Call) -> Reply {
    within_a_minute("the new primary answers", async {
        loop {
            let reply = call().send().await;
            if reply.status != 503 {
                return reply;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_standby_shows_a_prefix_in_the_same_order() {
    const EVENTS: i64 = 4_000;
    let pair = Pair::start().await;
    let app = TestApp::start_on(pair.primary(), Wanted::default()).await;
    let store =
        Store::open(&pair.standby().config(), Clock::system(), Arc::new(Metrics::new())).await.expect("it opens");
    let writers = (0..32).map(|n| {
        let app = &app;
        async move {
            for _ in 0..EVENTS / 32 / 5 {
                app.append(&format!("/streams/Order/{n}"), &["E"; 5]).await;
            }
        }
    });
    // Every look sees the log up to a position, and nothing is missing before it, now or later.
    let reader = async {
        let mut scan = LogScan::new(EventFilter::default(), Cursor { epoch: None, position: 0 }, ScanLimits::default());
        let mut seen = Vec::new();
        while (seen.len() as i64) < EVENTS {
            let read = store.read_log(&mut scan, i64::MAX, usize::MAX, |event| {
                seen.push((event.global_position, event.event_id));
                ControlFlow::Continue(())
            });
            let head = read.await.expect("the standby answers");
            assert!(scan.after() <= head.global_position);
            assert_eq!(seen.last().map_or(0, |(position, _)| *position), seen.len() as i64);
            tokio::task::yield_now().await;
        }
        seen
    };
    let (_, seen) = tokio::join!(futures_util::future::join_all(writers), within_a_minute("all is replicated", reader));
    let lines = app.get("/events").header("accept", "application/x-ndjson").send().await.lines();
    let written: Vec<_> = lines[..lines.len() - 1]
        .iter()
        .map(|event| (event["global_position"].as_i64().expect("a position"), event["event_id"].clone()))
        .collect();
    assert_eq!(seen.into_iter().map(|(position, id)| (position, json!(id.to_string()))).collect::<Vec<_>>(), written);
}

#[tokio::test]
async fn a_failover_that_loses_the_end_of_the_log_is_told_to_every_cursor_beyond() {
    let pair = Pair::start().await;
    let (primary, standby) = (pair.primary(), pair.standby());
    let proxy = Proxy::start(&primary).await;
    let app = TestApp::start_with(proxy.config(&primary), primary.clone(), Wanted::default()).await;
    app.append("/streams/Order/1", &vec!["Kept"; 50]).await;
    replayed(&standby, 50).await;
    let mut follower = app.follow("/events").await;
    assert_eq!(follower.until("caught-up").await.1.id, "1:50");

    cut_off(&primary, &standby).await;
    let lost = app.post("/streams/Order/1", &events(&["Lost", "Lost"])).send().await.expect_status(201).json();
    assert_eq!(lost["global_position"], 52);
    while follower.event().await.id != "1:52" {}
    take_over(&pair, &proxy).await;

    // The same process, on the new primary: an epoch of its own, and no position that it has served is used again.
    let append = || app.post("/streams/Order/1", &events(&["After"]));
    let answer = answered(append).await;
    let after = answer.expect_status(201).json();
    assert_eq!((&after["version"], &after["global_position"]), (&json!(51), &json!(53)));
    let refused = answered(|| app.get("/events?after=1:52")).await.expect_problem(409, "epoch_changed");
    assert_eq!(refused["rewind_to"], 50);
    let epoch = refused["epoch"].as_i64().expect("the new epoch");
    assert!(epoch > 1);
    // Who follows is sent away, and told why when it comes back.
    while let Some(frame) = follower.frame().await {
        assert!(!frame.event.is_empty() || frame.data.is_empty(), "nothing of the new epoch is handed out: {frame:?}");
    }
    let page = answered(|| app.get("/events?after=1:50")).await.expect_status(200).json();
    assert_eq!(page["events"][0]["event_type"], "After");
    assert_eq!(page["next"], format!("/events?after={epoch}:53"));
    let reasons = standby.session().await.texts("SELECT reason FROM epochs WHERE epoch > 1").await;
    assert!(reasons.len() == 1 && reasons[0].contains("/00000002/"), "{reasons:?}");
}

#[tokio::test]
async fn processes_that_had_seen_different_lost_positions_leave_no_gap_within_an_epoch() {
    let pair = Pair::start().await;
    let (primary, standby) = (pair.primary(), pair.standby());
    let proxy = Proxy::start(&primary).await;
    let one = TestApp::start_with(proxy.config(&primary), primary.clone(), Wanted::default()).await;
    let other = TestApp::start_with(proxy.config(&primary), primary.clone(), Wanted::default()).await;
    one.append("/streams/Order/1", &["Kept"; 50]).await;
    replayed(&standby, 50).await;
    cut_off(&primary, &standby).await;
    // One of them knows of two lost events, the other one of ten.
    one.append("/streams/Order/1", &["Lost"; 2]).await;
    other.append("/streams/Order/1", &["Lost"; 8]).await;
    take_over(&pair, &proxy).await;

    let append = async |app: &TestApp| {
        let answer = answered(|| app.post("/streams/Order/1", &events(&["After"]))).await;
        answer.expect_status(201).json()["global_position"].as_i64().expect("a position")
    };
    assert_eq!(append(&one).await, 53, "no position that it has served is used again");
    assert_eq!(append(&other).await, 61, "nor one that the other one has");
    assert_eq!((append(&one).await, append(&other).await), (62, 63));
    // The second gap begins an epoch, too; whoever stands before it goes on, whoever saw what is lost goes back.
    let firsts = standby.session().await.texts("SELECT first_position::text FROM epochs ORDER BY epoch").await;
    assert_eq!(firsts, ["1", "51", "54"]);
    for app in [&one, &other] {
        let refused = answered(|| app.get("/events?after=1:60")).await.expect_problem(409, "epoch_changed");
        assert_eq!(refused["rewind_to"], 50);
        let page = answered(|| app.get("/events?after=1:50")).await.expect_status(200).json();
        let positions: Vec<_> =
            page["events"].as_array().expect("events").iter().map(|e| &e["global_position"]).collect();
        assert_eq!(positions, [53, 61, 62, 63]);
    }
    let mut verifier = std::process::Command::new(env!("CARGO_BIN_EXE_annals"));
    let url = format!(
        "postgres://annals@localhost/eventstore?host={}",
        standby.socket().parent().expect("a folder").display()
    );
    let verified = verifier.arg("verify").env_clear().env("DATABASE_URL", url).output().expect("it runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}
