//! The workers of a consumer group: they claim events, acknowledge them, and repeat each acknowledgement until its outcome
//! is known. Some are killed, and never acknowledge. Some stall beyond their lease. Some events fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::domain::event::Position;
use anyhow::Context;
use serde_json::{Value, json};

use super::cluster::REPLICAS;
use super::history::Processed;
use super::workload::Load;

const GROUP: &str = "torture";
const PARTITIONS: u32 = 8;
/// A lease ends soon, so that claims of killed workers are handed out again within a round.
const LEASE: Duration = Duration::from_secs(2);
/// A request without a response after this time is sent again.
const RESPONSE_MAX: Duration = Duration::from_secs(25);

/// What a worker knows of its claim.
struct Claim {
    id: String,
    /// The positions of its events, with their streams.
    events: Vec<(Position, String)>,
    claimed_to: Position,
}

/// The outcome of an acknowledgement.
enum Outcome {
    Accepted,
    Lost,
}

fn parse(claim: &Value) -> Option<Claim> {
    let event = |event: &Value| {
        let stream = format!("{}/{}", event["aggregate_type"].as_str()?, event["aggregate_id"].as_str()?);
        Some((event["global_position"].as_i64()?, stream))
    };
    Some(Claim {
        id: claim["claim_id"].as_str()?.to_owned(),
        events: claim["events"].as_array()?.iter().map(event).collect::<Option<_>>()?,
        claimed_to: claim["claimed_to"].as_i64()?,
    })
}

/// Creates the group.
pub async fn create_group(load: &Load) -> anyhow::Result<()> {
    let settings = json!({"partitions": PARTITIONS, "lease_seconds": LEASE.as_secs(), "retry_after": [0, 1]});
    load.send_to("PUT", 0, &format!("/groups/{GROUP}"), Some(&settings)).await?.error_for_status()?;
    Ok(())
}

/// Works until the task is aborted.
pub async fn work(load: Arc<Load>, number: u64, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x3057 ^ (number << 32));
    loop {
        let claim = {
            let _in_progress = load.begin().await;
            claim(&load, &mut random).await
        };
        let Some(claim) = claim else {
            tokio::time::sleep(Duration::from_millis(random.u64(5..40))).await;
            continue;
        };
        // At the end of the run, all workers live.
        match if load.is_stopped() { 100 } else { random.u8(0..100) } {
            // The worker is killed.
            0..4 => continue,
            // It stalls, and continues when its lease may have expired.
            4..6 => tokio::time::sleep(LEASE + Duration::from_millis(random.u64(0..1_500))).await,
            _ => tokio::time::sleep(Duration::from_millis(random.u64(0..20))).await,
        }
        let _in_progress = load.begin().await;
        finish(&load, claim, &mut random).await;
    }
}

/// Tries parked streams again, as an operator would, until the task is aborted.
pub async fn operate(load: Arc<Load>) {
    loop {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let _in_progress = load.begin().await;
        // An outage is no fault of this run: the next pass tries again.
        drop(load.send_to("POST", 1, &format!("/groups/{GROUP}/retries"), Some(&json!({}))).await);
    }
}

async fn claim(load: &Load, random: &mut fastrand::Rng) -> Option<Claim> {
    let path = format!("/groups/{GROUP}/claims?limit={}&wait=1", random.u16(1..200));
    let response = load.send_to("POST", random.usize(0..REPLICAS), &path, None).await.ok()?;
    let status = response.status().as_u16();
    let text = response.text().await.ok()?;
    match status {
        201 => serde_json::from_str(&text).ok().as_ref().and_then(parse),
        204 | 503 => None,
        _ => {
            load.report("a worker asked for a claim", format!("{status} {text}"));
            None
        }
    }
}

/// Acknowledges a claim, often in two steps, and with failed events.
async fn finish(load: &Load, claim: Claim, random: &mut fastrand::Rng) {
    let mut acknowledged = 0;
    let mut failed_streams: Vec<&str> = Vec::new();
    let last = claim.claimed_to;
    let middle = claim.events[random.usize(0..claim.events.len())].0;
    for to in if random.bool() { vec![middle, last] } else { vec![last] } {
        let of_step = |position: Position| acknowledged < position && position <= to;
        let mut failed = Vec::new();
        let mut positions = Vec::new();
        for (position, stream) in claim.events.iter().filter(|(position, _)| of_step(*position)) {
            if failed_streams.contains(&stream.as_str()) {
                continue;
            }
            if !load.is_stopped() && random.u16(0..300) == 0 {
                failed_streams.push(stream);
                failed.push(json!({"global_position": position, "reason": "it failed"}));
            } else {
                positions.push(*position);
            }
        }
        let body = json!({"last_processed_position": to, "failed": failed});
        match acknowledge(load, &claim.id, &body, random).await {
            Outcome::Lost => return,
            Outcome::Accepted => load.record_processed(Processed { claim: claim.id.clone(), positions }),
        }
        if to == last {
            return;
        }
        acknowledged = to;
    }
}

/// Sends an acknowledgement until its outcome is known.
async fn acknowledge(load: &Load, id: &str, body: &Value, random: &mut fastrand::Rng) -> Outcome {
    let path = format!("/groups/{GROUP}/claims/{id}");
    loop {
        let sent = load.send_to("PUT", random.usize(0..REPLICAS), &path, Some(body)).await;
        let answer = match sent {
            Ok(response) => {
                let status = response.status().as_u16();
                response.text().await.map(|text| (status, text))
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok((200, _)) => return Outcome::Accepted,
            Ok((409, text)) if text.contains("\"claim_lost\"") => return Outcome::Lost,
            Ok((503, _)) | Err(_) => {}
            Ok((status, text)) => {
                load.report("a worker acknowledged a claim", format!("{body}: {status} {text}"));
                return Outcome::Lost;
            }
        }
        tokio::time::sleep(Duration::from_millis(random.u64(20..100))).await;
    }
}

/// Waits until the group has processed the whole log, as long as the workers make progress. The checker reports what is
/// left.
pub async fn wait_until_processed(load: &Load, head: Position) -> anyhow::Result<()> {
    let mut acknowledged = load.acknowledged_claims();
    let mut progress_at = Instant::now();
    loop {
        let path = format!("/groups/{GROUP}");
        let response = load.send_to("GET", 0, &path, None).await?.error_for_status()?;
        let group: Value = serde_json::from_str(&response.text().await?)?;
        let position = group["last_processed_position"].as_i64().context("the group has a position")?;
        if position >= head && group["parked_streams"] == 0 && group["open_claims"] == 0 {
            return Ok(());
        }
        let now_acknowledged = load.acknowledged_claims();
        if now_acknowledged > acknowledged {
            (acknowledged, progress_at) = (now_acknowledged, Instant::now());
        }
        anyhow::ensure!(progress_at.elapsed() < RESPONSE_MAX * 3, "the group makes no progress: {group}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
