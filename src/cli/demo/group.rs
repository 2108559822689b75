//! The consumer group of the demo: two workers have processed a part of the orders, and the mails of two customers have
//! failed.

use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::json;

use crate::cli::client::event::parse;
use crate::cli::client::failure::Failure;
use crate::cli::client::http::Client;
use crate::cli::demo::service::{repeat, unless_forbidden};

/// The name of the group.
pub const GROUP: &str = "demo-mailer";
/// The number of claims that are acknowledged, and the events of each.
const CLAIMS: usize = 12;
const EVENTS: usize = 20;

#[derive(Deserialize)]
struct Claim {
    claim_id: String,
    claimed_to: u64,
    events: Vec<ClaimedEvent>,
}

#[derive(Deserialize)]
struct ClaimedEvent {
    global_position: u64,
}

/// Creates the group, and processes a part of its events. Returns whether the key may do so.
pub async fn work(client: &Client) -> Result<bool, Failure> {
    let settings = json!({"filter": {"aggregate_type": ["Order"], "event_type": ["OrderPlaced", "OrderShipped"]},
        "partitions": 8, "lease_seconds": 600});
    let path = format!("/groups/{GROUP}");
    match repeat(|| client.put(&path, settings.to_string())).await {
        Ok(_) => {}
        Err(error) => return unless_forbidden(error, "the consumer group is not created"),
    }
    for number in 0..=CLAIMS {
        let worker = json!({"worker": format!("mailer-{}", number % 2 + 1)}).to_string();
        let path = format!("{path}/claims?limit={EVENTS}");
        let (_, body) = repeat(|| client.post(&path, HeaderMap::new(), worker.clone())).await?;
        // Without a body, no event waits.
        if body.is_empty() {
            break;
        }
        let claim: Claim = parse(&body)?;
        // A worker has just taken the last claim.
        if number == CLAIMS {
            break;
        }
        let first = claim.events.first().map_or(0, |event| event.global_position);
        let failed = match number {
            0 => json!([{"global_position": first, "reason": "the mail server did not respond", "retry_after": 3600}]),
            1 => json!([{"global_position": first, "reason": "the address does not exist", "retry_after": null}]),
            _ => json!([]),
        };
        let done = json!({"last_processed_position": claim.claimed_to, "failed": failed}).to_string();
        let path = format!("/groups/{GROUP}/claims/{}", claim.claim_id);
        repeat(|| client.put(&path, done.clone())).await?;
    }
    Ok(true)
}
