//! Promise P2, P3, P4: two replicas of the service on one database. Of several appends with one expected version, one
//! succeeds. Positions are one sequence, and an event id is written once.

use std::collections::{BTreeSet, HashSet};

use serde_json::json;

use crate::support::{TestApp, TestDatabase, TestOptions, event_with_id, events, id};

async fn start_two() -> [TestApp; 2] {
    let database = TestDatabase::create().await;
    let first = TestApp::start_on(database.clone(), TestOptions::default()).await;
    [first, TestApp::start_on(database, TestOptions::default()).await]
}

#[tokio::test]
async fn of_64_clients_with_one_expected_version_one_succeeds_in_each_round() {
    let replicas = start_two().await;
    for round in 0..25u64 {
        let clients = (0..64).map(|n| {
            let body = json!({"events": [{"event_type": "Won", "event_data": {"round": round, "client": n}}]});
            replicas[n % 2].post("/streams/Race/1", &body).if_match(round).send()
        });
        let replies = futures_util::future::join_all(clients).await;
        let (winners, losers): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 201);
        assert_eq!((winners.len(), losers.len()), (1, 63));
        assert_eq!(winners[0].json()["version"], round + 1);
        for loser in losers {
            assert_eq!(loser.expect_problem(412, "version_conflict")["current_version"], round + 1);
        }
    }
    assert_eq!(replicas[0].get("/streams/Race/1").send().await.versions(), (1..=25).collect::<Vec<_>>());
}

#[tokio::test]
async fn positions_are_one_sequence_over_all_replicas() {
    let replicas = start_two().await;
    let appends =
        (0..400).map(|n| replicas[n % 2].post(&format!("/streams/S/{}", n % 50), &events(&["A", "B"])).send());
    let replies = futures_util::future::join_all(appends).await;
    let mut positions = BTreeSet::new();
    for reply in replies {
        let body = reply.expect_status(201).json();
        positions.extend(body["events"].as_array().expect("events").iter().map(|e| e["global_position"].as_u64()));
    }
    assert_eq!(positions, (1..=800).map(Some).collect());
}

#[tokio::test]
async fn one_event_id_is_written_once_over_all_replicas() {
    let replicas = start_two().await;
    for n in 0..20 {
        let body = event_with_id(&id(n));
        let sent = (0..10).map(|c| replicas[c % 2].post("/streams/Order/1", &body).send());
        let replies = futures_util::future::join_all(sent).await;
        assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
        assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 9);
        assert_eq!(replies.iter().map(|reply| reply.text()).collect::<HashSet<_>>().len(), 1);
    }
    assert_eq!(replicas[1].get("/streams/Order/1").send().await.versions().len(), 20);
}

#[tokio::test]
async fn an_event_is_visible_on_the_other_replica_at_once() {
    let replicas = start_two().await;
    for n in 1..=20u64 {
        let writer = &replicas[n as usize % 2];
        writer.post("/streams/Order/1", &events(&["E"])).if_match(n - 1).send().await.expect_status(201);
        let reader = &replicas[(n as usize + 1) % 2];
        assert_eq!(reader.get("/streams/Order/1").send().await.header("etag"), Some(format!("\"{n}\"").as_str()));
    }
}
