//! The good client: one connection that sends requests at a steady pace and measures their times.
//!
//! It runs on a thread of its own, so that its times do not include the work of the clients of an attack.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::time::MissedTickBehavior;

use crate::fairness::connection::{Connection, Key, RESPONSE_TIMEOUT, Reply};
use crate::fairness::event_stream::EventStream;
use crate::fairness::samples::Samples;
use crate::fairness::store::{GOOD_SNAPSHOT_EVERY, GOOD_SNAPSHOT_TYPE, GOOD_STATE_TYPE, GOOD_STATES, GOOD_TYPE};
use crate::import::GROWING_STREAMS;
use crate::load;
use crate::load::{EVENT_DATA, RequestCounter};

/// The time from one request to the next, unless the response takes longer.
const PACE: Duration = Duration::from_millis(10);
/// The number of requests that are sent and not measured.
const WARM_UP: usize = 20;
/// The pause after a refused request, which is the usual value of `Retry-After`.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// The time from one request for a snapshot that does not exist to the next.
const SNAPSHOT_POLL: Duration = Duration::from_millis(5);
/// The longest wait for a snapshot.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(60);

/// What the good client measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The time from sending an append until the client has its response and its event stream has delivered the event.
    Delivery,
    /// The response time of a request for a state.
    State,
    /// The time from the response to an append that makes a snapshot due until the snapshot is stored.
    Snapshot,
    /// The response time of a read of a stream.
    Stream,
    /// The response time of a read of a page of the log.
    LogPage,
    /// The response time of an append.
    Append,
}

impl Probe {
    /// Describes what is measured for the report.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Delivery => "append and delivery to an event stream",
            Self::State => "state of a third type",
            Self::Snapshot => "append to snapshot of another type",
            Self::Stream => "read of a stream",
            Self::LogPage => "read of 100 events of the log",
            Self::Append => "append of an event",
        }
    }
}

/// The good client of a server.
#[derive(Clone)]
pub struct GoodClient {
    pub address: String,
    pub key: Key,
    /// The number of events with which the log was filled.
    pub events: u64,
    /// Numbers the requests to all servers, because they share a store.
    pub counter: RequestCounter,
}

impl GoodClient {
    /// Sends some requests, so that caches and connections of the server are filled.
    pub async fn warm_up(&self, probe: Probe) -> anyhow::Result<()> {
        const DURATION_MAX: Duration = Duration::from_secs(10);
        let samples = self.send(probe, WARM_UP, DURATION_MAX).await?;
        ensure!(
            samples.refused.is_empty(),
            "the service refused requests without an attack ({}): {}",
            probe.describe(),
            samples.refused
        );
        Ok(())
    }

    /// Sends requests for a time.
    pub async fn measure(&self, probe: Probe, duration: Duration) -> anyhow::Result<Samples> {
        self.send(probe, usize::MAX, duration).await
    }

    async fn send(&self, probe: Probe, count: usize, duration: Duration) -> anyhow::Result<Samples> {
        let connection = Connection::new(&self.address);
        let session = Session { client: self.clone(), connection, event_stream: None };
        load::on_own_thread(async move { Ok(session.send(probe, count, duration).await) }).await
    }
}

/// The connections of the good client.
struct Session {
    client: GoodClient,
    connection: Connection,
    /// `None` until the first measurement of a delivery, and after the service has ended it.
    event_stream: Option<EventStream>,
}

/// The time of a successful request, or the description of the refusal or the failure.
type Sample = Result<Duration, String>;

impl Session {
    async fn send(mut self, probe: Probe, count: usize, duration: Duration) -> Samples {
        let until = Instant::now() + duration;
        let mut ticks = tokio::time::interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut samples = Samples::default();
        while samples.count() < count && Instant::now() < until {
            ticks.tick().await;
            let sample = self.measure(probe).await;
            let is_refused = sample.is_err();
            samples.add(sample);
            if is_refused {
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
        samples
    }

    async fn measure(&mut self, probe: Probe) -> Sample {
        let GoodClient { key, events, counter, .. } = &self.client;
        let n = counter.next();
        let request = match probe {
            Probe::Delivery => return self.measure_delivery(n).await,
            Probe::Snapshot => return self.measure_snapshot(n).await,
            Probe::State => key.get(&format!("/aggregates/{GOOD_STATE_TYPE}/agg-{}/state", n % GOOD_STATES)),
            Probe::Stream => key.get(&format!("/streams/{GOOD_TYPE}/ord-{}", n % GROWING_STREAMS)),
            Probe::LogPage => key.get(&format!("/events?after={}&limit=100", load::page_start(n, *events))),
            Probe::Append => key.append(&format!("{GOOD_TYPE}/new-{n}"), &load::append_body(1, EVENT_DATA)),
        };
        let started = Instant::now();
        let reply = self.connection.exchange(&request).await;
        check(reply)?;
        Ok(started.elapsed())
    }

    async fn measure_delivery(&mut self, n: u64) -> Sample {
        let GoodClient { address, key, .. } = &self.client;
        let mut event_stream = match self.event_stream.take() {
            Some(event_stream) => event_stream,
            None => EventStream::open(address, key).await.map_err(|refusal| format!("event stream: {refusal}"))?,
        };
        let id = format!("delivered-{n}");
        let request = key.append(&format!("{GOOD_TYPE}/{id}"), &load::append_body(1, EVENT_DATA));
        let started = Instant::now();
        check(self.connection.exchange(&request).await)?;
        let quoted = format!("\"{id}\"");
        let delivery = event_stream.read_until(&quoted);
        match tokio::time::timeout(RESPONSE_TIMEOUT, delivery).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err("event stream ended".to_owned()),
            Err(_) => return Err("event not delivered".to_owned()),
        }
        self.event_stream = Some(event_stream);
        Ok(started.elapsed())
    }

    async fn measure_snapshot(&mut self, n: u64) -> Sample {
        let key = &self.client.key;
        let aggregate = format!("{GOOD_SNAPSHOT_TYPE}/agg-{n}");
        let append = key.append(&aggregate, &load::append_body(GOOD_SNAPSHOT_EVERY, EVENT_DATA));
        let read = key.get(&format!("/snapshots/{aggregate}"));
        check(self.connection.exchange(&append).await)?;
        let appended = Instant::now();
        while appended.elapsed() < SNAPSHOT_DEADLINE {
            let reply = self.connection.exchange(&read).await;
            if reply.status != Some(404) {
                return check(reply).map(|()| appended.elapsed());
            }
            tokio::time::sleep(SNAPSHOT_POLL).await;
        }
        Err(format!("no snapshot within {} s", SNAPSHOT_DEADLINE.as_secs()))
    }
}

/// Fails if the service refused a request.
fn check(reply: Reply) -> Result<(), String> {
    if reply.is_refusal() { Err(reply.outcome) } else { Ok(()) }
}
