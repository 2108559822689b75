//! Promise P3: a read replica for feeds and loads. It may be behind, and its positions show that, but it returns no
//! wrong data. A client can wait for its own write.

use annals::store::admin::migrate;
use serde_json::json;

use crate::support::{
    Proxy, ReplicationPair, Session, TestApp, TestOptions, events, pause_between_polls, within_a_minute,
};

async fn start(pair: &ReplicationPair) -> TestApp {
    let options = TestOptions { replica: Some(pair.standby().config()), ..TestOptions::default() };
    TestApp::start_on(pair.primary(), options).await
}

async fn pause_replay(standby: &mut Session) {
    standby.run("SELECT pg_wal_replay_pause()").await;
    within_a_minute("replay is paused", async {
        while standby.texts("SELECT pg_get_wal_replay_pause_state()").await != ["paused"] {
            pause_between_polls().await;
        }
    })
    .await;
}

#[tokio::test]
async fn feeds_and_loads_use_the_replica_and_a_client_can_wait_for_its_own_write() {
    let pair = ReplicationPair::start().await;
    let app = start(&pair).await;
    let first = app.post("/streams/Order/1", &events(&["A", "B"])).send().await.expect_status(201).json();
    let position = first["global_position"].as_i64().expect("a position");
    let seen = app.get(&format!("/events?min_position={position}")).send().await.expect_status(200);
    assert_eq!(seen.versions(), [1, 2]);

    let mut standby = pair.standby().session().await;
    pause_replay(&mut standby).await;
    app.append("/streams/Order/1", &["C"]).await;
    app.append("/streams/Order/2", &["A"]).await;
    // Reads of a stream and appends use the primary.
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1, 2, 3]);
    app.post("/streams/Order/1", &events(&["D"])).if_match(2).send().await.expect_problem(412, "version_conflict");
    let page = app.get("/events").send().await.expect_status(200).json();
    assert_eq!((&page["head"], &page["next_after"], &page["at_head"]), (&json!(2), &json!(2), &json!(true)));
    assert_eq!(app.get("/aggregates/Order/1").send().await.json()["version"], 2);
    app.get("/aggregates/Order/2").send().await.expect_problem(404, "stream_not_found");
    for path in ["/events?min_position=3", "/aggregates/Order/1?min_position=3"] {
        assert_eq!(app.get(path).send().await.expect_problem(503, "replica_behind")["head"], 2);
    }
    app.get("/streams/Order/1?min_position=4").send().await.expect_status(200);
    // A cursor ahead of the replica is valid while the primary has its position.
    for cursor in ["1:4", "4"] {
        app.get(&format!("/events?after={cursor}")).send().await.expect_problem(503, "replica_behind");
    }
    app.get("/events?after=1:5").send().await.expect_problem(409, "epoch_changed");
    app.get("/events?after=5").send().await.expect_problem(422, "position_beyond_head");
    // The tailer delivers live events. A subscriber that reads the table waits until the replica has the events.
    let mut from_now = app.subscribe("/events?after=4").await;
    let mut from_the_start = app.subscribe("/events?after=0").await;
    assert_eq!([from_the_start.event().await.position(), from_the_start.event().await.position()], [1, 2]);
    app.append("/streams/Order/3", &["A"]).await;
    assert_eq!(from_now.event().await.position(), 5);
    within_a_minute("the lag is reported", async {
        while app.metric("annals_replica_lag_events").await < 3.0 {
            pause_between_polls().await;
        }
    })
    .await;

    standby.run("SELECT pg_wal_replay_resume()").await;
    for position in 3..=5 {
        assert_eq!(from_the_start.event().await.position(), position);
    }
    let load = app.get("/aggregates/Order/1?min_position=5").send().await.expect_status(200).json();
    assert_eq!(load["version"], 3);
    within_a_minute("the lag is 0 again", async {
        while app.metric("annals_replica_lag_events").await > 0.0 {
            pause_between_polls().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_replica_without_the_current_epoch_is_behind_and_reports_no_other_history() {
    let pair = ReplicationPair::start().await;
    let app = start(&pair).await;
    app.append("/streams/Order/1", &["A", "B"]).await;
    app.get("/events?min_position=2").send().await.expect_status(200);
    let mut standby = pair.standby().session().await;
    pause_replay(&mut standby).await;
    let epoch = app.app.primary.begin_epoch("a test").await.expect("the epoch begins");
    let cursor = format!("/events?after={epoch}:2");
    app.get(&cursor).send().await.expect_problem(503, "replica_behind");
    standby.run("SELECT pg_wal_replay_resume()").await;
    let page = within_a_minute("the replica receives the epoch", async {
        loop {
            let reply = app.get(&cursor).send().await;
            if reply.status == 200 {
                return reply.json();
            }
            pause_between_polls().await;
            assert_eq!(reply.status, 503);
        }
    })
    .await;
    assert_eq!((&page["epoch"], &page["events"]), (&json!(epoch), &json!([])));
}

#[tokio::test]
async fn a_replica_that_has_not_replayed_the_schema_is_not_read() {
    let pair = ReplicationPair::start().await;
    let config = pair.primary().config();
    let mut primary = pair.primary().session().await;
    primary.run("DROP FUNCTION stream_bucket; DELETE FROM annals_functions WHERE name = 'stream_bucket'").await;
    let mut standby = pair.standby().session().await;
    within_a_minute("the standby has the older schema", async {
        const FUNCTION: &str = "SELECT name FROM annals_functions WHERE name = 'stream_bucket'";
        while !standby.texts(FUNCTION).await.is_empty() {
            pause_between_polls().await;
        }
    })
    .await;
    pause_replay(&mut standby).await;
    migrate::migrate(&config).await.expect("the schema is brought up to date");
    let app = start(&pair).await;
    app.append("/streams/Order/1", &["A"]).await;
    let mut read = 0;
    for partition in ["0/2", "1/2"] {
        read += app.get(&format!("/events?partition={partition}")).send().await.expect_status(200).versions().len();
    }
    assert_eq!((read, app.metric("annals_replica_up").await), (1, 0.0));

    standby.run("SELECT pg_wal_replay_resume()").await;
    within_a_minute("the replica is used", async {
        while app.metric("annals_replica_up").await == 0.0 {
            pause_between_polls().await;
        }
    })
    .await;
}

/// Several replicas may be behind one address, and one of them may lag.
#[tokio::test]
async fn min_position_holds_on_each_connection() {
    let pair = ReplicationPair::start().await;
    // The primary stands for a replica that does not lag.
    let proxy = Proxy::start(&pair.standby()).await;
    proxy.balance(&pair.primary());
    let options = TestOptions { replica: Some(proxy.config(&pair.standby())), ..TestOptions::default() };
    let app = TestApp::start_on(pair.primary(), options).await;
    app.call("PUT", "/reducers/Order").json(&json!({"language": "merge-patch"})).send().await.expect_status(201);
    app.append("/streams/Order/1", &["A"]).await;
    for _ in 0..20 {
        app.get("/events?min_position=1").send().await.expect_status(200);
    }
    let mut standby = pair.standby().session().await;
    pause_replay(&mut standby).await;
    app.append("/streams/Order/1", &["B"]).await;

    let mut served = 0;
    for path in [
        "/events",
        "/events?direction=backward",
        "/aggregates/Order/1",
        "/aggregates/Order/1/state",
        "/aggregates/Order/1/states",
    ] {
        let separator = if path.contains('?') { '&' } else { '?' };
        for accept in ["application/json", "application/x-ndjson"] {
            if accept != "application/json" && path != "/events" {
                continue;
            }
            // Requests at the same time use several connections.
            let path = format!("{path}{separator}min_position=1:2");
            let reads = (0..24).map(|_| app.get(&path).header("accept", accept).send());
            for reply in futures_util::future::join_all(reads).await {
                if reply.status == 503 {
                    reply.expect_problem(503, "replica_behind");
                    continue;
                }
                let text = reply.expect_status(200).text();
                assert!(text.contains("\"version\":2"), "{path}: {text}");
                served += 1;
            }
        }
    }
    assert!(served > 0, "no replica has served a request");
    // The position of another history.
    app.get("/streams/Order/1?min_position=1:2").send().await.expect_status(200);
    for position in ["1:3", "7:1"] {
        let other = app.get(&format!("/streams/Order/1?min_position={position}")).send().await;
        other.expect_problem(409, "epoch_changed");
    }
    for position in ["x", "1:", "-1", "9007199254740992"] {
        let path = format!("/events?min_position={position}");
        app.get(&path).send().await.expect_invalid("parameter", "min_position");
    }
}

async fn wait_for_metric(app: &TestApp, name: &str, value: f64) {
    within_a_minute(name, async {
        while app.metric(name).await != value {
            pause_between_polls().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_primary_serves_the_reads_of_a_replica_that_is_away() {
    let pair = ReplicationPair::start().await;
    let proxy = Proxy::start(&pair.standby()).await;
    proxy.down();
    let replica = Some(proxy.config(&pair.standby()));
    let app = TestApp::start_on(pair.primary(), TestOptions { replica, ..TestOptions::default() }).await;
    app.append("/streams/Order/1", &["A"]).await;
    let mut standby = pair.standby().session().await;
    let waits_for_lock = "SELECT count(*) FROM pg_stat_activity
                           WHERE application_name = 'annals' AND wait_event_type = 'Lock'";
    let paths = ["/events", "/aggregates/Order/1", "/events?direction=backward"];
    for has_vanished in [false, true] {
        assert_eq!(app.metric("annals_replica_up").await, 0.0);
        for path in paths {
            app.get(path).send().await.expect_status(200);
        }
        app.get("/readyz").send().await.expect_status(200);
        proxy.up();
        wait_for_metric(&app, "annals_replica_up", 1.0).await;
        // The replica serves again.
        pause_replay(&mut standby).await;
        let version = app.append("/streams/Order/1", &["B"]).await;
        assert_eq!(app.get("/aggregates/Order/1").send().await.json()["version"], version - 1);
        standby.run("SELECT pg_wal_replay_resume()").await;
        if has_vanished {
            break;
        }
        // A statement is in progress while the server vanishes.
        let mut session = pair.primary().session().await;
        session.run("BEGIN").await;
        session.run("LOCK TABLE streams IN ACCESS EXCLUSIVE MODE").await;
        let vanish = async {
            within_a_minute("a load waits", async {
                while standby.number(waits_for_lock).await == 0 {
                    pause_between_polls().await;
                }
            })
            .await;
            proxy.vanish();
            session.run("ROLLBACK").await;
            wait_for_metric(&app, "annals_replica_up", 0.0).await;
        };
        let load = async {
            // The lock reaches the standby with the write-ahead log, after some loads.
            within_a_minute("a load fails", async {
                while app.get("/aggregates/Order/1").send().await.status != 503 {
                    pause_between_polls().await;
                }
            })
            .await;
        };
        tokio::join!(load, vanish);
    }
}

#[tokio::test]
async fn subscribers_do_not_wait_for_a_replica_that_is_behind() {
    let pair = ReplicationPair::start().await;
    let app = start(&pair).await;
    app.append("/streams/Order/1", &["A"]).await;
    let mut standby = pair.standby().session().await;
    pause_replay(&mut standby).await;
    app.append("/streams/Order/1", &["B"]).await;
    let head = app.get("/events?after=head").send().await.expect_status(200).json();
    assert_eq!((&head["next_after"], &head["head"], &head["at_head"]), (&json!(2), &json!(2), &json!(true)));
    // The subscriber has caught up at the head of the primary, and not at that of the replica.
    let mut subscriber = app.subscribe("/events?after=0").await;
    assert_eq!([subscriber.event().await.position(), subscriber.event().await.position()], [1, 2]);
    let (events, _) = subscriber.until("caught-up").await;
    assert_eq!(events, []);
    let poll = app.get("/events?after=1&wait=60").send();
    let page = within_a_minute("a long poll behind the head", poll).await.expect_status(200);
    assert_eq!(page.versions(), [2]);
    let poll = app.get("/events?after=2&wait=60").send();
    let (page, _) =
        tokio::join!(within_a_minute("a long poll at the head", poll), app.append("/streams/Order/1", &["C"]));
    assert_eq!(page.expect_status(200).versions(), [3]);
    assert!(app.metric("annals_replica_lag_seconds").await > 1.0);
    assert_eq!(app.metric("annals_replica_up").await, 1.0);
    standby.run("SELECT pg_wal_replay_resume()").await;
    wait_for_metric(&app, "annals_replica_lag_seconds", 0.0).await;
}

#[tokio::test]
async fn workers_of_a_group_do_not_wait_for_the_replica() {
    let pair = ReplicationPair::start().await;
    let app = start(&pair).await;
    let group = json!({"partitions": 1});
    app.call("PUT", "/groups/g").json(&group).send().await.expect_status(201);
    app.append("/streams/Order/1", &["A"]).await;
    let claim = || app.call("POST", "/groups/g/claims?wait=60").send();
    let first = within_a_minute("the first event", claim()).await.expect_status(201).json();
    let acknowledge = |claim: &serde_json::Value| {
        let path = format!("/groups/g/claims/{}", claim["claim_id"].as_str().expect("an id"));
        app.call("PUT", &path).json(&json!({"last_processed_position": claim["claimed_to"]})).send()
    };
    acknowledge(&first).await.expect_status(200);
    let mut standby = pair.standby().session().await;
    pause_replay(&mut standby).await;
    // The tailer follows the primary, and hands the events to workers that wait.
    let (second, _) =
        tokio::join!(within_a_minute("the second event", claim()), app.append("/streams/Order/1", &["B"]));
    let second = second.expect_status(201).json();
    assert_eq!(second["claimed_to"], 2);
    acknowledge(&second).await.expect_status(200);
    standby.run("SELECT pg_wal_replay_resume()").await;
}
