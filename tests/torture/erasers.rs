//! A client that erases events of acknowledged requests, and checks of what readers receive afterwards.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::cluster::REPLICAS;
use super::history::Erased;
use super::workload::Load;

/// Erases until the load is stopped.
pub async fn erase(load: Arc<Load>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed ^ 0xE4A5E);
    loop {
        tokio::time::sleep(Duration::from_millis(random.u64(50..400))).await;
        let _in_progress = load.begin().await;
        if load.is_stopped() {
            return;
        }
        let Some(event_ids) = choose_events(&load, &mut random) else { continue };
        let body = json!({"reason": "a test", "event_ids": event_ids});
        let receipt = loop {
            if let Some(receipt) = send(&load, random.usize(0..REPLICAS), &body).await {
                break receipt;
            }
            tokio::time::sleep(Duration::from_millis(random.u64(20..150))).await;
        };
        let erasure = receipt["erasure"].as_i64().unwrap_or_default();
        load.erased.lock().expect("the lock").push(Erased { erasure, event_ids: event_ids.clone() });
        for replica in 0..REPLICAS {
            check_hidden(&load, replica, &event_ids).await;
        }
    }
}

/// Returns the ids of the events of one acknowledged request; `None` if there is none yet.
fn choose_events(load: &Load, random: &mut fastrand::Rng) -> Option<Vec<Uuid>> {
    let requests = load.requests.lock().expect("the lock");
    let request = random.choice(&*requests)?;
    request.acknowledged()?;
    Some(request.names().flat_map(|(_, names)| names).map(|name| name.id()).collect())
}

/// Sends a request. Returns the receipt; `None` if the request must be sent again.
async fn send(load: &Load, replica: usize, body: &Value) -> Option<Value> {
    let response = load.send_to("POST", replica, "/erasures", Some(body)).await.ok()?;
    let status = response.status().as_u16();
    let text = response.text().await.ok()?;
    match status {
        200 | 201 => serde_json::from_str(&text).ok(),
        503 => None,
        _ => {
            load.report("an erasure", format!("{status} {text}"));
            Some(Value::Null)
        }
    }
}

/// Reads erased events. Without a response, nothing is checked.
async fn check_hidden(load: &Load, replica: usize, event_ids: &[Uuid]) {
    for id in event_ids {
        let Some(event) = read(load, replica, &format!("/events/{id}")).await else { continue };
        if !event["event_data"].is_null() {
            load.report("a read of an erased event", event.to_string());
        }
    }
}

/// Reads the events that a received announcement names.
pub async fn check_announced(load: &Load, replica: usize, announcement: &Value) {
    let name = |member: &str| announcement[member].as_str().unwrap_or_default().to_owned();
    let path = format!("/streams/{}/{}", name("aggregate_type"), name("aggregate_id"));
    let versions = announcement["event_data"]["versions"].as_array().cloned().unwrap_or_default();
    for range in versions {
        let query = format!("from_version={}&to_version={}", range[0], range[1]);
        let path = format!("{path}?{query}&min_position={}", announcement["global_position"]);
        let Some(page) = read(load, replica, &path).await else { continue };
        let events = page["events"].as_array().cloned().unwrap_or_default();
        if let Some(event) = events.iter().find(|event| !event["event_data"].is_null()) {
            load.report("a read of an announced erasure", event.to_string());
        }
    }
}

async fn read(load: &Load, replica: usize, path: &str) -> Option<Value> {
    let response = load.send_to("GET", replica, path, None).await.ok()?.error_for_status().ok()?;
    serde_json::from_str(&response.text().await.ok()?).ok()
}
