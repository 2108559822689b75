//! Promise P3, P6: a streaming standby shows a prefix of the log in the same order. If the standby is promoted without
//! the end of the log, every cursor beyond the loss gets an error.

use std::ops::ControlFlow;

use annals::domain::cursor::Cursor;
use annals::domain::filter::EventFilter;
use annals::store::log::scan::{LogScan, ScanLimits};
use annals::store::reader::Reader;
use serde_json::json;

use crate::support::{
    Call, Proxy, ReplicationPair, Reply, Session, TestApp, TestDatabase, TestOptions, event_with_id, events, id,
    pause_between_polls, within_a_minute,
};

/// Waits until the standby has replayed this number of events.
async fn wait_for_replay(standby: &TestDatabase, events: i64) {
    let mut session = standby.session().await;
    within_a_minute("the standby has replayed", async {
        while session.number("SELECT count(*) FROM events").await < events {
            pause_between_polls().await;
        }
    })
    .await;
}

/// Disconnects the standby. Later events are acknowledged, and a failover loses them.
async fn disconnect(primary: &TestDatabase, standby: &TestDatabase) {
    let mut session = standby.session().await;
    session.run("ALTER SYSTEM SET primary_conninfo = ''").await;
    session.run("SELECT pg_reload_conf()").await;
    within_a_minute("the standby is disconnected", async {
        while primary.session().await.number("SELECT count(*) FROM pg_stat_replication").await > 0 {
            pause_between_polls().await;
        }
    })
    .await;
}

/// Promotes the standby, and redirects the proxy from the primary to the standby.
async fn fail_over(pair: &ReplicationPair, proxy: &Proxy) {
    proxy.down();
    pair.fail_over().await;
    proxy.retarget(&pair.standby());
    proxy.up();
}

/// Waits until a backend of an append, other than the given one, waits for a synchronous standby. Returns its process id.
async fn append_that_waits_for_a_standby(session: &mut Session, other_than: i64) -> i64 {
    let waiting = format!(
        "SELECT coalesce(max(pid), 0)::bigint FROM pg_stat_activity
          WHERE wait_event = 'SyncRep' AND query LIKE '%append_event%' AND pid <> {other_than}"
    );
    within_a_minute("an append waits for a standby", async {
        loop {
            let pid = session.number(&waiting).await;
            if pid > 0 {
                return pid;
            }
            pause_between_polls().await;
        }
    })
    .await
}

/// Repeats a request until its response is not 503. The service discards connections to the old primary one by one.
async fn retried(call: impl Fn() -> Call) -> Reply {
    within_a_minute("the new primary responds", async {
        loop {
            let reply = call().send().await;
            if reply.status != 503 {
                return reply;
            }
            pause_between_polls().await;
        }
    })
    .await
}

#[tokio::test]
async fn with_several_hosts_a_service_finds_the_new_primary() {
    let pair = ReplicationPair::start().await;
    let (standby, primary) = (Proxy::start(&pair.standby()).await, Proxy::start(&pair.primary()).await);
    let mut config = standby.config(&pair.standby());
    config.servers.extend(primary.config(&pair.primary()).servers);
    let app = TestApp::start_with_config(config, pair.primary(), TestOptions::default()).await;
    app.append("/streams/Order/1", &["A"]).await;
    within_a_minute("the standby has the event", async {
        let mut session = pair.standby().session().await;
        while session.number("SELECT count(*) FROM events").await < 1 {
            pause_between_polls().await;
        }
    })
    .await;
    let mut subscriber = app.subscribe("/events?after=0").await;
    assert_eq!(subscriber.event().await.position(), 1);
    primary.vanish();
    pair.fail_over().await;
    let event = event_with_id(&id(2));
    within_a_minute("an append is written", async {
        while !matches!(app.post("/streams/Order/1", &event).send().await.status, 200 | 201) {
            pause_between_polls().await;
        }
    })
    .await;
    for path in ["/streams/Order/1", "/events"] {
        let read = retried(|| app.get(path));
        assert_eq!(within_a_minute("a read is answered", read).await.versions(), [1, 2]);
    }
    assert_eq!(subscriber.event().await.position(), 2);
    let mut session = pair.standby().session().await;
    assert_eq!(session.number("SELECT count(*) FROM events").await, 2);
}

#[tokio::test]
async fn a_standby_shows_a_prefix_in_the_same_order() {
    const EVENTS: i64 = 4_000;
    let pair = ReplicationPair::start().await;
    let app = TestApp::start_on(pair.primary(), TestOptions::default()).await;
    let replica =
        Reader::connect_to_replica(&pair.standby().config(), &app.app.primary).await.expect("the replica connects");
    let writers = (0..32).map(|n| {
        let app = &app;
        async move {
            for _ in 0..EVENTS / 32 / 5 {
                app.append(&format!("/streams/Order/{n}"), &["E"; 5]).await;
            }
        }
    });
    // Every read returns a prefix of the log. No event of the prefix is missing, then or later.
    let reader = async {
        let mut scan = LogScan::new(EventFilter::default(), Cursor { epoch: None, position: 0 }, ScanLimits::default());
        let mut seen = Vec::new();
        while (seen.len() as i64) < EVENTS {
            let read = replica.read_log(&mut scan, i64::MAX, usize::MAX, |event| {
                seen.push((event.global_position, event.event_id));
                ControlFlow::Continue(())
            });
            let head = read.await.expect("the standby responds");
            assert!(scan.after() <= head.global_position);
            assert_eq!(seen.last().map_or(0, |(position, _)| *position), seen.len() as i64);
            tokio::task::yield_now().await;
        }
        seen
    };
    let (_, seen) =
        tokio::join!(futures_util::future::join_all(writers), within_a_minute("all events are replicated", reader));
    let lines = app.get("/events").header("accept", "application/x-ndjson").send().await.lines();
    let written: Vec<_> = lines[..lines.len() - 1]
        .iter()
        .map(|event| (event["global_position"].as_i64().expect("a position"), event["event_id"].clone()))
        .collect();
    assert_eq!(seen.into_iter().map(|(position, id)| (position, json!(id.to_string()))).collect::<Vec<_>>(), written);
}

#[tokio::test]
async fn after_a_failover_that_loses_events_every_cursor_beyond_the_loss_gets_an_error() {
    let pair = ReplicationPair::start().await;
    let (primary, standby) = (pair.primary(), pair.standby());
    let proxy = Proxy::start(&primary).await;
    let app = TestApp::start_with_config(proxy.config(&primary), primary.clone(), TestOptions::default()).await;
    app.append("/streams/Order/1", &vec!["Replicated"; 50]).await;
    wait_for_replay(&standby, 50).await;
    let mut subscriber = app.subscribe("/events").await;
    assert_eq!(subscriber.until("caught-up").await.1.id, "1:50");

    disconnect(&primary, &standby).await;
    let lost = app.post("/streams/Order/1", &events(&["Lost", "Lost"])).send().await.expect_status(201).json();
    assert_eq!(lost["global_position"], 52);
    while subscriber.event().await.id != "1:52" {}
    fail_over(&pair, &proxy).await;

    // The same service on the new primary begins an epoch, and reuses no position that it has served.
    let append = || app.post("/streams/Order/1", &events(&["After"]));
    let after = retried(append).await.expect_status(201).json();
    assert_eq!((&after["version"], &after["global_position"]), (&json!(51), &json!(53)));
    let refused = retried(|| app.get("/events?after=1:52")).await.expect_problem(409, "epoch_changed");
    assert_eq!(refused["rewind_to"], 50);
    let epoch = refused["epoch"].as_i64().expect("the new epoch");
    assert!(epoch > 1);
    // The event stream ends, and contains no event of the new epoch.
    while let Some(frame) = subscriber.frame().await {
        assert!(!frame.event.is_empty() || frame.data.is_empty(), "an event of the new epoch was delivered: {frame:?}");
    }
    let page = retried(|| app.get("/events?after=1:50")).await.expect_status(200).json();
    assert_eq!(page["events"][0]["event_type"], "After");
    assert_eq!(page["next"], format!("/events?after={epoch}:53"));
    let reasons = standby.session().await.texts("SELECT reason FROM epochs WHERE epoch > 1").await;
    assert!(reasons.len() == 1 && reasons[0].contains("/00000002/"), "{reasons:?}");
}

#[tokio::test]
async fn services_that_have_served_different_lost_positions_leave_no_gap_within_an_epoch() {
    let pair = ReplicationPair::start().await;
    let (primary, standby) = (pair.primary(), pair.standby());
    let proxy = Proxy::start(&primary).await;
    let one = TestApp::start_with_config(proxy.config(&primary), primary.clone(), TestOptions::default()).await;
    let other = TestApp::start_with_config(proxy.config(&primary), primary.clone(), TestOptions::default()).await;
    one.append("/streams/Order/1", &["Replicated"; 50]).await;
    wait_for_replay(&standby, 50).await;
    disconnect(&primary, &standby).await;
    // One service has served two lost positions, and the other one has served ten.
    one.append("/streams/Order/1", &["Lost"; 2]).await;
    other.append("/streams/Order/1", &["Lost"; 8]).await;
    fail_over(&pair, &proxy).await;

    let append = async |app: &TestApp| {
        let reply = retried(|| app.post("/streams/Order/1", &events(&["After"]))).await;
        // 200: the service has sent the append again, because the connection was lost before the first result.
        assert!(matches!(reply.status, 200 | 201), "{reply:?}");
        reply.json()["global_position"].as_i64().expect("a position")
    };
    assert_eq!(append(&one).await, 53, "a position that this service has served is not reused");
    assert_eq!(append(&other).await, 61, "a position that the other service has served is not reused");
    assert_eq!((append(&one).await, append(&other).await), (62, 63));
    // The second gap also begins an epoch. A cursor before the loss is still valid, and a cursor beyond it is not.
    let firsts = standby.session().await.texts("SELECT first_position::text FROM epochs ORDER BY epoch").await;
    assert_eq!(firsts, ["1", "51", "54"]);
    for app in [&one, &other] {
        let refused = retried(|| app.get("/events?after=1:60")).await.expect_problem(409, "epoch_changed");
        assert_eq!(refused["rewind_to"], 50);
        let page = retried(|| app.get("/events?after=1:50")).await.expect_status(200).json();
        let positions: Vec<_> =
            page["events"].as_array().expect("events").iter().map(|e| &e["global_position"]).collect();
        assert_eq!(positions, [53, 61, 62, 63]);
    }
    let mut verifier = std::process::Command::new(env!("CARGO_BIN_EXE_annals"));
    let url = format!(
        "postgres://annals@localhost/eventstore?host={}",
        standby.socket().parent().expect("a folder").display()
    );
    let verified = verifier.arg("verify").env_clear().env("DATABASE_URL", url).output().expect("the program runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// Two servers have continued the log from the same event. A service that has served both knows where they parted.
#[tokio::test]
async fn a_cursor_of_a_lost_epoch_gets_the_position_at_which_the_histories_parted() {
    let pair = ReplicationPair::start().await;
    let (primary, standby) = (pair.primary(), pair.standby());
    let proxy = Proxy::start(&primary).await;
    let app = TestApp::start_with_config(proxy.config(&primary), primary.clone(), TestOptions::default()).await;
    app.append("/streams/Order/1", &["Both"; 3]).await;
    wait_for_replay(&standby, 3).await;
    disconnect(&primary, &standby).await;
    // One server takes two events, and then another one is promoted, which takes three.
    app.append("/streams/Order/1", &["Left"; 2]).await;
    proxy.down();
    standby.session().await.run("SELECT pg_promote()").await;
    proxy.retarget(&standby);
    proxy.up();
    for n in 1..=3 {
        let right = retried(|| app.post("/streams/Order/2", &event_with_id(&id(n)))).await;
        assert!(matches!(right.status, 200 | 201), "{right:?}");
    }
    let page = retried(|| app.get("/events")).await.expect_status(200).json();
    let lost_epoch = page["epoch"].as_i64().expect("an epoch");
    // The first server serves again. It has no record of the epoch.
    proxy.down();
    within_a_minute("the service is not ready", async {
        while app.get("/readyz").send().await.status != 503 {
            pause_between_polls().await;
        }
    })
    .await;
    proxy.retarget(&primary);
    proxy.up();
    within_a_minute("the service is connected to the first server", async {
        while app.get("/events").send().await.json()["epoch"] != 1 {
            pause_between_polls().await;
        }
    })
    .await;
    let unknown = app.get("/events?after=5:4").send().await.expect_problem(409, "epoch_changed");
    assert_eq!(unknown["rewind_to"], 0);
    let mut session = primary.session().await;
    within_a_minute("the epoch is recorded", async {
        while session.number("SELECT count(*) FROM lost_epochs").await == 0 {
            pause_between_polls().await;
        }
    })
    .await;
    for position in 4..=8 {
        let path = format!("/events?after={lost_epoch}:{position}");
        let refused = retried(|| app.get(&path)).await.expect_problem(409, "epoch_changed");
        assert_eq!(refused["rewind_to"], 3, "{position}");
    }
    let page = retried(|| app.get(&format!("/events?after={lost_epoch}:3"))).await.expect_status(200);
    assert_eq!(page.versions(), [4, 5]);
}

#[tokio::test]
async fn a_worker_learns_that_the_events_of_its_claim_were_lost() {
    let pair = ReplicationPair::start().await;
    let (primary, standby) = (pair.primary(), pair.standby());
    let proxy = Proxy::start(&primary).await;
    let app = TestApp::start_with_config(proxy.config(&primary), primary.clone(), TestOptions::default()).await;
    app.append("/streams/Order/1", &["Replicated"; 3]).await;
    let group = json!({"partitions": 1});
    app.call("PUT", "/groups/g").json(&group).send().await.expect_status(201);
    app.append("/streams/Order/1", &["Replicated"]).await;
    wait_for_replay(&standby, 4).await;

    disconnect(&primary, &standby).await;
    app.append("/streams/Order/1", &["Lost", "Lost"]).await;
    let mut lost = app.call("POST", "/groups/g/claims").send().await.expect_status(201).json();
    // The window of the group may be behind the appends.
    while lost["claimed_to"] != 6 {
        let path = format!("/groups/g/claims/{}?next=true&wait=10", lost["claim_id"].as_str().expect("an id"));
        let body = json!({"last_processed_position": lost["claimed_to"]});
        lost = app.call("PUT", &path).json(&body).send().await.expect_status(200).json()["claim"].take();
    }
    fail_over(&pair, &proxy).await;

    let after = retried(|| app.post("/streams/Order/1", &events(&["After"]))).await.expect_status(201).json();
    assert_eq!(after["global_position"], 7);
    let path = format!("/groups/g/claims/{}", lost["claim_id"].as_str().expect("an id"));
    let acknowledge = |position: i64| app.call("PUT", &path).json(&json!({"last_processed_position": position}));
    let refused = retried(|| acknowledge(6)).await.expect_problem(409, "epoch_changed");
    assert_eq!(refused["rewind_to"], 4);
    // The step of the claim was lost with the events, so not even the events that are left are acknowledged.
    retried(|| acknowledge(4)).await.expect_problem(409, "claim_lost");
    let claim = retried(|| app.call("POST", "/groups/g/claims")).await.expect_status(201).json();
    assert_eq!(claim["epoch"], refused["epoch"]);
    let positions: Vec<_> =
        claim["events"].as_array().expect("events").iter().map(|event| event["global_position"].clone()).collect();
    assert_eq!(positions, [1, 2, 3, 4, 7]);
}

/// Makes every commit of a primary wait for a standby that does not exist. PostgreSQL applies the setting a moment after
/// the reload, so commits that change nothing are tried until one waits.
async fn wait_for_an_absent_standby(primary: &TestDatabase, session: &mut Session) {
    session.run("ALTER SYSTEM SET synchronous_standby_names = 'away'").await;
    session.run("SELECT pg_reload_conf()").await;
    let waiting = "SELECT coalesce(min(pid), 0)::bigint FROM pg_stat_activity
                    WHERE wait_event = 'SyncRep' AND query LIKE '%pg_logical_emit_message(true, ''a test''%'";
    let applies = async {
        loop {
            let mut probe = primary.session().await;
            let commit = tokio::spawn(async move {
                // It fails when its session is terminated.
                drop(sqlx::query("SELECT pg_logical_emit_message(true, 'a test', '')").execute(&mut probe.0).await);
            });
            while !commit.is_finished() {
                let pid = session.number(waiting).await;
                if pid > 0 {
                    session.run(&format!("SELECT pg_terminate_backend({pid})")).await;
                    commit.await.expect("the task ends");
                    return;
                }
                pause_between_polls().await;
            }
        }
    };
    within_a_minute("the setting applies", applies).await;
}

/// Makes commits wait for no standby again.
async fn wait_for_no_standby(session: &mut Session) {
    session.run("ALTER SYSTEM RESET synchronous_standby_names").await;
    session.run("SELECT pg_reload_conf()").await;
}

#[tokio::test]
async fn a_cursor_that_a_standby_has_shown_before_the_primary_is_not_lost() {
    let pair = ReplicationPair::start().await;
    let app = TestApp::start_on(pair.primary(), TestOptions::default()).await;
    app.append("/streams/Order/1", &["A"]).await;
    let epoch = app.get("/events").send().await.json()["epoch"].clone();
    let mut session = pair.primary().session().await;
    wait_for_an_absent_standby(&pair.primary(), &mut session).await;
    let event = event_with_id("01980000-0000-7000-8000-000000000001");
    let append = app.post("/streams/Order/1", &event).send();
    let follow = async {
        append_that_waits_for_a_standby(&mut session, 0).await;
        wait_for_replay(&pair.standby(), 2).await;
        for cursor in ["2".to_owned(), format!("{epoch}:2")] {
            let reply = app.get(&format!("/events?after={cursor}")).send().await;
            reply.expect_problem(503, "replica_behind");
        }
        // A position that no standby has either can still be one that another process has shown.
        app.get("/events?after=7").send().await.expect_problem(503, "replica_behind");
        wait_for_no_standby(&mut session).await;
    };
    let (appended, ()) = tokio::join!(append, follow);
    appended.expect_status(201);
    app.get(&format!("/events?after={epoch}:2")).send().await.expect_status(200);
    app.get(&format!("/events?after={epoch}:3")).send().await.expect_problem(409, "epoch_changed");
    app.get("/events?after=3").send().await.expect_problem(422, "position_beyond_head");
}

/// PostgreSQL does not end a commit that waits for a standby, so the sessions of further writes would add up.
#[tokio::test]
async fn writes_that_wait_for_an_absent_standby_end_and_do_not_add_up() {
    let pair = ReplicationPair::start().await;
    let app = TestApp::start_on(pair.primary(), TestOptions::default()).await;
    app.append("/streams/Order/1", &["A"]).await;
    let mut session = pair.primary().session().await;
    wait_for_an_absent_standby(&pair.primary(), &mut session).await;

    let put =
        |position: i64| app.call("PUT", "/projections/p").json(&json!({"last_processed_position": position})).send();
    within_a_minute("a write ends", put(1)).await.expect_problem(503, "outcome_unknown");
    let refused = within_a_minute("further writes are refused", async {
        loop {
            let reply = put(1).await;
            if reply.json()["code"] == "database_unavailable" {
                return reply;
            }
            pause_between_polls().await;
        }
    });
    refused.await.expect_problem(503, "database_unavailable");
    within_a_minute("the service is not ready", async {
        loop {
            let ready = app.get("/readyz").send().await;
            if ready.status == 503 && ready.text().contains("synchronous_standby_names") {
                return;
            }
            pause_between_polls().await;
        }
    })
    .await;
    let ready = app.get("/readyz?verbose").send().await;
    assert!(ready.text().contains("waits for IPC: SyncRep"), "{}", ready.text());
    let before = session.number("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").await;
    for _ in 0..20 {
        put(1).await.expect_problem(503, "database_unavailable");
    }
    let after = session.number("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").await;
    assert_eq!(after, before);

    wait_for_no_standby(&mut session).await;
    within_a_minute("the service is ready again", async {
        while app.get("/readyz").send().await.status != 200 {
            pause_between_polls().await;
        }
    })
    .await;
    put(1).await.expect_status(200);
}

#[tokio::test]
async fn a_replayed_append_waits_for_the_synchronous_standby() {
    let pair = ReplicationPair::start().await;
    let app = TestApp::start_on(pair.primary(), TestOptions::default()).await;
    let mut session = pair.primary().session().await;
    wait_for_an_absent_standby(&pair.primary(), &mut session).await;

    let event = event_with_id("01980000-0000-7000-8000-000000000001");
    let mut append = Box::pin(retried(|| app.post("/streams/Order/1", &event)));
    let replay = async {
        let first = append_that_waits_for_a_standby(&mut session, 0).await;
        // PostgreSQL commits the transaction of a backend that is terminated while it waits.
        session.run(&format!("SELECT pg_terminate_backend({first})")).await;
        append_that_waits_for_a_standby(&mut session, first).await;
        session
    };
    let mut session = tokio::select! {
        reply = &mut append => panic!("no standby has the event, and the append is acknowledged: {reply:?}"),
        session = within_a_minute("the repeated append waits, too", replay) => session,
    };
    wait_for_no_standby(&mut session).await;
    let reply = append.await;
    assert_eq!((reply.status, reply.header("idempotent-replayed")), (200, Some("true")), "{reply:?}");
}
