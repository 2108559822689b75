//! Promise P1, P4: the contract of erasures. A request erases what it names and nothing else, its receipt says what, and
//! an invalid request erases nothing. `erasure_model.rs` tries the places at which content can be.

use annals::domain::quota::Quotas;
use annals::keyring;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::cli::run;
use crate::support::{Reply, TestApp, TestDatabase, TestOptions, events, id, pause_between_polls, within_a_minute};

/// A text that is erased.
const SECRET: &str = "Ada Lovelace";

/// Appends events with the secret. Returns the new version of the stream.
async fn append(app: &TestApp, stream: &str, count: usize) -> u64 {
    let event =
        json!({"event_type": "Entered", "event_data": {"name": SECRET, "town": "Kent"}, "metadata": {"ip": SECRET}});
    let reply = app.post(&format!("/streams/{stream}"), &json!({"events": vec![event; count]})).send().await;
    reply.expect_status(201).json()["version"].as_u64().expect("a version")
}

fn stream(name: &str) -> Value {
    let (aggregate_type, aggregate_id) = name.split_once('/').expect("type/id");
    json!({"aggregate_type": aggregate_type, "aggregate_id": aggregate_id})
}

fn versions(name: &str, from: u64, to: u64) -> Value {
    let mut stream = stream(name);
    stream["from_version"] = from.into();
    stream["to_version"] = to.into();
    stream
}

/// Sends a request to erase. `named` has the members beside the reason.
async fn erase(app: &TestApp, query: &str, mut named: Value) -> Reply {
    named["reason"] = "ticket 4711".into();
    app.post(&format!("/erasures{query}"), &named).send().await
}

/// Returns the whole log, `$erased` events included.
async fn log(app: &TestApp) -> Vec<Value> {
    let mut lines = app.get("/events").header("accept", "application/x-ndjson").send().await.expect_status(200).lines();
    lines.pop();
    lines
}

/// Returns the data of all `$erased` events, in the order of the log.
async fn announcements(app: &TestApp) -> Vec<Value> {
    let announcements = log(app).await.into_iter().filter(|event| event["event_type"] == "$erased");
    announcements.map(|event| event["event_data"].clone()).collect()
}

#[tokio::test]
async fn a_receipt_says_what_a_request_has_newly_erased() {
    let app = TestApp::start().await;
    append(&app, "Customer/c-7", 3).await;
    append(&app, "Order/o-1", 2).await;
    app.call("PUT", "/snapshots/Customer/c-7")
        .json(&json!({"version": 3, "state": {}}))
        .send()
        .await
        .expect_status(201);
    let position = json!({"last_processed_position": 4});
    app.call("PUT", "/projections/billing").json(&position).send().await.expect_status(201);

    let named = json!({"streams": [stream("Customer/c-7"), versions("Order/o-1", 1, 1)]});
    let planned = erase(&app, "?dry_run=true", named.clone()).await.expect_status(200).json();
    for member in ["erasure", "global_position", "hidden_at", "removed_at"] {
        assert!(planned[member].is_null() && planned.get(member).is_some(), "{member}: {planned}");
    }
    let counts = |receipt: &Value| ["events", "streams", "snapshots"].map(|member| receipt[member].clone());
    assert_eq!(counts(&planned), [4, 2, 1]);
    assert!(log(&app).await.iter().all(|event| event["event_data"]["name"] == SECRET), "a dry run erases nothing");

    let erased = erase(&app, "", named.clone()).await.expect_status(201);
    assert_eq!((erased.header("location"), erased.header("cache-control")), (Some("/erasures/1"), Some("no-cache")));
    let receipt = erased.json();
    assert_eq!(counts(&receipt), [4, 2, 1]);
    assert_eq!(
        (&receipt["erasure"], &receipt["reason"], &receipt["requested_by"]),
        (&json!(1), &json!("ticket 4711"), &Value::Null)
    );
    assert_eq!(receipt["global_position"], 7, "the position of the last $erased event");
    let months = receipt["months"].as_array().expect("months");
    assert_eq!((months.len(), &months[0]["events"], &months[0]["archived"]), (1, &json!(4), &json!(false)));
    assert_eq!(months, planned["months"].as_array().expect("months"));
    let hidden_at = crate::support::at(receipt["hidden_at"].as_str().expect("a time"));
    let until = crate::support::at(receipt["clients_may_keep_until"].as_str().expect("a time"));
    assert_eq!(until - hidden_at, chrono::TimeDelta::days(1));
    let billing = json!([{"projection_name": "billing", "last_processed_position": 4, "has_passed": false}]);
    assert_eq!(receipt["projections"], billing);
    assert_eq!(receipt["remains"].as_array().map(Vec::len), Some(3));

    // The same request again changes nothing, and returns the same receipt.
    let again = erase(&app, "", named).await.expect_status(200).json();
    assert_eq!(again, receipt);
    let passed = json!({"last_processed_position": 7});
    app.call("PUT", "/projections/billing").json(&passed).send().await.expect_status(200);
    let read = app.get("/erasures/1").send().await.expect_status(200).json();
    assert_eq!(read["projections"][0]["has_passed"], true);
    assert_eq!((&read["months"], counts(&read)), (&receipt["months"], counts(&receipt)));

    let data = |versions: Value| json!({"erasure": 1, "versions": versions, "members": null});
    assert_eq!(announcements(&app).await, [data(json!([[1, 3]])), data(json!([[1, 1]]))]);
    let left = app.get("/streams/Order/o-1").send().await.json();
    assert_eq!((&left["events"][0]["event_data"], &left["events"][0]["metadata"]), (&Value::Null, &Value::Null));
    assert_eq!(left["events"][1]["event_data"]["name"], SECRET, "version 2 was not named");
}

#[tokio::test]
async fn a_request_that_is_partly_done_erases_the_rest() {
    let app = TestApp::start().await;
    append(&app, "A/1", 6).await;
    erase(&app, "", json!({"streams": [versions("A/1", 2, 3)]})).await.expect_status(201);
    // The same stream twice is merged, versions beyond the end are cut, and $erased events are skipped.
    let twice = json!({"streams": [versions("A/1", 3, 4), versions("A/1", 4, 1_000)]});
    let receipt = erase(&app, "", twice).await.expect_status(201).json();
    assert_eq!((&receipt["events"], &receipt["streams"]), (&json!(3), &json!(1)));
    let all = erase(&app, "", json!({"streams": [stream("A/1")]})).await.expect_status(201).json();
    assert_eq!(all["events"], 1);
    let versions = announcements(&app).await.into_iter().map(|data| data["versions"].clone());
    assert_eq!(versions.collect::<Vec<_>>(), [json!([[2, 3]]), json!([[4, 6]]), json!([[1, 1]])]);
    // Everything is erased. The receipt is that of the newest erasure of these events.
    let old =
        erase(&app, "", json!({"streams": [crate::erasures::versions("A/1", 2, 3)]})).await.expect_status(200).json();
    assert_eq!(old["erasure"], 1);
    let newest = erase(&app, "", json!({"streams": [stream("A/1")]})).await.expect_status(200).json();
    assert_eq!(newest["erasure"], 3);
    assert_eq!(announcements(&app).await.len(), 3);
}

#[tokio::test]
async fn erased_members_are_null_and_the_others_stay() {
    let app = TestApp::start().await;
    append(&app, "A/1", 2).await;
    let body = json!({"events": [{"event_type": "E", "event_data": [1, {"a/b": SECRET}], "metadata": null}]});
    app.post("/streams/A/1", &body).send().await.expect_status(201);
    let members = ["/event_data/name", "/event_data/1/a~1b", "/metadata/ip", "/event_data/absent"];
    let named = json!({"streams": [stream("A/1")], "members": members});
    let receipt = erase(&app, "", named.clone()).await.expect_status(201).json();
    assert_eq!(receipt["events"], 3);
    let page = app.get("/streams/A/1").send().await.json();
    assert_eq!(page["events"][0]["event_data"], json!({"name": null, "town": "Kent"}));
    assert_eq!(page["events"][0]["metadata"], json!({"ip": null}));
    assert_eq!(page["events"][2]["event_data"], json!([1, {"a/b": null}]));
    assert_eq!(page["events"][3]["event_data"]["members"], json!(members));
    assert_eq!(erase(&app, "", named).await.expect_status(200).json()["erasure"], 1);

    // Members that no event has.
    let absent = json!({"streams": [stream("A/1")], "members": ["/event_data/other"]});
    let nothing = erase(&app, "", absent).await.expect_status(200).json();
    assert_eq!((&nothing["erasure"], &nothing["events"]), (&Value::Null, &json!(0)));
    // The rest of the content can be erased later.
    assert_eq!(erase(&app, "", json!({"streams": [stream("A/1")]})).await.expect_status(201).json()["events"], 3);
    assert_eq!(announcements(&app).await.len(), 2);
}

#[tokio::test]
async fn an_invalid_request_erases_nothing() {
    let app = TestApp::start().await;
    append(&app, "A/1", 2).await;
    let a = || json!([stream("A/1")]);
    let many = |count: usize| (0..count).map(|n| stream(&format!("A/{n}"))).collect::<Vec<_>>();
    let ids = |count: u32| (0..count).map(id).collect::<Vec<_>>();
    let pointers = |count: usize| (0..count).map(|n| format!("/event_data/{n}")).collect::<Vec<_>>();
    for (body, pointer) in [
        (json!({"streams": a()}), ""),
        (json!({"reason": "", "streams": a()}), "/reason"),
        (json!({"reason": "x".repeat(1_001), "streams": a()}), "/reason"),
        (json!({"reason": "\u{0}", "streams": a()}), "/reason"),
        (json!({"reason": "x"}), ""),
        (json!({"reason": "x", "streams": [], "event_ids": []}), ""),
        (json!({"reason": "x", "streams": many(101)}), "/streams"),
        (json!({"reason": "x", "event_ids": ids(1_001)}), "/event_ids"),
        (json!({"reason": "x", "event_ids": ["x"]}), "/event_ids/0"),
        (json!({"reason": "x", "streams": [{"aggregate_type": "A"}]}), "/streams/0"),
        (json!({"reason": "x", "streams": [{"aggregate_type": "", "aggregate_id": "1"}]}), "/streams/0/aggregate_type"),
        (json!({"reason": "x", "streams": [versions("A/1", 0, 1)]}), "/streams/0/from_version"),
        (json!({"reason": "x", "streams": [versions("A/1", 1, 0)]}), "/streams/0/to_version"),
        (json!({"reason": "x", "streams": [versions("A/1", 2, 1)]}), "/streams/0/from_version"),
        (json!({"reason": "x", "streams": a(), "members": []}), "/members"),
        (json!({"reason": "x", "streams": a(), "members": pointers(21)}), "/members"),
        (json!({"reason": "x", "streams": a(), "members": ["/event_data"]}), "/members/0"),
        (json!({"reason": "x", "streams": a(), "members": ["/metadata/a", "/event_type/x"]}), "/members/1"),
        (json!({"reason": "x", "streams": a(), "members": ["/event_data/~2"]}), "/members/0"),
        (json!({"reason": "x", "streams": a(), "unknown": 1}), "/unknown"),
    ] {
        app.post("/erasures", &body).send().await.expect_invalid("pointer", pointer);
        app.post("/erasures?dry_run=true", &body).send().await.expect_invalid("pointer", pointer);
    }
    app.post("/erasures?dry_run=x", &json!({})).send().await.expect_invalid("parameter", "dry_run");
    app.post("/erasures?unknown=1", &json!({})).send().await.expect_invalid("parameter", "unknown");
    app.get("/erasures?limit=0").send().await.expect_invalid("parameter", "limit");
    app.get("/erasures?limit=1001").send().await.expect_invalid("parameter", "limit");
    app.get("/erasures?after=x").send().await.expect_invalid("parameter", "after");
    app.get("/erasures/x").send().await.expect_invalid("path", "erasure");
    app.get("/erasures/1").send().await.expect_problem(404, "erasure_not_found");

    // One of the named things does not exist.
    let missing = json!({"streams": [stream("A/1"), stream("A/2")]});
    erase(&app, "", missing).await.expect_problem(404, "stream_not_found");
    let missing = json!({"streams": a(), "event_ids": [id(1)]});
    erase(&app, "", missing).await.expect_problem(404, "event_not_found");
    assert!(log(&app).await.iter().all(|event| event["event_data"]["name"] == SECRET), "nothing is erased");

    // The largest requests.
    let longest = json!({"reason": "é".repeat(1_000), "streams": a(), "members": pointers(20)});
    app.post("/erasures", &longest).send().await.expect_status(200);
    for n in 0..100 {
        app.append(&format!("/streams/Many/{n}"), &["E"]).await;
    }
    let hundred: Vec<_> = (0..100).map(|n| stream(&format!("Many/{n}"))).collect();
    assert_eq!(erase(&app, "", json!({"streams": hundred})).await.expect_status(201).json()["streams"], 100);
    let announcement = log(&app).await.pop().expect("an event");
    assert_eq!(announcement["event_type"], "$erased");
    let named = json!({"event_ids": [announcement["event_id"]]});
    erase(&app, "", named).await.expect_invalid("pointer", "/event_ids/0");
}

#[tokio::test]
async fn a_request_erases_ten_thousand_events_and_no_more() {
    let app = TestApp::start().await;
    for _ in 0..10 {
        app.append("/streams/A/1", &["E"; 1_000]).await;
    }
    app.append("/streams/A/1", &["E"]).await;
    let all = || json!({"streams": [stream("A/1")]});
    let problem = erase(&app, "", all()).await.expect_problem(422, "erasure_too_large");
    assert_eq!((&problem["events"], &problem["limit"]), (&json!(10_001), &json!(10_000)));
    erase(&app, "?dry_run=true", all()).await.expect_problem(422, "erasure_too_large");
    // Erased events do not count.
    erase(&app, "", json!({"streams": [versions("A/1", 5, 5)]})).await.expect_status(201);
    assert_eq!(erase(&app, "", all()).await.expect_status(201).json()["events"], 10_000);
    let ids: Vec<_> = log(&app).await.iter().take(1_000).map(|event| event["event_id"].clone()).collect();
    assert_eq!(erase(&app, "", json!({"event_ids": ids})).await.expect_status(200).json()["erasure"], 2);
}

#[tokio::test]
async fn the_same_request_several_times_at_once_erases_once() {
    let app = TestApp::start().await;
    let other = TestApp::start_on(app.database.clone(), TestOptions::default()).await;
    append(&app, "A/1", 50).await;
    append(&app, "A/2", 50).await;
    let named = || json!({"streams": [stream("A/1"), stream("A/2")]});
    let replies = join_all((0..8).map(|n| erase(if n % 2 == 0 { &app } else { &other }, "", named()))).await;
    let mut statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 201]);
    for reply in replies {
        assert_eq!((&reply.json()["erasure"], reply.json()["hidden_at"].is_null()), (&json!(1), false));
    }
    assert_eq!(announcements(&app).await.len(), 2);
}

#[tokio::test]
async fn receipts_are_listed_in_pages() {
    let app = TestApp::start().await;
    for n in 1..=3 {
        append(&app, &format!("A/{n}"), 1).await;
        erase(&app, "", json!({"streams": [stream(&format!("A/{n}"))]})).await.expect_status(201);
    }
    let page = app.get("/erasures?limit=2").send().await.expect_status(200).json();
    let numbers = |page: &Value| -> Vec<i64> {
        page["erasures"]
            .as_array()
            .expect("erasures")
            .iter()
            .map(|receipt| receipt["erasure"].as_i64().expect("a number"))
            .collect()
    };
    assert_eq!((numbers(&page), &page["next"]), (vec![1, 2], &json!("/erasures?after=2&limit=2")));
    let last = app.get("/erasures?after=2&limit=2").send().await.expect_status(200).json();
    assert_eq!((numbers(&last), &last["next"]), (vec![3], &Value::Null));
    assert_eq!(last["erasures"][0], app.get("/erasures/3").send().await.json());
}

#[tokio::test]
async fn subscribers_receive_the_announcement_in_their_order() {
    let app = TestApp::start().await;
    append(&app, "Customer/1", 2).await;
    append(&app, "Order/1", 1).await;
    let mut orders = app.subscribe("/events?after=head&aggregate_type=Order").await;
    let mut all = app.subscribe("/events?after=head").await;
    let waiting = app.get("/events?after=3&wait=60&aggregate_type=Order").send();
    let erasing = erase(&app, "", json!({"streams": [stream("Customer/1"), stream("Order/1")]}));
    let (polled, erased) = tokio::join!(waiting, erasing);
    erased.expect_status(201);
    let announced = orders.event().await.json();
    assert_eq!((&announced["event_type"], &announced["aggregate_type"]), (&json!("$erased"), &json!("Order")));
    assert_eq!([all.event().await.position(), all.event().await.position()], [4, 5]);
    assert_eq!(polled.expect_status(200).json()["events"][0], announced);
    // The filter takes the reserved type.
    let filtered = app.get("/events?event_type=$erased").send().await.expect_status(200).json();
    assert_eq!(filtered["events"].as_array().map(Vec::len), Some(2));
    // A consumer confirms that it has processed the announcement.
    let set = json!({"last_processed_position": 5});
    app.call("PUT", "/projections/p").json(&set).send().await.expect_status(201);
    app.get("/projections/p?wait_for=5&timeout=1").send().await.expect_status(200);
}

#[tokio::test]
async fn caches_of_clients_learn_of_an_erasure() {
    let app = TestApp::start().await;
    append(&app, "A/1", 2).await;
    let mut known = Vec::new();
    for path in ["/streams/A/1", "/aggregates/A/1", "/events?after=0"] {
        let before = app.get(path).send().await.expect_status(200);
        known.extend(before.header("etag").map(|etag| (path, etag.to_owned())));
    }
    assert!(known.len() >= 2, "{known:?}");
    for (path, etag) in &known {
        app.get(path).header("if-none-match", etag).send().await.expect_status(304);
    }
    erase(&app, "", json!({"streams": [stream("A/1")]})).await.expect_status(201);
    for (path, etag) in &known {
        let after = app.get(path).header("if-none-match", etag).send().await.expect_status(200);
        assert!(!after.text().contains(SECRET), "{}", after.text());
    }
}

#[tokio::test]
async fn cloud_events_of_erased_events_have_no_data() {
    let app = TestApp::start().await;
    append(&app, "A/1", 2).await;
    erase(&app, "", json!({"streams": [versions("A/1", 1, 1)]})).await.expect_status(201);
    let batch =
        app.get("/events").header("accept", "application/cloudevents-batch+json").send().await.expect_status(200);
    let batch = batch.json();
    assert!(batch[0].get("data").is_none(), "{}", batch[0]);
    assert_eq!((&batch[1]["data"]["name"], &batch[2]["type"]), (&json!(SECRET), &json!("$erased")));
    assert!(batch[2]["data"].is_object());
}

#[tokio::test]
async fn reserved_types_cannot_be_written() {
    let app = TestApp::start().await;
    append(&app, "A/1", 1).await;
    let event = |event_type: &str| json!({"events": [{"event_type": event_type, "event_data": 1}]});
    app.post("/streams/A/1", &event("$erased")).send().await.expect_invalid("pointer", "/events/0/event_type");
    app.post("/streams/$A/1", &event("E")).send().await.expect_invalid("path", "aggregate_type");
    let append = json!({"appends": [{"aggregate_type": "$A", "aggregate_id": "1", "events": event("E")["events"]}]});
    app.post("/appends", &append).send().await.expect_invalid("pointer", "/appends/0/aggregate_type");
    let snapshot = json!({"version": 1, "state": {}});
    app.call("PUT", "/snapshots/$A/1").json(&snapshot).send().await.expect_invalid("path", "aggregate_type");
    let reducer = json!({"language": "merge-patch"});
    app.call("PUT", "/reducers/$A").json(&reducer).send().await.expect_invalid("path", "aggregate_type");
    app.get("/streams/$A/1").send().await.expect_problem(404, "stream_not_found");
    app.get("/events?aggregate_type=$A").send().await.expect_status(200);
    app.get("/reducers/$A").send().await.expect_problem(404, "reducer_not_found");
}

#[tokio::test]
async fn a_claim_that_was_handed_out_is_returned_without_the_content() {
    let app = TestApp::start().await;
    append(&app, "A/1", 3).await;
    app.call("PUT", "/groups/g").json(&json!({"partitions": 1})).send().await.expect_status(201);
    let claim = || app.call("POST", "/groups/g/claims").header("idempotency-key", "one").send();
    let claimed = claim().await.expect_status(201);
    assert!(claimed.text().contains(SECRET));
    let path = claimed.header("location").expect("the path of the claim").to_owned();
    erase(&app, "", json!({"streams": [stream("A/1")]})).await.expect_status(201);
    for reply in [app.get(&path).send().await, claim().await] {
        assert!(reply.status < 300 && !reply.text().contains(SECRET), "{}", reply.text());
        assert_eq!(reply.json()["events"].as_array().map(Vec::len), Some(3), "{}", reply.text());
    }
}

#[tokio::test]
async fn metrics_count_erasures() {
    let app = TestApp::start().await;
    append(&app, "A/1", 3).await;
    erase(&app, "", json!({"streams": [stream("A/1")]})).await.expect_status(201);
    assert_eq!((app.metric("annals_erasures_total").await, app.metric("annals_erased_events_total").await), (1.0, 3.0));
    within_a_minute("the erasure is reported as pending", async {
        while app.metric("annals_erasures_pending").await < 1.0 {
            pause_between_polls().await;
        }
    })
    .await;
}

/// Returns the export of a log.
async fn export(database: &TestDatabase) -> String {
    let (ok, exported, error) = run(database, &["export"]).await;
    assert!(ok, "{error}");
    exported
}

#[tokio::test]
async fn an_export_with_erasures_is_imported_and_exported_unchanged() {
    let app = TestApp::start().await;
    append(&app, "A/1", 4).await;
    append(&app, "B/1", 2).await;
    let members = json!({"streams": [versions("A/1", 4, 4)], "members": ["/event_data/name"]});
    erase(&app, "", members).await.expect_status(201);
    erase(&app, "", json!({"streams": [versions("A/1", 1, 3), stream("B/1")]})).await.expect_status(201);
    append(&app, "A/1", 1).await;
    let exported = export(&app.database).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &exported).expect("the file is written");

    let copy = TestApp::start().await;
    let path = file.path().to_str().expect("a path");
    for _ in 0..2 {
        let (ok, _, error) = run(&copy.database, &["import", path]).await;
        assert!(ok, "{error}");
        assert_eq!(export(&copy.database).await, exported);
    }
    let (ok, printed, error) = run(&copy.database, &["verify"]).await;
    assert!(ok, "{printed}{error}");
    // The copy knows what is erased: a retry cannot be compared, and a second erasure finds nothing.
    let known: Value = serde_json::from_str(exported.lines().next().expect("a line")).expect("JSON");
    let retry = json!({"events": [{"event_id": known["event_id"], "event_type": "Entered", "event_data": "other"}]});
    copy.post("/streams/A/1", &retry).send().await.expect_status(200);
    erase(&copy, "", json!({"streams": [versions("A/1", 1, 3)]})).await.expect_status(200);
    let next = erase(&copy, "", json!({"streams": [stream("A/1")]})).await.expect_status(201).json();
    assert_eq!((&next["erasure"], &next["events"]), (&json!(3), &json!(2)));
    let (ok, printed, error) = run(&copy.database, &["verify"]).await;
    assert!(ok, "{printed}{error}");
}

#[tokio::test]
async fn exported_erasures_are_applied_to_a_restored_log() {
    let app = TestApp::start().await;
    append(&app, "A/1", 4).await;
    append(&app, "B/1", 2).await;
    let backup = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(backup.path(), export(&app.database).await).expect("the file is written");
    erase(&app, "", json!({"streams": [versions("A/1", 2, 3)]})).await.expect_status(201);
    erase(&app, "", json!({"streams": [stream("B/1")], "members": ["/metadata/ip"]})).await.expect_status(201);
    let (ok, erasures, error) = run(&app.database, &["erasures", "export"]).await;
    assert!(ok && erasures.lines().count() == 2 && !erasures.contains(SECRET), "{erasures}{error}");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &erasures).expect("the file is written");

    let restored = TestApp::start().await;
    let (ok, _, error) = run(&restored.database, &["import", backup.path().to_str().expect("a path")]).await;
    assert!(ok, "{error}");
    for (n, printed) in [(0, "2 erasures applied, 0 complete already"), (1, "0 erasures applied, 2 complete already")] {
        let (ok, out, error) =
            run(&restored.database, &["erasures", "apply", file.path().to_str().expect("a path")]).await;
        assert!(ok && out.contains(printed), "run {n}: {out}{error}");
    }
    within_a_minute("the service announces the erasures", async {
        while announcements(&restored).await.len() < 2 {
            pause_between_polls().await;
        }
    })
    .await;
    let content = |events: Vec<Value>| -> Vec<Value> {
        events.into_iter().map(|event| json!([event["event_id"], event["event_data"], event["metadata"]])).collect()
    };
    for erasure in [1, 2] {
        let path = format!("/erasures/{erasure}");
        let (former, receipt) = (app.get(&path).send().await.json(), restored.get(&path).send().await.json());
        for member in ["reason", "requested_at", "events", "streams"] {
            assert_eq!(receipt[member], former[member], "{member}");
        }
    }
    let (before, after) = (log(&app).await, log(&restored).await);
    assert_eq!(content(after)[..6], content(before)[..6]);

    std::fs::write(file.path(), format!("{erasures}{{\"erasure\": 3}}\n")).expect("the file is written");
    let (ok, _, error) = run(&restored.database, &["erasures", "apply", file.path().to_str().expect("a path")]).await;
    assert!(!ok && error.contains("line 3"), "{error}");
}

#[tokio::test]
async fn a_null_that_no_erasure_explains_is_refused_by_the_import() {
    let database = TestDatabase::create().await;
    let line = json!({"aggregate_type": "A", "aggregate_id": "1", "event_type": "E", "event_data": null});
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), line.to_string()).expect("the file is written");
    let (ok, _, error) = run(&database, &["import", file.path().to_str().expect("a path")]).await;
    assert!(!ok && error.contains("/event_data: is required"), "{error}");
    // Other clients still cannot append it.
    let app = TestApp::start_on(database, TestOptions::default()).await;
    let mut body = events(&["E"]);
    body["events"][0]["event_data"] = Value::Null;
    app.post("/streams/A/1", &body).send().await.expect_invalid("pointer", "/events/0/event_data");
}

#[tokio::test]
async fn a_receipt_is_not_shown_without_the_scope_on_all_of_its_types() {
    let app = TestApp::start().await;
    append(&app, "A/1", 1).await;
    append(&app, "B/1", 1).await;
    erase(&app, "", json!({"streams": [stream("A/1"), stream("B/1")]})).await.expect_status(201);
    let mut options = TestOptions::default();
    options.settings.needs_keys = true;
    let with_keys = TestApp::start_on(app.database.clone(), options).await;
    let grants = ["admin:A".parse().expect("a grant")];
    let (key, new) = keyring::generate("a test".to_owned(), &grants, Quotas::default(), None).expect("randomness");
    with_keys.app.primary.create_key(&new).await.expect("the key is stored");
    with_keys.app.keyring.refresh(&with_keys.app.primary).await.expect("the keys are read");
    let authorization = format!("Bearer {key}");
    let body = json!({"reason": "another one", "streams": [stream("A/1")]});
    let again = with_keys.post("/erasures", &body).header("authorization", &authorization).send().await;
    let again = again.expect_status(200).json();
    assert_eq!((&again["erasure"], &again["reason"]), (&Value::Null, &json!("another one")));
    let read = with_keys.get("/erasures/1").header("authorization", &authorization).send().await;
    read.expect_problem(403, "forbidden");
    let list = with_keys.get("/erasures").header("authorization", &authorization).send().await.expect_status(200);
    assert_eq!(list.json()["erasures"], json!([]));
}

#[tokio::test]
async fn importing_the_export_of_the_same_log_changes_nothing() {
    let app = TestApp::start().await;
    append(&app, "A/1", 2).await;
    erase(&app, "", json!({"streams": [stream("A/1")]})).await.expect_status(201);
    let before = app.get("/erasures").send().await.json();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), export(&app.database).await).expect("the file is written");
    let (ok, _, error) = run(&app.database, &["import", file.path().to_str().expect("a path")]).await;
    assert!(ok, "{error}");
    assert_eq!(app.get("/erasures").send().await.json(), before);
}
