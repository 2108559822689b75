//! No promise: consumer groups, the contract of each route, and G8 to G14 of docs/explanation/consumer-groups.md. Random
//! histories are in `group_model.rs`.

use serde_json::{Value, json};

use crate::support::{Call, Reply, TestApp, TestOptions, pause_between_polls, within_a_minute};

/// Ends the lease of every open claim, by the step of a session.
const EXPIRE: &str = "
    INSERT INTO claims
    SELECT (jsonb_populate_record(c, jsonb_build_object(
               'step', c.step + 1, 'kind', 'changed', 'claim_key', NULL,
               'claimed_until', clock_timestamp() - interval '1 second'))).*
      FROM claims c
     WHERE c.claim_step IS NOT NULL
       AND NOT EXISTS (
               SELECT FROM claims l WHERE l.group_no = c.group_no AND l.partition = c.partition AND l.step > c.step)";

fn put(app: &TestApp, path: &str, body: &Value) -> Call {
    app.call("PUT", path).json(body)
}

async fn create(app: &TestApp, settings: Value) -> Value {
    put(app, "/groups/g", &settings).send().await.expect_status(201).json()
}

async fn claim(app: &TestApp) -> Value {
    app.call("POST", "/groups/g/claims").send().await.expect_status(201).json()
}

async fn expect_nothing(app: &TestApp) {
    app.call("POST", "/groups/g/claims").send().await.expect_status(204);
}

fn path(claim: &Value) -> String {
    format!("/groups/g/claims/{}", claim["claim_id"].as_str().expect("a claim"))
}

fn positions(claim: &Value) -> Vec<i64> {
    let events = claim["events"].as_array().expect("events");
    events.iter().map(|event| event["global_position"].as_i64().expect("a position")).collect()
}

async fn acknowledge(app: &TestApp, claim: &Value, to: i64) -> Value {
    put(app, &path(claim), &json!({"last_processed_position": to})).send().await.expect_status(200).json()
}

/// Acknowledges a claim to its end. Some of its events have failed.
async fn fail(app: &TestApp, claim: &Value, failed: Value) -> Value {
    let body = json!({"last_processed_position": claim["claimed_to"], "failed": failed});
    put(app, &path(claim), &body).send().await.expect_status(200).json()
}

async fn expire(app: &TestApp) {
    app.database.session().await.run(EXPIRE).await;
    group(app).await;
}

async fn group(app: &TestApp) -> Value {
    app.get("/groups/g").send().await.expect_status(200).json()
}

async fn parked(app: &TestApp) -> Vec<Value> {
    let list = app.get("/groups/g/parked").send().await.expect_status(200).json();
    list["parked_streams"].as_array().expect("a list").clone()
}

/// Starts a service with two events in each of two streams, at the positions 1 to 4.
async fn start() -> TestApp {
    let app = TestApp::start().await;
    for stream in ["a", "b", "a", "b"] {
        app.append(&format!("/streams/Order/{stream}"), &["Placed"]).await;
    }
    app
}

async fn other_process(app: &TestApp) -> TestApp {
    TestApp::start_on(app.database.clone(), TestOptions::default()).await
}

#[tokio::test]
async fn a_group_has_defaults_and_keeps_what_a_request_does_not_name() {
    let app = start().await;
    let made = put(&app, "/groups/g", &json!({})).send().await.expect_status(201);
    assert_eq!(made.header("etag"), Some("\"1\""));
    let made = made.json();
    let expected = json!({"filter": {}, "partitions": 16, "lease_seconds": 30, "retry_after": [1, 5, 30, 120, 600],
        "paused": false, "last_processed_position": 0, "lag": 4, "open_claims": 0, "parked_streams": 0,
        "parked_for_good": 0, "group_name": "g"});
    for (member, value) in expected.as_object().expect("an object") {
        assert_eq!(&made[member], value, "{member}");
    }
    assert_eq!(made["partition_states"].as_array().map(Vec::len), Some(16));

    let same = put(&app, "/groups/g", &json!({})).send().await.expect_status(200);
    assert_eq!(same.header("etag"), Some("\"1\""));
    let change = json!({"lease_seconds": 60, "retry_after": [], "paused": true, "filter": {}});
    let changed = put(&app, "/groups/g", &change).if_match(1).send().await.expect_status(200);
    assert_eq!(changed.header("etag"), Some("\"2\""));
    assert_eq!((&changed.json()["lease_seconds"], &changed.json()["paused"]), (&json!(60), &json!(true)));
    let conflict = put(&app, "/groups/g", &json!({})).if_match(1).send().await;
    assert_eq!(conflict.header("etag"), Some("\"2\""));
    assert_eq!(conflict.expect_problem(412, "version_conflict")["current_version"], 2);
    put(&app, "/groups/new", &json!({})).if_match(1).send().await.expect_problem(412, "version_conflict");
    let read = app.get("/groups/g").send().await.expect_status(200);
    assert_eq!((read.header("etag"), &read.json()["retry_after"]), (Some("\"2\""), &json!([])));
    expect_nothing(&app).await;
}

#[tokio::test]
async fn a_filter_never_changes_and_a_projection_is_no_group() {
    let app = start().await;
    create(&app, json!({"filter": {"aggregate_type": ["Order", "Cart"], "event_type": ["Placed"]}})).await;
    let same = json!({"filter": {"aggregate_type": ["Cart", "Order", "Cart"], "event_type": ["Placed"]}});
    put(&app, "/groups/g", &same).send().await.expect_status(200);
    let differs = put(&app, "/groups/g", &json!({"filter": {}})).send().await.expect_problem(409, "group_differs");
    assert_eq!(differs["filter"], json!({"aggregate_type": ["Cart", "Order"], "event_type": ["Placed"]}));

    let position = json!({"last_processed_position": 1});
    put(&app, "/projections/p", &position).send().await.expect_status(201);
    put(&app, "/groups/p", &json!({})).send().await.expect_problem(409, "group_differs");
    put(&app, "/projections/g", &position).send().await.expect_problem(409, "moved_by_group");
    app.call("DELETE", "/projections/g").send().await.expect_problem(409, "moved_by_group");
    app.get("/groups/p").send().await.expect_problem(404, "group_not_found");
    let names = app.get("/projections").send().await.expect_status(200).json();
    assert_eq!(names["projections"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn bad_settings_are_refused_with_their_place() {
    let app = start().await;
    app.get("/groups?after=a%00").send().await.expect_invalid("parameter", "after");
    for (body, pointer) in [
        (json!({"partitions": 3}), "/partitions"),
        (json!({"partitions": 0}), "/partitions"),
        (json!({"partitions": 512}), "/partitions"),
        (json!({"lease_seconds": 0}), "/lease_seconds"),
        (json!({"lease_seconds": 3601}), "/lease_seconds"),
        (json!({"retry_after": [1, -1]}), "/retry_after/1"),
        (json!({"retry_after": vec![1; 101]}), "/retry_after"),
        (json!({"paused": "yes"}), "/paused"),
        (json!({"last_processed_position": "end"}), "/last_processed_position"),
        (json!({"last_processed_position": -1}), "/last_processed_position"),
        (json!({"last_processed_position": 1.0}), "/last_processed_position"),
        (json!({"filter": {"aggregate_id": ["a"]}}), "/filter/aggregate_id"),
        (json!({"filter": {"aggregate_type": ["a/b"]}}), "/filter/aggregate_type/0"),
        (json!({"filter": {"event_type": [""]}}), "/filter/event_type/0"),
        (json!({"filter": {"occurred_from": "2026-01-01T00:00:00Z"}}), "/filter"),
        (json!({"unknown": 1}), ""),
    ] {
        let reply = put(&app, "/groups/g", &body).send().await;
        let problem = reply.expect_problem(400, "invalid_request");
        let found = problem["errors"][0]["pointer"].as_str().expect("a pointer").to_owned();
        assert!(found == pointer || found.starts_with(pointer) && pointer.len() < 8, "{body}: {problem}");
    }
    put(&app, "/groups/g?reset=true", &json!({})).send().await.expect_invalid("pointer", "/last_processed_position");
    put(&app, "/groups/g?reset=perhaps", &json!({})).send().await.expect_invalid("parameter", "reset");
    put(&app, "/groups/a%2Fb", &json!({})).send().await.expect_invalid("path", "group_name");
    let beyond = put(&app, "/groups/g", &json!({"last_processed_position": 5})).send().await;
    assert_eq!(beyond.expect_problem(422, "position_beyond_head")["head"], 4);
    app.get("/groups/g").send().await.expect_problem(404, "group_not_found");

    create(&app, json!({"partitions": 4})).await;
    put(&app, "/groups/g", &json!({"partitions": 2})).send().await.expect_invalid("pointer", "/partitions");
    for (method, path, kind, place) in [
        ("POST", "/groups/g/claims?limit=0", "parameter", "limit"),
        ("POST", "/groups/g/claims?limit=1001", "parameter", "limit"),
        ("POST", "/groups/g/claims?wait=61", "parameter", "wait"),
        ("POST", "/groups/g/claims?next=true", "parameter", "next"),
        ("GET", "/groups/g/claims/1.4", "path", "claim_id"),
        ("GET", "/groups/g/parked?after=Order", "parameter", "after"),
        ("GET", "/groups/g/parked?for_good=1", "parameter", "for_good"),
        ("GET", "/groups?limit=0", "parameter", "limit"),
    ] {
        app.call(method, path).send().await.expect_invalid(kind, place);
    }
    let worker = json!({"worker": ""});
    app.post("/groups/g/claims", &worker).send().await.expect_invalid("pointer", "/worker");
    let text = app.call("POST", "/groups/g/claims").body("x");
    text.send().await.expect_problem(415, "unsupported_media_type");
    app.call("POST", "/groups/unknown/claims").send().await.expect_problem(404, "group_not_found");
}

#[tokio::test]
async fn a_group_begins_at_a_position_or_at_the_head() {
    let app = start().await;
    create(&app, json!({"last_processed_position": 2, "partitions": 1})).await;
    assert_eq!(positions(&claim(&app).await), [3, 4]);
    let late = put(&app, "/groups/late", &json!({"last_processed_position": "head"})).send().await.expect_status(201);
    assert_eq!((&late.json()["last_processed_position"], &late.json()["lag"]), (&json!(4), &json!(0)));
    // For a group that exists, the position is not used.
    let again = put(&app, "/groups/g", &json!({"last_processed_position": 0})).send().await.expect_status(200);
    assert_eq!(again.json()["last_processed_position"], 2);
}

#[tokio::test]
async fn a_claim_has_the_events_of_one_partition_that_match_the_filter() {
    let app = start().await;
    app.append("/streams/Order/a", &["Cancelled", "Placed"]).await;
    app.append("/streams/Cart/a", &["Placed"]).await;
    create(&app, json!({"filter": {"aggregate_type": ["Order"], "event_type": ["Placed"]}, "partitions": 1})).await;
    let made = app.post("/groups/g/claims?limit=3", &json!({"worker": "w"})).send().await.expect_status(201);
    let claim = made.json();
    assert_eq!(made.header("location"), Some(path(&claim).as_str()));
    assert_eq!(positions(&claim), [1, 2, 3]);
    let expected = json!({"partition": 0, "worker": "w", "epoch": 1, "last_processed_position": 0, "claimed_to": 3,
        "retry": null});
    for (member, value) in expected.as_object().expect("an object") {
        assert_eq!(&claim[member], value, "{member}");
    }
    let event = app.get("/streams/Order/a/1").send().await.expect_status(200).json();
    assert_eq!(claim["events"][0], event);
    expect_nothing(&app).await;

    let open = app.get("/groups/g/claims").send().await.expect_status(200).json();
    assert_eq!((&open["claims"][0]["claim_id"], &open["claims"][0]["worker"]), (&claim["claim_id"], &json!("w")));
    assert_eq!(app.get(&path(&claim)).send().await.expect_status(200).json(), claim);
    let state = &group(&app).await["partition_states"][0];
    assert_eq!((&state["claim_id"], &state["worker"]), (&claim["claim_id"], &json!("w")));

    let body = json!({"last_processed_position": 3});
    let next = put(&app, &format!("{}?next=true", path(&claim)), &body).send().await.expect_status(200).json();
    assert_eq!(next["acknowledged"]["last_processed_position"], 3);
    assert_eq!((positions(&next["claim"]), &next["claim"]["worker"]), (vec![4, 6], &json!("w")));
    assert_eq!(acknowledge(&app, &next["claim"], 6).await["claim"], json!(null));
    let done = group(&app).await;
    assert_eq!(
        (&done["last_processed_position"], &done["lag"], &done["lag_seconds"]),
        (&json!(7), &json!(0), &json!(0.0))
    );
    app.get(&path(&claim)).send().await.expect_problem(404, "claim_not_found");
}

#[tokio::test]
async fn every_stream_belongs_to_the_partition_of_its_hash() {
    let app = TestApp::start().await;
    for n in 0..20 {
        app.append(&format!("/streams/Order/{n}"), &["Placed"]).await;
    }
    create(&app, json!({"partitions": 8})).await;
    let mut seen = Vec::new();
    loop {
        let reply = app.call("POST", "/groups/g/claims").send().await;
        if reply.status == 204 {
            break;
        }
        let claim = reply.expect_status(201).json();
        for event in claim["events"].as_array().expect("events") {
            let id = event["aggregate_id"].as_str().expect("an id");
            let hash = <sha2::Sha256 as sha2::Digest>::digest(format!("Order/{id}").as_bytes());
            assert_eq!(i64::from(hash[0] % 8), claim["partition"], "{id}");
            seen.push(event["global_position"].as_i64().expect("a position"));
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_partial_acknowledgement_returns_the_rest_and_the_end_of_the_claim_is_its_last_event() {
    let app = start().await;
    create(&app, json!({"partitions": 1})).await;
    let first = claim(&app).await;
    let rest = acknowledge(&app, &first, 2).await;
    assert_eq!(rest["claim"]["claim_id"], first["claim_id"]);
    assert_eq!((positions(&rest["claim"]), &rest["claim"]["last_processed_position"]), (vec![3, 4], &json!(2)));
    // With `next`, it is the same claim, too.
    let body = json!({"last_processed_position": 2});
    let same = put(&app, &format!("{}?next=true", path(&first)), &body).send().await.expect_status(200).json();
    assert_eq!((&same["claim"]["claim_id"], positions(&same["claim"])), (&first["claim_id"], vec![3, 4]));
    let regressed = put(&app, &path(&first), &json!({"last_processed_position": 1})).send().await;
    assert_eq!(regressed.expect_problem(409, "position_regressed")["current_position"], 2);
    let beyond = put(&app, &path(&first), &json!({"last_processed_position": 5})).send().await;
    assert_eq!(beyond.expect_problem(422, "position_beyond_claim")["last_position"], 4);
    let released = json!({"last_processed_position": 3, "release": true});
    let released = put(&app, &path(&first), &released).send().await.expect_status(200).json();
    assert_eq!(released["claim"], json!(null));
    assert_eq!(positions(&claim(&app).await), [4]);
}

#[tokio::test]
async fn bad_acknowledgements_are_refused_and_change_nothing() {
    let app = start().await;
    create(&app, json!({"partitions": 1})).await;
    let claim = claim(&app).await;
    let failure = |position: i64| json!({"global_position": position, "reason": "it failed"});
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"last_processed_position": -1}), "/last_processed_position"),
        (json!({"last_processed_position": 2, "failed": [failure(1), failure(3)]}), "/failed/1/global_position"),
        (json!({"last_processed_position": 2, "failed": [failure(0)]}), "/failed/0/global_position"),
        (json!({"last_processed_position": 2, "failed": [{"global_position": 1, "reason": " "}]}), "/failed/0/reason"),
        (
            json!({"last_processed_position": 2, "failed": [{"global_position": 1, "reason": "x", "retry_after": -1}]}),
            "/failed/0/retry_after",
        ),
        (json!({"last_processed_position": 2, "retry_after": 90000}), "/retry_after"),
        (json!({"last_processed_position": 2, "failed": [{"global_position": 1}]}), "/failed/0"),
    ] {
        put(&app, &path(&claim), &body).send().await.expect_invalid("pointer", pointer);
    }
    let body = json!({"last_processed_position": 2});
    let next = put(&app, &format!("{}?next=1", path(&claim)), &body).send().await;
    next.expect_invalid("parameter", "next");
    assert_eq!(group(&app).await["last_processed_position"], 0);
    assert_eq!(app.get(&path(&claim)).send().await.expect_status(200).json()["last_processed_position"], 0);
    let unknown = put(&app, "/groups/g/claims/1.0.9999", &body).send().await.expect_problem(409, "claim_lost");
    assert_eq!(unknown["last_processed_position"], 0);
}

#[tokio::test]
async fn a_key_finds_its_open_claim_in_every_process() {
    let app = start().await;
    let other = other_process(&app).await;
    create(&app, json!({"partitions": 1})).await;
    let ask = |app: &TestApp| app.call("POST", "/groups/g/claims?limit=2").header("idempotency-key", "k");
    let first = ask(&app).send().await.expect_status(201).json();
    let again = ask(&other).send().await.expect_status(200);
    assert_eq!((again.header("idempotent-replayed"), &again.json()), (Some("true"), &first));
    acknowledge(&app, &first, 1).await;
    assert_eq!(positions(&ask(&other).send().await.expect_status(200).json()), [2]);
    acknowledge(&app, &first, 2).await;
    let next = ask(&other).send().await.expect_status(201).json();
    assert_ne!(next["claim_id"], first["claim_id"]);

    // Of many requests at the same time, one makes the claim.
    acknowledge(&app, &next, 4).await;
    app.append("/streams/Order/a", &["Placed"]).await;
    let many = (0..8).map(|n| ask(if n % 2 == 0 { &app } else { &other }).send());
    let replies = futures_util::future::join_all(many).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1, "{replies:?}");
    let ids: std::collections::HashSet<String> =
        replies.iter().map(|reply| reply.json()["claim_id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn a_repeated_acknowledgement_gets_the_first_answer_in_every_process() {
    let app = start().await;
    let other = other_process(&app).await;
    create(&app, json!({"partitions": 1})).await;
    let first = claim(&app).await;
    let body = json!({"last_processed_position": 4, "failed": [{"global_position": 3, "reason": "it failed"}]});
    let repeated = format!("{}?next=true", path(&first));
    app.append("/streams/Order/b", &["Placed"]).await;
    let answer = put(&app, &repeated, &body).send().await.expect_status(200);
    assert_eq!(answer.header("idempotent-replayed"), None);
    assert_eq!(answer.json()["acknowledged"]["parked_streams"], 1);
    assert_eq!(positions(&answer.json()["claim"]), [5]);
    for app in [&other, &app] {
        let again = put(app, &repeated, &body).send().await.expect_status(200);
        assert_eq!((again.header("idempotent-replayed"), again.json()), (Some("true"), answer.json()));
    }
    assert_eq!(parked(&app).await.len(), 1);
    // Another position was never acknowledged.
    let other_position = json!({"last_processed_position": 3});
    put(&app, &path(&first), &other_position).send().await.expect_problem(409, "claim_lost");
    // A reset ends what was accepted.
    acknowledge(&app, &answer.json()["claim"], 5).await;
    let reset = json!({"last_processed_position": 0});
    put(&app, "/groups/g?reset=true", &reset).send().await.expect_status(200);
    put(&app, &repeated, &body).send().await.expect_problem(409, "claim_lost");
}

#[tokio::test]
async fn a_repeated_acknowledgement_of_an_open_claim_extends_the_lease_or_ends_the_claim() {
    let app = start().await;
    create(&app, json!({"partitions": 1})).await;
    let first = claim(&app).await;
    let mut body = json!({"last_processed_position": 2, "failed": [{"global_position": 1, "reason": "it failed"}]});
    let answer = put(&app, &path(&first), &body).send().await.expect_status(200).json();
    let again = put(&app, &path(&first), &body).send().await.expect_status(200);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.json()["acknowledged"], answer["acknowledged"]);
    let until = |answer: &Value| answer["claim"]["claimed_until"].as_str().expect("a time").to_owned();
    assert!(until(&again.json()) > until(&answer), "{answer}");
    assert_eq!(parked(&app).await.len(), 1);
    body["release"] = json!(true);
    let released = put(&app, &path(&first), &body).send().await.expect_status(200).json();
    assert_eq!((&released["acknowledged"], &released["claim"]), (&answer["acknowledged"], &Value::Null));
    assert_eq!(group(&app).await["open_claims"], 0);
}

/// A failover may lose the last steps of a group and no event. Then another process takes other steps with their numbers.
#[tokio::test]
async fn a_step_that_a_failover_replaced_is_no_base_of_the_next_one() {
    let app = start().await;
    create(&app, json!({"partitions": 1})).await;
    let first = claim(&app).await;
    let replace = "
        UPDATE claims
           SET kind = 'advanced', claim_step = NULL, claimed_to = NULL, claimed_until = NULL, last_processed_position = 3,
               stepped_at = stepped_at + interval '1 millisecond'
         WHERE claim_step = step";
    app.database.session().await.run(replace).await;
    let body = json!({"last_processed_position": 1});
    let lost = put(&app, &path(&first), &body).send().await.expect_problem(409, "claim_lost");
    assert_eq!(lost["last_processed_position"], 3);
    assert_eq!(positions(&claim(&app).await), [4]);
}

#[tokio::test]
async fn an_expired_lease_still_counts_until_the_partition_is_claimed_again() {
    let app = start().await;
    create(&app, json!({"partitions": 1})).await;
    let first = claim(&app).await;
    expire(&app).await;
    assert_eq!(group(&app).await["open_claims"], 1);
    assert_eq!(acknowledge(&app, &first, 1).await["claim"]["claim_id"], first["claim_id"]);
    expire(&app).await;
    let second = app.post("/groups/g/claims", &json!({"worker": "w2"})).send().await.expect_status(201).json();
    let lost = put(&app, &path(&first), &json!({"last_processed_position": 4})).send().await;
    let lost = lost.expect_problem(409, "claim_lost");
    assert_eq!((&lost["last_processed_position"], &lost["claimed_by"]), (&json!(1), &json!("w2")));
    assert_eq!(positions(&second), [2], "one event a claim after an expired lease");
    app.call("DELETE", &path(&first)).send().await.expect_status(204);
    assert_eq!(app.get(&path(&second)).send().await.expect_status(200).json()["claim_id"], second["claim_id"]);
}

#[tokio::test]
async fn an_event_that_no_worker_finishes_is_parked_and_the_batch_around_it_is_processed() {
    let app = start().await;
    app.append("/streams/Order/c", &["Placed"]).await;
    create(&app, json!({"partitions": 1, "retry_after": [0, 0]})).await;
    // The event at position 2 kills each worker that gets it.
    let (mut leases, mut processed) = (0, Vec::new());
    loop {
        let reply = app.call("POST", "/groups/g/claims").send().await;
        if reply.status == 204 {
            break;
        }
        let claim = reply.expect_status(201).json();
        if positions(&claim).contains(&2) {
            leases += 1;
            expire(&app).await;
        } else {
            processed.extend(positions(&claim));
            acknowledge(&app, &claim, claim["claimed_to"].as_i64().expect("a position")).await;
        }
    }
    assert_eq!((leases, processed), (3, vec![1, 3, 5]));
    let parked = parked(&app).await;
    let expected = json!({"aggregate_id": "b", "global_position": 2, "attempts": 3, "reason": "no worker finished it",
        "retry_at": null, "waiting": 1, "last_processed_position": 1});
    for (member, value) in expected.as_object().expect("an object") {
        assert_eq!(&parked[0][member], value, "{member}");
    }
    let group = group(&app).await;
    assert_eq!((&group["parked_for_good"], &group["last_processed_position"]), (&json!(1), &json!(5)));
}

#[tokio::test]
async fn a_failed_stream_waits_and_the_others_continue() {
    let app = start().await;
    create(&app, json!({"partitions": 1, "retry_after": [0, 3600]})).await;
    let first = claim(&app).await;
    let answer = fail(&app, &first, json!([{"global_position": 1, "reason": "card declined"}])).await;
    assert_eq!(answer["acknowledged"]["parked_streams"], 1);
    // Later events of the stream wait, in the position of the group they count as processed.
    app.append("/streams/Order/a", &["Placed"]).await;
    app.append("/streams/Order/b", &["Placed"]).await;
    let retry = claim(&app).await;
    assert_eq!((positions(&retry), &retry["last_processed_position"]), (vec![1, 3], &json!(0)));
    assert_eq!(
        retry["retry"],
        json!({"aggregate_type": "Order", "aggregate_id": "a", "attempts": 1, "reason": "card declined"})
    );
    fail(&app, &retry, json!([{"global_position": 1, "reason": "card declined again"}])).await;
    let new = claim(&app).await;
    assert_eq!(positions(&new), [6]);
    acknowledge(&app, &new, 6).await;
    expect_nothing(&app).await;
    let state = group(&app).await;
    assert_eq!((&state["last_processed_position"], &state["parked_streams"]), (&json!(6), &json!(1)));
    let parked = parked(&app).await;
    assert_eq!((&parked[0]["attempts"], &parked[0]["reason"]), (&json!(2), &json!("card declined again")));
    assert_eq!((&parked[0]["waiting"], &parked[0]["event_type"]), (&json!(2), &json!("Placed")));
    let one = app.get("/groups/g/parked/Order/a").send().await.expect_status(200);
    assert_eq!(one.header("etag"), Some("\"0\""));
    assert_eq!(one.json()["event"], app.get("/streams/Order/a/1").send().await.expect_status(200).json());

    // An operator tries it again, and all of its events are processed, in order.
    let retried = app.post("/groups/g/retries", &json!({"reason": "card declined again"})).send().await;
    assert_eq!(retried.expect_status(200).json(), json!({"parked_streams": 1}));
    let retry = claim(&app).await;
    assert_eq!(positions(&retry), [1, 3, 5]);
    acknowledge(&app, &retry, 5).await;
    assert_eq!(group(&app).await["parked_streams"], 0);
    app.get("/groups/g/parked/Order/a").send().await.expect_problem(404, "parked_stream_not_found");
}

#[tokio::test]
async fn an_event_that_fails_too_often_waits_for_an_operator() {
    let app = start().await;
    create(&app, json!({"partitions": 1, "retry_after": [0]})).await;
    let first = claim(&app).await;
    fail(&app, &first, json!([{"global_position": 1, "reason": "one"}])).await;
    let retry = claim(&app).await;
    fail(&app, &retry, json!([{"global_position": 1, "reason": "two"}])).await;
    assert_eq!(parked(&app).await[0]["retry_at"], json!(null));
    expect_nothing(&app).await;
    let for_good = app.get("/groups/g/parked?for_good=true").send().await.expect_status(200).json();
    assert_eq!(for_good["parked_streams"].as_array().map(Vec::len), Some(1));

    // The attempts of a later event of the stream begin again.
    app.call("POST", "/groups/g/retries").send().await.expect_status(200);
    let retry = claim(&app).await;
    fail(&app, &retry, json!([{"global_position": 3, "reason": "three", "retry_after": 60}])).await;
    let parked_now = parked(&app).await;
    assert_eq!((&parked_now[0]["attempts"], &parked_now[0]["global_position"]), (&json!(1), &json!(3)));
    assert!(parked_now[0]["retry_at"].is_string());

    // A worker may leave the decision to an operator at once.
    app.append("/streams/Order/b", &["Placed"]).await;
    let new = claim(&app).await;
    fail(&app, &new, json!([{"global_position": 5, "reason": "four", "retry_after": null}])).await;
    assert_eq!(parked(&app).await[1]["retry_at"], json!(null));
    let page = app.get("/groups/g/parked?limit=1").send().await.expect_status(200).json();
    let next = page["next"].as_str().expect("a link").to_owned();
    let page = app.get(&next).send().await.expect_status(200).json();
    assert_eq!((&page["parked_streams"][0]["aggregate_id"], &page["next"]), (&json!("b"), &json!(null)));
    let of_type = app.get("/groups/g/parked?aggregate_type=Cart").send().await.expect_status(200).json();
    assert_eq!(of_type["parked_streams"], json!([]));
}

#[tokio::test]
async fn two_failures_of_a_stream_count_as_the_earlier_one() {
    let app = start().await;
    create(&app, json!({"partitions": 1, "retry_after": []})).await;
    let first = claim(&app).await;
    let failed = json!([{"global_position": 3, "reason": "later"}, {"global_position": 1, "reason": "earlier"}]);
    assert_eq!(fail(&app, &first, failed).await["acknowledged"]["parked_streams"], 1);
    let parked = parked(&app).await;
    assert_eq!((&parked[0]["global_position"], &parked[0]["reason"]), (&json!(1), &json!("earlier")));
}

#[tokio::test]
async fn an_operator_skips_events_of_a_parked_stream() {
    let app = start().await;
    create(&app, json!({"partitions": 1, "retry_after": []})).await;
    let first = claim(&app).await;
    fail(&app, &first, json!([{"global_position": 1, "reason": "it failed"}])).await;
    let of = "/groups/g/parked/Order/a";
    let to = |position: i64| put(&app, of, &json!({"last_processed_position": position}));
    let conflict = to(1).if_match(7).send().await;
    assert_eq!(conflict.header("etag"), Some("\"0\""));
    assert_eq!(conflict.expect_problem(412, "position_conflict")["current_position"], 0);
    assert_eq!(to(5).send().await.expect_problem(422, "position_beyond_claim")["last_position"], 4);
    to(-1).send().await.expect_invalid("pointer", "/last_processed_position");
    put(&app, "/groups/g/parked/Order/b", &json!({"last_processed_position": 1}))
        .send()
        .await
        .expect_problem(404, "parked_stream_not_found");

    let skipped = to(1).if_match(0).send().await.expect_status(200);
    assert_eq!((skipped.header("etag"), &skipped.json()["global_position"]), (Some("\"1\""), &json!(3)));
    to(0).send().await.expect_problem(409, "position_regressed");
    let retry = claim(&app).await;
    assert_eq!((positions(&retry), &retry["retry"]["attempts"]), (vec![3], &json!(0)));
    app.call("DELETE", &path(&retry)).send().await.expect_status(204);
    // Nothing is left of the stream.
    to(4).send().await.expect_status(200);
    assert_eq!(parked(&app).await, [json!(null); 0]);
    expect_nothing(&app).await;
}

#[tokio::test]
async fn partitions_double_and_a_group_is_reset_only_while_no_claim_is_open() {
    let app = start().await;
    create(&app, json!({"partitions": 1, "retry_after": []})).await;
    let first = claim(&app).await;
    for (path, body) in
        [("/groups/g", json!({"partitions": 2})), ("/groups/g?reset=true", json!({"last_processed_position": 0}))]
    {
        let open = put(&app, path, &body).send().await;
        let after: u64 = open.header("retry-after").expect("a number of seconds").parse().expect("a number");
        assert!((1..=30).contains(&after), "{after}");
        open.expect_problem(409, "claims_open");
    }
    fail(&app, &first, json!([{"global_position": 1, "reason": "it failed"}])).await;
    let doubled = put(&app, "/groups/g", &json!({"partitions": 8})).send().await.expect_status(200).json();
    assert_eq!((&doubled["partitions"], &doubled["parked_streams"]), (&json!(8), &json!(1)));
    let parked_in: i64 = doubled["partition_states"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|p| p["parked_streams"].as_i64())
        .sum();
    assert_eq!(parked_in, 1);
    expect_nothing(&app).await;

    // An expired claim does not prevent it, and ends.
    app.append("/streams/Order/b", &["Placed"]).await;
    let second = claim(&app).await;
    expire(&app).await;
    let reset = json!({"last_processed_position": 2});
    let reset = put(&app, "/groups/g?reset=true", &reset).send().await.expect_status(200).json();
    assert_eq!((&reset["last_processed_position"], &reset["parked_streams"]), (&json!(2), &json!(0)));
    put(&app, &path(&second), &json!({"last_processed_position": 5})).send().await.expect_problem(409, "claim_lost");
    let mut again = Vec::new();
    while let reply = app.call("POST", "/groups/g/claims").send().await
        && reply.status == 201
    {
        again.extend(positions(&reply.json()));
    }
    again.sort_unstable();
    assert_eq!(again, [3, 4, 5]);
}

#[tokio::test]
async fn a_pause_takes_effect_in_every_process_at_once() {
    let app = start().await;
    let other = other_process(&app).await;
    create(&app, json!({"partitions": 1})).await;
    let first = other.call("POST", "/groups/g/claims?limit=1").send().await.expect_status(201).json();
    put(&app, "/groups/g", &json!({"paused": true})).send().await.expect_status(200);
    // The open claim can be acknowledged, and the next one is not handed out.
    let body = json!({"last_processed_position": 1});
    let answer = put(&other, &format!("{}?next=true", path(&first)), &body).send().await.expect_status(200).json();
    assert_eq!(answer["claim"], json!(null));
    other.call("POST", "/groups/g/claims").send().await.expect_status(204);
    put(&app, "/groups/g", &json!({"paused": false})).send().await.expect_status(200);
    assert_eq!(positions(&other.call("POST", "/groups/g/claims").send().await.expect_status(201).json()), [2, 3, 4]);
}

#[tokio::test]
async fn the_id_of_a_claim_never_repeats() {
    let app = start().await;
    create(&app, json!({"partitions": 1})).await;
    let first = claim(&app).await;
    acknowledge(&app, &first, 4).await;
    let reset = json!({"last_processed_position": 0});
    put(&app, "/groups/g?reset=true", &reset).send().await.expect_status(200);
    let second = claim(&app).await;
    app.call("DELETE", "/groups/g").send().await.expect_status(204);
    app.get("/projections/g").send().await.expect_problem(404, "projection_not_found");
    // A claim of a deleted group is lost.
    put(&app, &path(&second), &json!({"last_processed_position": 4})).send().await.expect_problem(409, "claim_lost");
    app.call("DELETE", &path(&second)).send().await.expect_status(204);
    put(&app, "/groups/never/claims/1.0.900", &json!({"last_processed_position": 4}))
        .send()
        .await
        .expect_problem(404, "group_not_found");
    app.call("DELETE", "/groups/g").send().await.expect_problem(404, "group_not_found");
    create(&app, json!({"partitions": 1})).await;
    put(&app, &path(&second), &json!({"last_processed_position": 4})).send().await.expect_problem(409, "claim_lost");
    let number = |claim: &Value| -> i64 {
        claim["claim_id"].as_str().and_then(|id| id.rsplit('.').next()?.parse().ok()).expect("a number")
    };
    let third = claim(&app).await;
    assert!(number(&first) < number(&second) && number(&second) < number(&third));
}

#[tokio::test]
async fn a_waiting_worker_gets_what_becomes_available() {
    let app = start().await;
    let other = other_process(&app).await;
    create(&app, json!({"partitions": 1, "lease_seconds": 1, "retry_after": [1]})).await;
    let ask = |app: &TestApp| app.call("POST", "/groups/g/claims?wait=30").send();
    // The lease of a worker that has crashed ends.
    let crashed = claim(&app).await;
    let claimed: Reply = within_a_minute("a lease ends", ask(&other)).await;
    let second = claimed.expect_status(201).json();
    assert_eq!(positions(&second)[0], positions(&crashed)[0]);
    // A claim is released by another process, and later the pause before a retry is over.
    let (released, claimed) =
        tokio::join!(app.call("DELETE", &path(&second)).send(), within_a_minute("a claim is released", ask(&app)));
    released.expect_status(204);
    let third = claimed.expect_status(201).json();
    put(&app, "/groups/g", &json!({"lease_seconds": 3600})).send().await.expect_status(200);
    let body = json!({"last_processed_position": third["claimed_to"], "retry_after": 1,
        "failed": [{"global_position": third["claimed_to"], "reason": "it failed"}]});
    put(&app, &path(&third), &body).send().await.expect_status(200);
    let next = within_a_minute("the partition has rested", ask(&other)).await.expect_status(201).json();
    acknowledge(&app, &next, next["claimed_to"].as_i64().expect("a position")).await;
    loop {
        let reply = app.call("POST", "/groups/g/claims").send().await;
        if reply.status == 204 {
            break;
        }
        let claim = reply.json();
        acknowledge(&app, &claim, claim["claimed_to"].as_i64().expect("a position")).await;
    }
    // New events wake it, also those that another process has appended.
    for writer in [&app, &other] {
        let (claimed, _) = tokio::join!(
            within_a_minute("an event is appended", ask(&app)),
            writer.append("/streams/Order/z", &["Placed"])
        );
        let claim = claimed.expect_status(201).json();
        acknowledge(&app, &claim, claim["claimed_to"].as_i64().expect("a position")).await;
    }
}

#[tokio::test]
async fn a_claim_has_all_events_that_are_committed() {
    let app = TestApp::start().await;
    create(&app, json!({"partitions": 1})).await;
    // The process has examined the log up to the first event, and has handed it out.
    app.append("/streams/Order/a", &["Placed"]).await;
    let first = app.call("POST", "/groups/g/claims?wait=60").send().await.expect_status(201).json();
    app.append("/streams/Order/a", &["Placed"]).await;
    app.call("DELETE", &path(&first)).send().await.expect_status(204);
    app.append("/streams/Order/b", &["Placed", "Placed"]).await;
    let mut tail = app.app.feed.tail();
    within_a_minute("the tailer has the events", tail.wait_for(|tail| *tail == 4)).await.expect("a tail");
    assert_eq!(positions(&claim(&app).await), [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_worker_that_hangs_up_leaves_no_claim() {
    let app = TestApp::start().await;
    app.append("/streams/Cart/1", &["Placed"]).await;
    create(&app, json!({"filter": {"aggregate_type": ["Order"]}, "partitions": 1})).await;
    let waiting = tokio::spawn(app.call("POST", "/groups/g/claims?wait=60").send());
    within_a_minute("a worker waits", async {
        while app.app.feed.waiting_claims() == 0 {
            pause_between_polls().await;
        }
    })
    .await;
    waiting.abort();
    within_a_minute("the worker has left", async {
        while app.app.feed.waiting_claims() > 0 {
            pause_between_polls().await;
        }
    })
    .await;
    app.append("/streams/Order/1", &["Placed"]).await;
    assert_eq!(positions(&claim(&app).await), [2]);
}

#[tokio::test]
async fn waiting_workers_count_as_subscribers() {
    let mut options = TestOptions::default();
    options.settings.feed.subscribers = 1;
    let app = TestApp::start_with(options).await;
    create(&app, json!({})).await;
    let _subscriber = app.subscribe("/events").await;
    expect_nothing(&app).await;
    app.call("POST", "/groups/g/claims?wait=1").send().await.expect_problem(503, "too_many_subscribers");
}

#[tokio::test]
async fn clients_wait_for_a_group_as_for_a_projection() {
    let app = start().await;
    let other = other_process(&app).await;
    create(&app, json!({"partitions": 4})).await;
    let wait = other.get("/projections/g?wait_for=4&timeout=30").send();
    let work = async {
        while let reply = app.call("POST", "/groups/g/claims").send().await
            && reply.status == 201
        {
            let claim = reply.json();
            acknowledge(&app, &claim, claim["claimed_to"].as_i64().expect("a position")).await;
        }
    };
    let (waited, ()) = tokio::join!(within_a_minute("the group has processed everything", wait), work);
    let waited = waited.expect_status(200).json();
    assert_eq!((&waited["last_processed_position"], &waited["lag"]), (&json!(4), &json!(0)));
    let list = app.get("/groups").send().await.expect_status(200).json();
    assert_eq!((&list["groups"][0]["group_name"], &list["next"]), (&json!("g"), &json!(null)));
    put(&app, "/groups/h", &json!({})).send().await.expect_status(201);
    let page = app.get("/groups?limit=1").send().await.expect_status(200).json();
    let next = app.get(page["next"].as_str().expect("a link")).send().await.expect_status(200).json();
    assert_eq!(next["groups"][0]["group_name"], "h");
}

#[tokio::test]
async fn steps_update_no_row_and_need_no_append_lock() {
    let app = start().await;
    create(&app, json!({"partitions": 1})).await;
    let (mut holder, mut session) = (app.database.session().await, app.database.session().await);
    let refuse =
        "CREATE TRIGGER refuse_updates BEFORE UPDATE ON claims FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()";
    session.run(refuse).await;
    holder.hold_append_lock().await;
    for _ in 0..3 {
        let claim = app.call("POST", "/groups/g/claims?limit=1").send().await.expect_status(201).json();
        acknowledge(&app, &claim, claim["claimed_to"].as_i64().expect("a position")).await;
    }
    holder.rollback().await;
    let privilege = "SELECT has_table_privilege('annals_app', 'claims', 'UPDATE')::integer::bigint";
    assert_eq!(session.number(privilege).await, 0);
}

#[tokio::test]
async fn a_claim_is_of_the_current_epoch_and_an_older_one_is_told_what_was_lost() {
    let app = start().await;
    create(&app, json!({"partitions": 1})).await;
    let first = app.call("POST", "/groups/g/claims?limit=2").send().await.expect_status(201).json();
    app.app.primary.begin_epoch("a test").await.expect("the epoch begins");
    // The log has not lost what the claim has.
    acknowledge(&app, &first, 2).await;
    let second = claim(&app).await;
    assert!(second["epoch"].as_i64().expect("an epoch") > 1, "{second}");
    assert_eq!(second["claim_id"].as_str().and_then(|id| id.split('.').next()), Some(&*second["epoch"].to_string()));

    // As if the log had lost the last event, and with it the step of a claim.
    let mut session = app.database.session().await;
    session.run("UPDATE epochs SET first_position = 4 WHERE epoch > 1").await;
    let lost = put(&app, "/groups/g/claims/1.0.777", &json!({"last_processed_position": 4})).send().await;
    assert_eq!(lost.expect_problem(409, "epoch_changed")["rewind_to"], 3);
    put(&app, "/groups/g/claims/1.0.777", &json!({"last_processed_position": 3}))
        .send()
        .await
        .expect_problem(409, "claim_lost");
}

#[tokio::test]
async fn old_steps_are_deleted_and_those_of_an_open_claim_are_not() {
    let app = start().await;
    create(&app, json!({"partitions": 1})).await;
    let first = app.call("POST", "/groups/g/claims?limit=1").send().await.expect_status(201).json();
    acknowledge(&app, &first, 1).await;
    let open = app.call("POST", "/groups/g/claims?limit=2").header("idempotency-key", "k").send().await;
    let open = open.expect_status(201).json();
    acknowledge(&app, &open, 2).await;
    let mut session = app.database.session().await;
    session.run("UPDATE claims SET stepped_at = stepped_at - interval '11 minutes'").await;
    app.app.groups.delete_old_steps().await.expect("the steps are deleted");
    assert_eq!(session.number("SELECT count(*) FROM claims").await, 2);
    let again = app.call("POST", "/groups/g/claims").header("idempotency-key", "k").send().await.expect_status(200);
    assert_eq!(again.json()["claim_id"], open["claim_id"]);
    acknowledge(&app, &open, 3).await;

    app.call("DELETE", "/groups/g").send().await.expect_status(204);
    session.run("UPDATE claims SET stepped_at = stepped_at - interval '11 minutes'").await;
    app.app.groups.delete_old_steps().await.expect("the steps are deleted");
    assert_eq!(session.number("SELECT count(*) FROM claims").await, 0);
}

#[tokio::test]
async fn a_partition_without_waiting_events_is_moved_by_upkeep() {
    let app = start().await;
    create(&app, json!({"filter": {"aggregate_type": ["Cart"]}, "partitions": 1})).await;
    expect_nothing(&app).await;
    let mut session = app.database.session().await;
    let stored = "SELECT max(last_processed_position) FROM claims";
    app.app.groups.maintain().await.expect("the groups are maintained");
    assert_eq!(session.number(stored).await, 0);
    session.run("UPDATE claims SET stepped_at = stepped_at - interval '2 minutes'").await;
    // A process that has not read the states yet.
    let other = other_process(&app).await;
    within_a_minute("the position is stored", async {
        while session.number(stored).await < 4 {
            other.app.groups.maintain().await.expect("the groups are maintained");
        }
    })
    .await;
    assert_eq!(session.number("SELECT last_processed_position FROM projection_positions").await, 4);
}

#[tokio::test]
async fn a_group_reads_behind_the_window_of_another_partition() {
    // A worker holds the claim of one partition, while other workers process more events than the window can hold.
    let mut options = TestOptions::default();
    options.settings.feed.group_bytes = 1;
    let app = TestApp::start_with(options).await;
    for n in 0..8 {
        app.append(&format!("/streams/Order/{n}"), &["Placed"]).await;
    }
    create(&app, json!({"partitions": 2})).await;
    let held = app.call("POST", "/groups/g/claims?limit=1").send().await.expect_status(201).json();
    let mut processed = Vec::new();
    while let reply = app.call("POST", "/groups/g/claims?limit=2").send().await
        && reply.status == 201
    {
        let claim = reply.json();
        assert_ne!(claim["partition"], held["partition"]);
        processed.extend(positions(&claim));
        acknowledge(&app, &claim, claim["claimed_to"].as_i64().expect("a position")).await;
    }
    app.call("DELETE", &path(&held)).send().await.expect_status(204);
    while let reply = app.call("POST", "/groups/g/claims?limit=2").send().await
        && reply.status == 201
    {
        let claim = reply.json();
        processed.extend(positions(&claim));
        acknowledge(&app, &claim, claim["claimed_to"].as_i64().expect("a position")).await;
    }
    processed.sort_unstable();
    assert_eq!(processed, (1..=8).collect::<Vec<_>>());
    assert_eq!(group(&app).await["lag"], 0);
}

/// Starts a service that requires keys. Returns it with a function that makes a key with grants.
async fn start_with_keys() -> TestApp {
    let mut options = TestOptions::default();
    options.settings.needs_keys = true;
    TestApp::start_with(options).await
}

async fn key(app: &TestApp, grants: &[&str]) -> String {
    let grants: Vec<_> = grants.iter().map(|grant| grant.parse().expect("a grant")).collect();
    let quotas = annals::domain::quota::Quotas::default();
    let (key, new) = annals::keyring::generate("a test".to_owned(), &grants, quotas, None).expect("randomness");
    app.app.primary.create_key(&new).await.expect("the key is stored");
    app.app.keyring.refresh(&app.app.primary).await.expect("the keys are read");
    format!("Bearer {key}")
}

#[tokio::test]
async fn a_key_needs_its_scopes_on_all_types_of_the_filter() {
    let app = start_with_keys().await;
    let admin = key(&app, &["admin:*"]).await;
    let with = |key: &str, method: &str, path: &str| app.call(method, path).header("authorization", key);
    for aggregate_type in ["Order", "Cart"] {
        let body = crate::support::events(&["Placed"]);
        with(&admin, "POST", &format!("/streams/{aggregate_type}/1")).json(&body).send().await.expect_status(201);
    }
    let of_orders = json!({"filter": {"aggregate_type": ["Order"]}, "partitions": 1, "retry_after": []});
    let manager = key(&app, &["admin:Order", "project:orders*"]).await;
    with(&manager, "PUT", "/groups/orders").json(&of_orders).send().await.expect_status(201);
    with(&manager, "PUT", "/groups/orders-all").json(&json!({})).send().await.expect_problem(403, "forbidden");
    with(&manager, "PUT", "/groups/carts").json(&of_orders).send().await.expect_problem(403, "forbidden");
    with(&admin, "PUT", "/groups/all").json(&json!({})).send().await.expect_status(201);

    let worker = key(&app, &["read:Order", "project:orders"]).await;
    let claim = with(&worker, "POST", "/groups/orders/claims").send().await.expect_status(201).json();
    let path = format!("/groups/orders/claims/{}", claim["claim_id"].as_str().expect("a claim"));
    let body = json!({"last_processed_position": claim["claimed_to"],
        "failed": [{"global_position": claim["claimed_to"], "reason": "it failed"}]});
    with(&worker, "PUT", &path).json(&body).send().await.expect_status(200);
    let of_all = key(&app, &["read:Order", "project:*"]).await;
    // A group of all types hands out nothing to it, not even the events that it may read.
    with(&of_all, "POST", "/groups/all/claims").send().await.expect_problem(403, "forbidden");
    with(&of_all, "GET", "/groups/all/claims").send().await.expect_problem(403, "forbidden");
    with(&of_all, "GET", "/groups/all/parked").send().await.expect_problem(403, "forbidden");
    with(&of_all, "POST", "/groups/all/retries").send().await.expect_problem(403, "forbidden");
    let reader = key(&app, &["read:*"]).await;
    with(&reader, "POST", "/groups/orders/claims").send().await.expect_problem(403, "forbidden");
    with(&reader, "PUT", &path).json(&body).send().await.expect_problem(403, "forbidden");
    with(&reader, "DELETE", &path).send().await.expect_problem(403, "forbidden");
    with(&reader, "GET", "/groups/orders").send().await.expect_status(200);
    with(&reader, "GET", "/groups/orders/parked").send().await.expect_status(200);
    // Managing parked streams needs `admin`.
    let position = json!({"last_processed_position": 1});
    for (method, path) in [("PUT", "/groups/orders/parked/Order/1"), ("POST", "/groups/orders/retries")] {
        with(&worker, method, path).json(&position).send().await.expect_status(if method == "PUT" { 403 } else { 400 });
    }
    with(&worker, "POST", "/groups/orders/retries").send().await.expect_problem(403, "forbidden");
    with(&manager, "POST", "/groups/orders/retries").send().await.expect_status(200);
    with(&manager, "PUT", "/groups/orders/parked/Order/1").json(&position).send().await.expect_status(200);
    with(&worker, "DELETE", "/groups/orders").send().await.expect_problem(403, "forbidden");
    with(&manager, "DELETE", "/groups/orders").send().await.expect_status(204);
}
