//! The requests of the demo. Those that write can be repeated safely, and are, while the service is unavailable.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue, IF_NONE_MATCH};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::cli::client::backoff::Backoff;
use crate::cli::client::event::parse;
use crate::cli::client::failure::{Failure, Kind, notice};
use crate::cli::client::http::Client;
use crate::cli::client::problem::CallError;
use crate::cli::demo::shop::{DemoEvent, EventBody};
use crate::wire::path::{segment, stream_path};

/// How long a request is repeated.
const PATIENCE: Duration = Duration::from_secs(30);

/// The reducer of the orders.
const REDUCER: &str = r"({
  init: () => ({ status: 'new', items: {}, total_cents: 0 }),
  OrderPlaced(state, { event_data }) { state.status = 'placed'; state.customer = event_data.customer; return state },
  ItemAdded(state, { event_data: { product, quantity, price_cents } }) {
    state.items[product] = (state.items[product] ?? 0) + quantity;
    state.total_cents += quantity * price_cents;
    return state;
  },
  ItemRemoved(state, { event_data: { product, quantity, price_cents } }) {
    state.items[product] -= quantity;
    if (state.items[product] === 0) delete state.items[product];
    state.total_cents -= quantity * price_cents;
    return state;
  },
  OrderPaid(state, { event_data }) { state.status = 'paid'; state.payment = event_data.payment; return state },
  OrderCancelled(state, { event_data }) { state.status = 'cancelled'; state.reason = event_data.reason; return state },
  OrderShipped(state, { event_data }) { state.status = 'shipped'; state.shipment = event_data.shipment; return state },
  OrderDelivered(state) { state.status = 'delivered'; return state },
})";

/// The events of one stream in a request.
#[derive(Serialize)]
struct Append<'e> {
    aggregate_type: &'static str,
    aggregate_id: &'e str,
    /// `none` for a new stream, so that the demo never appends to a stream that it did not begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_version: Option<&'static str>,
    events: Vec<&'e EventBody>,
}

#[derive(Deserialize)]
struct Stats {
    head: u64,
}

#[derive(Deserialize)]
struct Appended {
    global_position: u64,
}

#[derive(Deserialize)]
struct AppendedToStreams {
    appends: Vec<Appended>,
}

/// Returns the position of the last event of the store.
pub async fn head(client: &Client) -> Result<u64, Failure> {
    let body = client.get("/stats").await?;
    let stats: Stats = parse(&body)?;
    Ok(stats.head)
}

/// Appends events in one atomic step: those of one stream with `POST /streams/…`, those of several with
/// `POST /appends`. Returns the position of the last event.
pub async fn append(client: &Client, events: &[DemoEvent]) -> Result<u64, Failure> {
    let mut appends: Vec<Append<'_>> = Vec::new();
    for event in events {
        let stream = (event.aggregate_type, event.aggregate_id.as_str());
        match appends.iter_mut().find(|append| (append.aggregate_type, append.aggregate_id) == stream) {
            Some(append) => append.events.push(&event.body),
            None => appends.push(Append {
                aggregate_type: event.aggregate_type,
                aggregate_id: &event.aggregate_id,
                expected_version: event.is_first.then_some("none"),
                events: vec![&event.body],
            }),
        }
    }
    let mut headers = HeaderMap::new();
    if let [append] = appends.as_slice() {
        if append.expected_version.is_some() {
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        let path = stream_path(append.aggregate_type, append.aggregate_id);
        let body = json!({"events": append.events}).to_string();
        let (_, response) = repeat(|| client.post(&path, headers.clone(), body.clone())).await?;
        let appended: Appended = parse(&response)?;
        return Ok(appended.global_position);
    }
    let body = json!({"appends": appends}).to_string();
    let (_, response) = repeat(|| client.post("/appends", headers.clone(), body.clone())).await?;
    let appended: AppendedToStreams = parse(&response)?;
    let last = appended.appends.iter().map(|appended| appended.global_position).max();
    last.ok_or_else(|| Failure::new(Kind::Other, "the service has appended nothing"))
}

/// Registers the reducer of the orders, unless they have one. Returns whether they have one now. A key with too few
/// rights is a notice: the rest of the demo does not need the reducer.
pub async fn register_reducer(client: &Client) -> Result<bool, Failure> {
    const PATH: &str = "/reducers/Order";
    match client.get(PATH).await {
        Ok(_) => return Ok(true),
        Err(CallError::Problem(problem)) if problem.status == 404 => {}
        Err(error) => return unless_forbidden(error, "the reducer of Order is not registered"),
    }
    let body = json!({"language": "javascript", "source": REDUCER}).to_string();
    match repeat(|| client.put(PATH, body.clone())).await {
        Ok(_) => Ok(true),
        Err(error) => unless_forbidden(error, "the reducer of Order is not registered"),
    }
}

/// Sets the position of a projection. Returns whether the key may do so. A projection that is further already, because
/// another demo moves it, stays there.
pub async fn set_projection(client: &Client, name: &str, position: u64) -> Result<bool, Failure> {
    let path = format!("/projections/{}", segment(name));
    let body = json!({"last_processed_position": position}).to_string();
    match repeat(|| client.put(&path, body.clone())).await {
        Ok(_) => Ok(true),
        Err(CallError::Problem(problem)) if problem.code == "position_regressed" => Ok(true),
        Err(error) => unless_forbidden(error, &format!("the projection {name} is not set")),
    }
}

/// Prints a notice and returns false if the key has too few rights. Returns any other error.
pub fn unless_forbidden(error: CallError, consequence: &str) -> Result<bool, Failure> {
    match &error {
        CallError::Problem(problem) if problem.status == 403 => {
            notice(&format!("{consequence}: {}", error.message()));
            Ok(false)
        }
        _ => Err(error.into()),
    }
}

/// Repeats a call while the service is unavailable. Returns the last error when the patience ends.
pub async fn repeat<T, F: Future<Output = Result<T, CallError>>>(call: impl Fn() -> F) -> Result<T, CallError> {
    let deadline = Instant::now() + PATIENCE;
    let mut backoff = Backoff::new();
    loop {
        let error = match call().await {
            Err(error) if error.is_temporary() => error,
            done => return done,
        };
        let pause = backoff.next_pause(error.retry_after());
        if Instant::now() + pause > deadline {
            return Err(error);
        }
        sleep(pause).await;
    }
}
