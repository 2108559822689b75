//! No promise: positions of projections. They move by compare-and-set. They move backwards only by a reset, and never
//! beyond the head. A client can wait for a position.

use serde_json::{Value, json};

use crate::support::{Call, TestApp, at, events, pause_between_polls, within_a_minute};

async fn with_events(count: usize) -> TestApp {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &vec!["E"; count]).await;
    app
}

fn put(app: &TestApp, name: &str, position: u64) -> Call {
    app.call("PUT", &format!("/projections/{name}")).json(&json!({"last_processed_position": position}))
}

#[tokio::test]
async fn a_projection_is_created_moved_and_deleted() {
    let app = with_events(10).await;
    let made = put(&app, "orders", 4).send().await.expect_status(201);
    assert_eq!(made.header("etag"), Some("\"4\""));
    assert_eq!((&made.json()["last_processed_position"], &made.json()["lag"]), (&json!(4), &json!(6)));
    assert!(made.json()["lag_seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0));
    put(&app, "orders", 4).send().await.expect_status(200);
    let moved = put(&app, "orders", 10).send().await.expect_status(200).json();
    assert_eq!((&moved["lag"], &moved["lag_seconds"]), (&json!(0), &json!(0.0)));
    put(&app, "Bestellungen%20%C3%A9", 0).send().await.expect_status(201);

    let list = app.get("/projections").send().await.expect_status(200).json();
    let names: Vec<&Value> =
        list["projections"].as_array().expect("a list").iter().map(|p| &p["projection_name"]).collect();
    assert_eq!(names, [&json!("Bestellungen é"), &json!("orders")]);
    let one = app.get("/projections/orders").send().await.expect_status(200);
    assert_eq!((one.header("etag"), &one.json()), (Some("\"10\""), &list["projections"][1]));

    app.call("DELETE", "/projections/orders").send().await.expect_status(204);
    app.call("DELETE", "/projections/orders").send().await.expect_problem(404, "projection_not_found");
    app.get("/projections/orders").send().await.expect_problem(404, "projection_not_found");
}

#[tokio::test]
async fn a_position_is_moved_by_compare_and_set() {
    let app = with_events(10).await;
    let missing = put(&app, "p", 1).if_match(0).send().await.expect_problem(412, "position_conflict");
    assert_eq!(missing["current_position"], json!(null));
    put(&app, "p", 1).header("if-match", "*").send().await.expect_problem(412, "position_conflict");
    put(&app, "p", 1).header("if-none-match", "*").send().await.expect_status(201);
    put(&app, "p", 2).header("if-none-match", "*").send().await.expect_problem(412, "position_conflict");
    put(&app, "p", 5).if_match(1).send().await.expect_status(200);
    let late = put(&app, "p", 6).if_match(1).send().await;
    assert_eq!(late.header("etag"), Some("\"5\""));
    assert_eq!(late.expect_problem(412, "position_conflict")["current_position"], 5);
    put(&app, "p", 6).header("if-match", "*").send().await.expect_status(200);
    put(&app, "p", 7).header("if-match", "seven").send().await.expect_invalid("header", "If-Match");

    // Of many requests with one expected position, one succeeds.
    let movers = (0..16).map(|_| put(&app, "p", 9).if_match(6).send());
    let replies = futures_util::future::join_all(movers).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
    assert_eq!(replies.iter().filter(|reply| reply.status == 412).count(), 15);
}

#[tokio::test]
async fn a_position_moves_backwards_only_by_reset_and_never_beyond_the_head() {
    let app = with_events(10).await;
    put(&app, "p", 8).send().await.expect_status(201);
    let back = put(&app, "p", 3).send().await.expect_problem(409, "position_regressed");
    assert_eq!(back["current_position"], 8);
    put(&app, "p", 3).if_match(8).send().await.expect_problem(409, "position_regressed");
    let reset = |value: &str| {
        app.call("PUT", &format!("/projections/p?reset={value}")).json(&json!({"last_processed_position": 3}))
    };
    reset("false").send().await.expect_problem(409, "position_regressed");
    reset("perhaps").send().await.expect_invalid("parameter", "reset");
    reset("true").if_match(7).send().await.expect_problem(412, "position_conflict");
    reset("true").if_match(8).send().await.expect_status(200);
    let beyond = put(&app, "p", 11).send().await.expect_problem(422, "position_beyond_head");
    assert_eq!(beyond["head"], 10);
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"last_processed_position": -1}), "/last_processed_position"),
        (json!({"last_processed_position": "1"}), "/last_processed_position"),
        (json!({"last_processed_position": 1, "x": 1}), "/x"),
    ] {
        app.call("PUT", "/projections/p").json(&body).send().await.expect_invalid("pointer", pointer);
    }
    put(&app, "a%2Fb", 1).send().await.expect_invalid("path", "projection_name");
    app.get("/projections?x=1").send().await.expect_invalid("parameter", "x");
}

#[tokio::test]
async fn a_client_can_wait_until_a_projection_reaches_a_position() {
    let app = with_events(10).await;
    put(&app, "p", 2).send().await.expect_status(201);
    app.get("/projections/p?wait_for=2").send().await.expect_status(200);
    let waiting = app.get("/projections/p?wait_for=7&timeout=60").send();
    let moving = async {
        put(&app, "p", 6).send().await.expect_status(200);
        put(&app, "p", 7).send().await.expect_status(200);
    };
    let (reply, ()) = tokio::join!(waiting, moving);
    assert_eq!(reply.expect_status(200).json()["last_processed_position"], 7);
    let behind = app.get("/projections/p?wait_for=9&timeout=1").send().await.expect_problem(504, "projection_behind");
    assert_eq!((&behind["last_processed_position"], &behind["lag"]), (&json!(7), &json!(3)));
    app.get("/projections/q?wait_for=1").send().await.expect_problem(404, "projection_not_found");
    app.get("/projections/p?timeout=61").send().await.expect_invalid("parameter", "timeout");
    app.get("/projections/p?wait_for=x").send().await.expect_invalid("parameter", "wait_for");

    // A shutdown ends the wait.
    let waiting = app.get("/projections/p?wait_for=9&timeout=60").send();
    let reads = "annals_db_pool_acquire_seconds_count";
    let before = app.metric(reads).await;
    let (reply, ()) = tokio::join!(waiting, async {
        let has_read = async {
            while app.metric(reads).await <= before {
                pause_between_polls().await;
            }
        };
        within_a_minute("the service reads the projection", has_read).await;
        app.app.shutdown.begin();
    });
    reply.expect_problem(503, "shutting_down");
}

#[tokio::test]
async fn the_history_has_the_sampled_positions_of_an_existing_projection() {
    let (app, clock) = TestApp::start_at("2026-03-01T00:00:00Z").await;
    app.append("/streams/Order/1", &["E"; 10]).await;
    let history = async |name: &str| app.get(&format!("/projections/{name}/history")).send().await;
    history("p").await.expect_problem(404, "projection_not_found");
    // The job samples, too. A time is sampled once, and nothing changes between the new time and the sample.
    let sample_at = async |time: &str| {
        clock.set(at(time));
        app.app.projection_history.sample(&app.app.primary, &clock).await.expect("the projections are sampled");
    };
    put(&app, "p", 2).send().await.expect_status(201);
    let new = history("p").await.expect_status(200);
    assert_eq!(
        (new.header("cache-control"), &new.json()["since"]),
        (Some("no-cache"), &json!("2026-03-01T00:00:00.000000Z"))
    );
    sample_at("2026-03-01T00:00:10Z").await;
    put(&app, "p", 7).send().await.expect_status(200);
    put(&app, "q", 1).send().await.expect_status(201);
    app.append("/streams/Order/1", &["E"; 5]).await;
    sample_at("2026-03-01T00:00:20Z").await;
    let sample =
        |at: &str, head: u64, position: u64| json!({"at": at, "head": head, "last_processed_position": position});
    let found = history("p").await.expect_status(200).json();
    let samples = found["samples"].as_array().expect("samples");
    // Depending on the job, the projection also has a sample of the first time.
    let expected = [sample("2026-03-01T00:00:10.000000Z", 10, 2), sample("2026-03-01T00:00:20.000000Z", 15, 7)];
    assert_eq!(samples[samples.len() - 2..], expected);
    assert!(samples.len() <= 3, "{found}");
    let found = history("q").await.expect_status(200).json();
    assert_eq!(found["samples"], json!([sample("2026-03-01T00:00:20.000000Z", 15, 1)]));

    app.call("DELETE", "/projections/p").send().await.expect_status(204);
    history("p").await.expect_problem(404, "projection_not_found");
    sample_at("2026-03-01T00:00:30Z").await;
    put(&app, "p", 0).send().await.expect_status(201);
    assert_eq!(history("p").await.expect_status(200).json()["samples"], json!([]), "it is another projection");
    app.get("/projections/p/history?since=x").send().await.expect_invalid("parameter", "since");
    app.get("/projections/a%2Fb/history").send().await.expect_invalid("path", "projection_name");
    app.get("/projections/p/history").header("accept", "text/csv").send().await.expect_status(406);
}

#[tokio::test]
async fn the_lag_is_computed_across_sealed_partitions() {
    let (app, clock) = TestApp::start_at("2026-10-10T00:00:00Z").await;
    app.post("/streams/Order/1", &events(&["A", "B"])).send().await.expect_status(201);
    clock.set(at("2026-11-20T00:00:00Z"));
    app.post("/streams/Order/1", &events(&["C"])).send().await.expect_status(201);
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    put(&app, "old", 1).send().await.expect_status(201);
    put(&app, "new", 2).send().await.expect_status(201);
    let list = app.get("/projections").send().await.json();
    let of =
        |index: usize| (list["projections"][index]["lag"].clone(), list["projections"][index]["lag_seconds"].as_f64());
    let ((new_lag, new_seconds), (old_lag, old_seconds)) = (of(0), of(1));
    assert_eq!((new_lag, old_lag), (json!(1), json!(2)));
    // The first unprocessed events are of 10 October and of 20 November, which are 41 days apart.
    let days = (old_seconds.expect("seconds") - new_seconds.expect("seconds")) / 86_400.0;
    assert!((40.9..41.1).contains(&days) || new_seconds == Some(0.0), "{days}");
}

#[tokio::test]
async fn the_lag_is_a_metric() {
    let app = with_events(10).await;
    put(&app, "p", 4).send().await.expect_status(201);
    let wait_for_series = async |expected: Option<&str>| loop {
        let text = app.get("/metrics").send().await.text();
        if text.lines().find(|line| line.starts_with("annals_projection_lag_events{")) == expected {
            return;
        }
        pause_between_polls().await;
    };
    let series = "annals_projection_lag_events{projection=\"p\"} 6";
    within_a_minute("the series exists", wait_for_series(Some(series))).await;
    app.call("DELETE", "/projections/p").send().await.expect_status(204);
    within_a_minute("the series is removed", wait_for_series(None)).await;
}

#[tokio::test]
async fn the_projections_that_were_moved_last_have_a_series() {
    let app = with_events(10).await;
    let mut session = app.database.session().await;
    session
        .run(
            "INSERT INTO projection_positions (projection_name, last_processed_position, epoch, last_processed_at) \
             SELECT 'a-' || n, 1, 1, now() - interval '1 day' FROM generate_series(1, 205) n",
        )
        .await;
    put(&app, "zebra", 4).send().await.expect_status(201);
    let series = "annals_projection_lag_events{projection=\"zebra\"} 6";
    within_a_minute("the series exists", async {
        while !app.get("/metrics").send().await.text().lines().any(|line| line == series) {
            pause_between_polls().await;
        }
    })
    .await;
    let text = app.get("/metrics").send().await.text();
    assert_eq!(text.lines().filter(|line| line.starts_with("annals_projection_lag_events{")).count(), 200);
}

#[tokio::test]
async fn clients_that_create_and_move_one_projection_at_the_same_time_do_not_block_each_other() {
    let app = with_events(10).await;
    for round in 0..10 {
        let name = format!("p-{round}");
        let puts = (0..12).map(|n| put(&app, &name, n % 10).send());
        let replies = futures_util::future::join_all(puts).await;
        assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
        assert!(replies.iter().all(|reply| [200, 201, 409].contains(&reply.status)), "a deadlock is 503");
    }
}
