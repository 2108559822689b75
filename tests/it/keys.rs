//! No promise: API keys: lists and appends of several types, revocation, expiry, quotas, and what is stored of a key.
//! `authorization_matrix.rs` tries every operation with every kind of key.

use std::time::Duration;

use annals::domain::access::Grant;
use annals::domain::quota::Quotas;
use annals::keyring;
use serde_json::json;

use crate::support::{Reply, TestApp, TestOptions, events, id, pause_between_polls};

/// Starts a service that requires keys.
pub async fn start() -> TestApp {
    let mut options = TestOptions::default();
    options.settings.needs_keys = true;
    TestApp::start_with(options).await
}

impl TestApp {
    async fn key_with(&self, grants: &[&str], quotas: Quotas, expires_in: Option<Duration>) -> String {
        let grants: Vec<Grant> = grants.iter().map(|grant| grant.parse().expect("a grant")).collect();
        let (key, new) = keyring::generate("a test".to_owned(), &grants, quotas, expires_in).expect("randomness");
        self.app.primary.create_key(&new).await.expect("the key is stored");
        self.app.keyring.refresh(&self.app.primary).await.expect("the keys are read");
        key
    }

    pub async fn key(&self, grants: &[&str]) -> String {
        self.key_with(grants, Quotas::default(), None).await
    }

    async fn revoke(&self, key: &str) {
        let key_id = key.split('_').nth(1).expect("a key id");
        self.app.primary.revoke_key(key_id).await.expect("the key is revoked").expect("the key exists");
        self.app.keyring.refresh(&self.app.primary).await.expect("the keys are read");
    }

    pub async fn get_as(&self, key: &str, path: &str) -> Reply {
        self.get(path).header("authorization", &format!("Bearer {key}")).send().await
    }
}

#[tokio::test]
async fn a_request_without_a_valid_key_gets_401_with_the_scheme() {
    let app = start().await;
    let reply = app.get("/streams/Order/1").send().await;
    assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"annals\""));
    reply.expect_problem(401, "unauthenticated");
    let key = app.key(&["read:*"]).await;
    for wrong in
        [key.clone(), format!("Basic {key}"), "Bearer".to_owned(), format!("Bearer {key}x"), "Bearer é".to_owned()]
    {
        let reply = app.get("/streams/Order/1").header("authorization", &wrong).send().await;
        reply.expect_problem(401, "unauthenticated");
    }
    app.get("/nowhere").send().await.expect_problem(401, "unauthenticated");
    app.get_as(&key, "/nowhere").await.expect_problem(404, "route_not_found");
    app.get_as(&key, "/streams/Order/1").await.expect_problem(404, "stream_not_found");
    let lower = app.get("/streams/Order/1").header("authorization", &format!("bearer {key}")).send().await;
    lower.expect_problem(404, "stream_not_found");
    assert_eq!(app.metric("annals_keys_refused_total{code=\"unauthenticated\"}").await, 7.0);
}

/// Appends orders at positions 1 and 3, an order line at 2 and a cart at 4. Returns a key for all of them.
async fn append_mixed_types(app: &TestApp) -> String {
    let all = app.key(&["admin:*"]).await;
    for (n, stream) in ["Order/1", "OrderLine/1", "Order/2", "Cart/1"].iter().enumerate() {
        let body = json!({"events": [{"event_id": id(n as u32 + 1), "event_type": "E", "event_data": 1}]});
        let call = app.post(&format!("/streams/{stream}"), &body).header("authorization", &format!("Bearer {all}"));
        call.send().await.expect_status(201);
    }
    all
}

#[tokio::test]
async fn the_log_contains_only_types_that_the_key_may_read() {
    let app = start().await;
    let all = append_mixed_types(&app).await;
    let positions = |page: &Reply| {
        let page = page.json();
        let events = page["events"].as_array().expect("events").clone();
        events.iter().map(|event| event["global_position"].as_i64().expect("a position")).collect::<Vec<_>>()
    };
    for (grants, seen) in [
        (&["read:*"][..], &[1, 2, 3, 4][..]),
        (&["read:Order"], &[1, 3]),
        (&["read:Order*"], &[1, 2, 3]),
        (&["read:Cart", "read:OrderLine"], &[2, 4]),
        (&["append:Order", "read:Ca*"], &[4]),
        (&["read:Unknown"], &[]),
    ] {
        let key = app.key(grants).await;
        for path in ["/events", "/events?event_type=E", "/events?occurred_from=2020-01-01T00:00:00Z"] {
            let page = app.get_as(&key, path).await.expect_status(200);
            assert_eq!(positions(&page), seen, "{grants:?} {path}");
            assert_eq!(page.json()["next_after"], 4, "the cursor passes events that are not shown");
            let separator = if path.contains('?') { '&' } else { '?' };
            let page = app.get_as(&key, &format!("{path}{separator}direction=backward")).await.expect_status(200);
            let newest_first: Vec<_> = seen.iter().copied().rev().collect();
            assert_eq!(positions(&page), newest_first, "{grants:?} {path}");
            assert_eq!((&page.json()["next_before"], &page.json()["next"]), (&json!(1), &json!(null)));
        }
        if let Some(first) = seen.first() {
            assert_eq!(positions(&app.get_as(&key, "/events?limit=1").await.expect_status(200)), [*first]);
        }
        let bearer = format!("Bearer {key}");
        let lines = app.get("/events").header("accept", "application/x-ndjson").header("authorization", &bearer);
        assert_eq!(lines.send().await.lines().len(), seen.len() + 1, "{grants:?}");
    }
    let orders = app.key(&["read:Order*"]).await;
    let named = app.get_as(&orders, "/events?aggregate_type=Order&aggregate_type=Cart").await;
    assert!(named.expect_problem(403, "forbidden")["detail"].as_str().is_some_and(|detail| detail.contains("Cart")));
    app.get_as(&orders, &format!("/events/{}", id(1))).await.expect_status(200);
    app.get_as(&orders, &format!("/events/{}", id(4))).await.expect_problem(404, "event_not_found");
    app.get_as(&orders, &format!("/events/{}", id(9))).await.expect_problem(404, "event_not_found");

    // An event stream also contains only types that the key may read.
    let open = app.call("GET", "/events?after=0").header("authorization", &format!("Bearer {orders}"));
    let mut subscriber = crate::support::EventStream::open(open).await;
    for stream in ["Cart/1", "OrderLine/9"] {
        let call =
            app.post(&format!("/streams/{stream}"), &events(&["E"])).header("authorization", &format!("Bearer {all}"));
        call.send().await.expect_status(201);
    }
    for position in [1, 2, 3, 6] {
        assert_eq!(subscriber.event().await.position(), position);
    }
}

#[tokio::test]
async fn a_restricted_reader_of_many_or_no_types_gets_exactly_its_events() {
    let app = start().await;
    let all = app.key(&["admin:*"]).await;
    let bearer = format!("Bearer {all}");
    // More types than a read finds its events by, with foreign types in between.
    for n in 0..80 {
        for aggregate_type in [format!("Many{n}"), format!("Foreign{n}")] {
            let call = app.post(&format!("/streams/{aggregate_type}/1"), &events(&["E"]));
            let call = call.header("authorization", &bearer).header("x-correlation-id", "c");
            call.send().await.expect_status(201);
        }
    }
    // Many names, of which few have events.
    let names: Vec<String> = (0..90).map(|n| format!("read:Absent{n}")).chain(["read:Many3".to_owned()]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (grants, expected) in [
        (&["read:Many*"][..], 80),
        (&names[..], 1),
        (&["read:Many1*", "read:Foreign7"], 12),
        (&["read:Many*", "read:Foreign1*"], 91),
        (&["read:Nothing*", "read:Absent"], 0),
    ] {
        let key = app.key(grants).await;
        for path in ["/events?limit=1000", "/events?limit=1000&event_type=E", "/events?limit=1000&correlation_id=c"] {
            let page = app.get_as(&key, path).await.expect_status(200).json();
            assert_eq!(page["events"].as_array().map(Vec::len), Some(expected), "{grants:?} {path}");
            assert_eq!((&page["next_after"], &page["at_head"]), (&json!(160), &json!(true)), "{grants:?} {path}");
            let mut newest_first = page["events"].clone();
            newest_first.as_array_mut().expect("events").reverse();
            let page = app.get_as(&key, &format!("{path}&direction=backward")).await.expect_status(200).json();
            assert_eq!(page["events"], newest_first, "{grants:?} {path}");
            assert_eq!((&page["next_before"], &page["next"]), (&json!(1), &json!(null)), "{grants:?} {path}");
        }
    }
}

#[tokio::test]
async fn lists_and_appends_check_each_type() {
    let app = start().await;
    let all = append_mixed_types(&app).await;
    for aggregate_type in ["Order", "Cart"] {
        let reducer = json!({"language": "merge-patch", "source": ""});
        let call = app.call("PUT", &format!("/reducers/{aggregate_type}")).json(&reducer);
        call.header("authorization", &format!("Bearer {all}")).send().await.expect_status(201);
    }
    let key = app.key(&["read:Order*", "append:Cart"]).await;
    let names = |reply: Reply, list: &str| {
        let json = reply.expect_status(200).json();
        let list = json[list].as_array().expect("a list").clone();
        list.iter().map(|item| item["aggregate_type"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(app.get_as(&key, "/reducers").await, "reducers"), ["Order"]);
    assert_eq!(names(app.get_as(&key, "/stats/aggregate-types").await, "aggregate_types"), ["Order", "OrderLine"]);
    let coverage = app.get_as(&key, "/stats/snapshot-coverage").await;
    assert_eq!(coverage.json()["streams"], 3);
    let stats = app.get_as(&key, "/stats").await.expect_status(200).json();
    for (member, value) in
        [("events", json!(3)), ("streams", json!(3)), ("aggregate_types", json!(2)), ("snapshots", json!(0))]
    {
        assert_eq!(stats[member], value, "{member}");
    }
    // Sizes are those of all types. Positions are no secret.
    assert_eq!((&stats["sizes"], &stats["head"], &stats["as_of_position"]), (&json!(null), &json!(4), &json!(4)));
    let stats = app.get_as(&all, "/stats").await.expect_status(200).json();
    assert_eq!((&stats["events"], &stats["aggregate_types"]), (&json!(4), &json!(3)));
    assert!(stats["sizes"]["total"].as_i64() > Some(0), "{stats}");
    let largest = names(app.get_as(&key, "/stats/largest-aggregates").await, "aggregates");
    assert_eq!(largest, ["Order", "OrderLine", "Order"]);
    let largest = names(app.get_as(&key, "/stats/largest-aggregates?limit=1").await, "aggregates");
    assert_eq!(largest, ["Order"]);
    app.get_as(&key, "/stats/tables").await.expect_problem(403, "forbidden");
    let none = app.key(&["read:Nothing"]).await;
    let stats = app.get_as(&none, "/stats").await.expect_status(200).json();
    assert_eq!((&stats["events"], &stats["streams"], &stats["head"]), (&json!(0), &json!(0), &json!(4)));
    assert_eq!(app.get_as(&none, "/stats/largest-aggregates").await.json()["aggregates"], json!([]));
    assert_eq!(names(coverage, "aggregate_types"), ["Order", "OrderLine"]);

    let append = |types: &[&str]| {
        let appends: Vec<_> =
            types.iter().map(|name| json!({"aggregate_type": name, "aggregate_id": "x", "events": [{"event_type": "E", "event_data": 1}]})).collect();
        app.post("/appends", &json!({ "appends": appends })).header("authorization", &format!("Bearer {key}")).send()
    };
    append(&["Cart"]).await.expect_status(201);
    append(&["Cart", "Order"]).await.expect_problem(403, "forbidden");
    // A conflict has the missed events only if the key may read them.
    let conflict = async |key: &str, stream: &str| {
        let call = app.post(stream, &events(&["E"])).if_match(0).header("prefer", "return=representation");
        call.header("authorization", &format!("Bearer {key}")).send().await.expect_problem(412, "version_conflict")
    };
    let problem = conflict(&key, "/streams/Cart/1").await;
    assert_eq!((&problem["current_version"], &problem["missed_events"]), (&json!(1), &json!(null)));
    assert!(conflict(&all, "/streams/Cart/1").await["missed_events"].is_array());
    let stream = app.get_as(&all, "/streams/Cart/x").await;
    assert_eq!(stream.versions(), [1], "no event of the refused request was written");
}

#[tokio::test]
async fn a_client_reads_what_its_own_key_may_do() {
    let app = start().await;
    let key = app.key(&["read:Order*", "append:Cart"]).await;
    let own = app.get_as(&key, "/keys/self").await.expect_status(200);
    assert_eq!(own.header("cache-control"), Some("no-cache"));
    let key_id = key.split('_').nth(1).expect("a key id");
    assert_eq!(
        own.json(),
        json!({"auth": "keys", "key_id": key_id, "name": "a test", "grants": ["read:Order*", "append:Cart"],
            "expires_at": null})
    );
    assert!(!own.text().contains(key.split('_').nth(2).expect("a secret")), "the secret is not shown");
    // Any grant is enough.
    let expiring = app.key_with(&["project:p"], Quotas::default(), Some(Duration::from_secs(3600))).await;
    let own = app.get_as(&expiring, "/keys/self").await.expect_status(200).json();
    assert_eq!((&own["grants"], own["expires_at"].is_string()), (&json!(["project:p"]), true));
    app.get("/keys/self").send().await.expect_problem(401, "unauthenticated");
    app.get_as(&key, "/keys/self?x=1").await.expect_invalid("parameter", "x");
    app.get_as(&key, "/keys").await.expect_problem(404, "route_not_found");
    app.revoke(&key).await;
    app.get_as(&key, "/keys/self").await.expect_problem(401, "unauthenticated");

    let open = TestApp::start().await;
    assert_eq!(
        open.get("/keys/self").send().await.expect_status(200).json(),
        json!({"auth": "none", "key_id": null, "name": null, "grants": null, "expires_at": null})
    );
    let refused = open.get("/keys/self").header("accept", "text/html").send().await;
    refused.expect_problem(406, "not_acceptable");
}

#[tokio::test]
async fn revoking_a_key_ends_its_event_streams_and_long_polls() {
    let app = start().await;
    append_mixed_types(&app).await;
    let (one, other) = (app.key(&["read:*"]).await, app.key(&["read:*"]).await);
    let open = |key: &str| {
        crate::support::EventStream::open(
            app.call("GET", "/events?after=0").header("authorization", &format!("Bearer {key}")),
        )
    };
    let (mut revoked, mut valid) = (open(&one).await, open(&other).await);
    let poll = app.get("/events?after=head&wait=60").header("authorization", &format!("Bearer {one}")).send();
    let poll = tokio::spawn(poll);
    app.wait_for_subscribers(2, 1).await;
    assert_eq!((revoked.event().await.position(), valid.event().await.position()), (1, 1));
    app.revoke(&one).await;
    crate::support::within_a_minute("the stream ends", async { while revoked.frame().await.is_some() {} }).await;
    poll.await.expect("the task ends").expect_problem(401, "unauthenticated");
    app.get_as(&one, "/events").await.expect_problem(401, "unauthenticated");
    assert_eq!(valid.event().await.position(), 2);

    let brief = app.key_with(&["read:*"], Quotas::default(), Some(Duration::from_secs(1))).await;
    crate::support::within_a_minute("the key expires", async {
        while app.get_as(&brief, "/events").await.status == 200 {
            pause_between_polls().await;
        }
    })
    .await;
    // A key that another process has created is read on its first use.
    let grants = ["read:*".parse().expect("a grant")];
    let (unknown, new) = keyring::generate("new".to_owned(), &grants, Quotas::default(), None).expect("randomness");
    app.app.primary.create_key(&new).await.expect("the key is stored");
    crate::support::within_a_minute("the key is known", async {
        while app.get_as(&unknown, "/events").await.status != 200 {
            pause_between_polls().await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_key_has_a_quota_of_its_own() {
    let app = start().await;
    let three = Quotas { requests: Some(3), ..Quotas::default() };
    let (limited, unlimited) = (app.key_with(&["read:*"], three, None).await, app.key(&["read:*"]).await);
    for _ in 0..3 {
        app.get_as(&limited, "/events").await.expect_status(200);
    }
    let refused = app.get_as(&limited, "/events").await;
    let seconds: u64 = refused.header("retry-after").expect("a time to wait").parse().expect("seconds");
    assert!((1..=21).contains(&seconds), "{seconds}");
    refused.expect_problem(429, "quota_exceeded");
    app.get_as(&unlimited, "/events").await.expect_status(200);
    // Reading the keys again does not reset a quota.
    app.app.keyring.refresh(&app.app.primary).await.expect("the keys are read");
    app.get_as(&limited, "/events").await.expect_problem(429, "quota_exceeded");
    app.get("/livez").send().await.expect_status(200);
}

#[tokio::test]
async fn a_refused_id_says_nothing_about_types_that_the_key_may_not_read() {
    let app = start().await;
    let all = append_mixed_types(&app).await;
    let key = app.key(&["append:Order", "read:Order"]).await;
    let append = async |key: &str, ids: &[u32]| {
        let new: Vec<_> =
            ids.iter().map(|n| json!({"event_id": id(*n), "event_type": "Other", "event_data": 2})).collect();
        let call = app.post("/streams/Order/9", &json!({ "events": new }));
        let mut problem = call.header("authorization", &format!("Bearer {key}")).send().await.json();
        problem["instance"] = json!(null);
        problem
    };
    // Event 1 is an order in another stream, and event 4 is a cart.
    let (own, foreign) = (append(&key, &[1]).await, append(&key, &[4]).await);
    assert_eq!((&own["code"], &own["known_event_ids"]), (&json!("event_id_reused"), &json!(null)));
    assert_eq!(own, foreign);
    assert_eq!(append(&key, &[1, 90]).await, append(&key, &[4, 91]).await);
    assert_eq!(append(&all, &[4]).await["known_event_ids"], json!([id(4)]));

    // A key that may only append learns no ids of its own type either.
    let blind = app.key(&["append:Order"]).await;
    let body = |ids: &[u32]| {
        let new: Vec<_> = ids.iter().map(|n| json!({"event_id": id(*n), "event_type": "E", "event_data": 1})).collect();
        json!({ "events": new })
    };
    for (key, known) in [(&blind, json!(null)), (&key, json!([id(1)])), (&all, json!([id(1)]))] {
        let call = app.post("/streams/Order/1", &body(&[1, 92])).header("authorization", &format!("Bearer {key}"));
        let problem = call.send().await.expect_problem(409, "event_partly_known");
        assert_eq!(problem["known_event_ids"], known);
    }
}

#[tokio::test]
async fn a_quota_bounds_the_events_and_the_bytes_that_a_key_sends_in_a_minute() {
    let app = start().await;
    let append = async |key: &str, count: usize| {
        let call = app.post("/streams/Order/1", &events(&vec!["E"; count]));
        call.header("authorization", &format!("Bearer {key}")).send().await
    };
    let of_events = Quotas { events: Some(5), ..Quotas::default() };
    let key = app.key_with(&["append:*"], of_events, None).await;
    append(&key, 6).await.expect_problem(413, "payload_too_large");
    append(&key, 4).await.expect_status(201);
    let refused = append(&key, 2).await;
    assert!(refused.header("retry-after").is_some());
    refused.expect_problem(429, "quota_exceeded");
    append(&key, 1).await.expect_status(201);

    let body = events(&["E"]).to_string().len();
    let of_bytes = Quotas { bytes: Some(i32::try_from(2 * body).expect("a small number")), ..Quotas::default() };
    let key = app.key_with(&["append:*"], of_bytes, None).await;
    append(&key, 9).await.expect_problem(413, "payload_too_large");
    append(&key, 1).await.expect_status(201);
    append(&key, 1).await.expect_status(201);
    append(&key, 1).await.expect_problem(429, "quota_exceeded");
    let written = app.get_as(&app.key(&["read:*"]).await, "/streams/Order/1").await;
    assert_eq!(written.json()["version"], 7, "a refused request writes nothing");
}

#[tokio::test]
async fn a_projection_belongs_to_the_keys_with_a_grant_on_its_name() {
    let app = start().await;
    let key = app.key(&["read:*", "append:*", "project:mine-*"]).await;
    let put = async |key: &str, path: &str| {
        let call = app.call("PUT", path).json(&json!({"last_processed_position": 0}));
        call.header("authorization", &format!("Bearer {key}")).send().await
    };
    put(&key, "/projections/mine-1").await.expect_status(201);
    let refused = put(&key, "/projections/other").await.expect_problem(403, "forbidden");
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("group \"other\"")), "{refused}");
    // Keys that administer some types or read all of them do not move or delete it.
    let others = app.key(&["admin:Order", "read:*"]).await;
    for path in ["/projections/mine-1", "/projections/mine-1?reset=true"] {
        put(&others, path).await.expect_problem(403, "forbidden");
    }
    let delete = async |key: &str| {
        let call = app.call("DELETE", "/projections/mine-1");
        call.header("authorization", &format!("Bearer {key}")).send().await
    };
    delete(&others).await.expect_problem(403, "forbidden");
    app.get_as(&others, "/projections/mine-1?wait_for=0").await.expect_status(200);
    put(&key, "/projections/mine-1?reset=true").await.expect_status(200);
    delete(&key).await.expect_status(204);
}

#[tokio::test]
async fn the_number_of_projections_is_limited_for_each_key_and_for_the_store() {
    let app = start().await;
    let mut session = app.database.session().await;
    let (one, other) = (app.key(&["project:*"]).await, app.key(&["project:*"]).await);
    let put = async |key: &str, name: &str| {
        let call = app.call("PUT", &format!("/projections/{name}")).json(&json!({"last_processed_position": 0}));
        call.header("authorization", &format!("Bearer {key}")).send().await
    };
    put(&one, "first").await.expect_status(201);
    let fill = |name: &str, created_by: &str, count: u32| {
        format!(
            "INSERT INTO projection_positions (projection_name, last_processed_position, epoch, created_by) \
             SELECT '{name}' || n, 0, 1, {created_by} FROM generate_series(1, {count}) n"
        )
    };
    let key_id = format!("'{}'", one.split('_').nth(1).expect("a key id"));
    session.run(&fill("of-key-", &key_id, 998)).await;
    put(&one, "last").await.expect_status(201);
    let refused = put(&one, "surplus").await.expect_problem(429, "quota_exceeded");
    assert_eq!(refused["limit"], 1_000);
    put(&one, "first").await.expect_status(200);
    put(&other, "surplus").await.expect_status(201);

    session.run(&fill("without-key-", "NULL", 10_000 - 1_001)).await;
    let refused = put(&other, "beyond").await.expect_problem(429, "quota_exceeded");
    assert_eq!(refused["limit"], 10_000);
    put(&other, "surplus").await.expect_status(200);
    let call = app.call("DELETE", "/projections/first").header("authorization", &format!("Bearer {other}"));
    call.send().await.expect_status(204);
    put(&other, "beyond").await.expect_status(201);
}

#[tokio::test]
async fn secrets_are_stored_as_hashes_and_an_invalid_grant_disables_only_its_key() {
    let app = start().await;
    let mut session = app.database.session().await;
    let key = app.key(&["read:*"]).await;
    let stored = session.texts("SELECT encode(secret_sha256, 'hex') || grants::text FROM api_keys").await;
    assert!(!stored[0].contains(key.rsplit('_').next().expect("a secret")), "the secret is not stored");
    // A key with an invalid grant is ignored, and other keys stay valid.
    session.run("UPDATE api_keys SET grants = ARRAY['everything']").await;
    let other = app.key(&["read:*"]).await;
    app.get_as(&key, "/events").await.expect_problem(401, "unauthenticated");
    app.get_as(&other, "/events").await.expect_status(200);
}

#[tokio::test]
async fn the_last_use_of_a_key_is_recorded() {
    let mut options = TestOptions::default();
    options.settings.needs_keys = true;
    let app = TestApp::start_with(options).await;
    let (key, new) =
        keyring::generate("used".to_owned(), &["read:*".parse().expect("a grant")], Quotas::default(), None)
            .expect("randomness");
    let primary = &app.app.primary;
    primary.create_key(&new).await.expect("the key is stored");
    app.app.keyring.refresh(primary).await.expect("the keys are read");
    let last_used = async || primary.list_keys().await.expect("the keys")[0].last_used_at;
    assert_eq!((last_used().await, app.app.keyring.take_used()), (None, Vec::new()));
    app.get("/events").header("authorization", &format!("Bearer {key}")).send().await.expect_status(200);
    let used = app.app.keyring.take_used();
    assert_eq!(used.len(), 1);
    primary.record_key_use(&used).await.expect("the use is recorded");
    assert_eq!(last_used().await, Some(used[0].1));
    // An older use, of another process, does not replace it.
    let older = (used[0].0.clone(), used[0].1 - chrono::TimeDelta::minutes(1));
    primary.record_key_use(&[older]).await.expect("the use is recorded");
    assert_eq!(last_used().await, Some(used[0].1));
    assert_eq!(app.app.keyring.take_used(), Vec::new());
}
