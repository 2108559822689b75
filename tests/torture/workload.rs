//! The load: writers that append and repeat each request until it has a response, and readers of every kind. All
//! requests pass through proxies.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use annals::domain::event::Position;
use annals::domain::version::Version;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::cluster::REPLICAS;
use super::history::{
    Append, Attempt, Erased, EventName, Fault, Logged, Micros, Outcome, Processed, Read, Reader, Request,
};
use super::http_client::http_client;

/// A request without a response after this time counts as hung. The service itself stops waiting after 15 seconds.
const RESPONSE_MAX: Duration = Duration::from_secs(25);
/// An event stream without data for this time is opened again.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// The time limit for readers to reach the end of the log.
const READERS_MAX: Duration = Duration::from_secs(60);
/// The aggregate types: the first one has a reducer, the second one has none.
pub const TYPES: [&str; 2] = ["Order", "Invoice"];

/// The state that writers and readers share.
pub struct Load {
    started: Instant,
    bases: [String; REPLICAS],
    client: reqwest::Client,
    streams: u64,
    pub requests: Mutex<Vec<Request>>,
    pub reads: Mutex<Vec<Read>>,
    pub readers: Mutex<HashMap<String, Reader>>,
    pub processed: Mutex<Vec<Processed>>,
    pub erased: Mutex<Vec<Erased>>,
    /// Responses to readers that no fault of the run explains.
    pub unexpected: Mutex<Vec<Fault>>,
    /// The last known version of each stream, for writers that expect a version.
    versions: Mutex<HashMap<String, Version>>,
    /// Each request in progress holds this lock shared. While a task holds it exclusively, no request is in progress.
    quiet: RwLock<()>,
    /// The number of requests that each replica has acknowledged.
    pub acknowledged: [AtomicU64; REPLICAS],
    stopped: AtomicBool,
    next_writer: AtomicU32,
    next_reader: AtomicU32,
}

impl Load {
    pub fn new(bases: [String; REPLICAS], streams: u64) -> anyhow::Result<Arc<Self>> {
        let client = http_client().tcp_nodelay(true).build()?;
        Ok(Arc::new(Self {
            started: Instant::now(),
            bases,
            client,
            streams,
            requests: Mutex::default(),
            reads: Mutex::default(),
            readers: Mutex::default(),
            processed: Mutex::default(),
            erased: Mutex::default(),
            unexpected: Mutex::default(),
            versions: Mutex::default(),
            quiet: RwLock::new(()),
            acknowledged: Default::default(),
            stopped: AtomicBool::new(false),
            next_writer: AtomicU32::new(0),
            next_reader: AtomicU32::new(0),
        }))
    }

    pub fn now(&self) -> Micros {
        self.started.elapsed().as_micros() as Micros
    }

    /// Waits until no request is in progress. No request begins until the returned guard is dropped.
    pub async fn quiesce(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.quiet.write().await
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Returns a GET request to one replica, through its proxy.
    pub fn get(&self, replica: usize, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.bases[replica]))
    }

    /// Begins a request. A run ends when no request is in progress.
    pub async fn begin(&self) -> tokio::sync::RwLockReadGuard<'_, ()> {
        self.quiet.read().await
    }

    /// Sends a request to one replica, through its proxy.
    pub async fn send_to(
        &self,
        method: &str,
        replica: usize,
        path: &str,
        body: Option<&Value>,
    ) -> reqwest::Result<reqwest::Response> {
        let method = method.parse().expect("a method");
        let request = self.client.request(method, format!("{}{path}", self.bases[replica])).timeout(RESPONSE_MAX);
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        };
        request.send().await
    }

    /// Returns the number of acknowledgements that succeeded.
    pub fn acknowledged_claims(&self) -> usize {
        self.processed.lock().expect("the lock").len()
    }

    /// Records an accepted acknowledgement of a worker.
    pub fn record_processed(&self, processed: Processed) {
        self.processed.lock().expect("the lock").push(processed);
    }

    /// Records a response that no fault of the run explains.
    pub fn report(&self, what: &str, response: String) {
        let fault = Fault { round: 0, at: self.now(), what: what.to_owned(), harm: Some(response) };
        self.unexpected.lock().expect("the lock").push(fault);
    }

    /// Registers merge-patch for the first type, so that each state contains the id of its last event.
    pub async fn register_reducer(&self) -> anyhow::Result<()> {
        let call = self.client.put(format!("{}/reducers/{}", self.bases[0], TYPES[0]));
        let body = json!({"language": "merge-patch"}).to_string();
        call.header("content-type", "application/json").body(body).send().await?.error_for_status()?;
        Ok(())
    }

    /// Waits until every reader has received its events of this log, up to a time limit. The checker reports the
    /// readers that have missed events.
    pub async fn wait_for_readers(&self, log: &[Logged]) {
        let complete = |reader: &Reader| {
            let of_type = |event: &&Logged| {
                let aggregate_type = event.stream.split('/').next();
                reader.aggregate_type.is_none() || reader.aggregate_type.as_deref() == aggregate_type
            };
            let last = log.iter().rev().find(of_type).map_or(0, |event| event.global_position);
            reader.events.last().is_some_and(|(position, _)| *position >= last) || last == 0
        };
        let all = async {
            while !self.readers.lock().expect("the lock").values().all(complete) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(READERS_MAX, all).await;
    }

    /// Appends until the load is stopped.
    pub async fn write(self: Arc<Self>, seed: u64) {
        let writer = self.next_writer.fetch_add(1, Ordering::SeqCst) as u16;
        let mut random = fastrand::Rng::with_seed(seed ^ (u64::from(writer) << 32));
        for number in 1.. {
            tokio::time::sleep(Duration::from_millis(random.u64(0..20))).await;
            let in_progress = self.quiet.read().await;
            if self.is_stopped() {
                return;
            }
            let mut request =
                Request { writer, number, appends: self.choose_appends(&mut random), attempts: Vec::new() };
            self.send_until_completed(&mut request, &mut random).await;
            self.record_versions(&request);
            self.requests.lock().expect("the lock").push(request);
            drop(in_progress);
        }
    }

    /// Chooses appends to one or two streams. Some appends expect the last known version.
    fn choose_appends(&self, random: &mut fastrand::Rng) -> Vec<Append> {
        let mut appends = Vec::<Append>::new();
        let streams = if random.u8(0..100) < 8 { 2 } else { 1 };
        while appends.len() < streams {
            let stream = format!("{}/{}", TYPES[random.usize(0..2)], random.u64(0..self.streams));
            if appends.iter().any(|append| append.stream == stream) {
                continue;
            }
            let known = self.versions.lock().expect("the lock").get(&stream).copied().unwrap_or(0);
            let expected = (random.u8(0..100) < 40).then_some(known);
            let events = if random.u8(0..100) < 20 { random.u16(2..=5) } else { 1 };
            appends.push(Append { stream, expected, events });
        }
        appends
    }

    async fn send_until_completed(&self, request: &mut Request, random: &mut fastrand::Rng) {
        loop {
            // The number of the writer decides the replica of its first attempt. Further attempts alternate.
            let replica = (usize::from(request.writer) + request.attempts.len()) % REPLICAS;
            // Some requests are aborted, and some are sent twice at the same time.
            let time_limit =
                if random.u8(0..100) < 4 { Duration::from_millis(random.u64(0..20)) } else { RESPONSE_MAX };
            let first = self.send(request, replica, time_limit);
            if random.u8(0..100) < 4 {
                let (first, second) = tokio::join!(first, self.send(request, REPLICAS - 1 - replica, RESPONSE_MAX));
                request.attempts.extend([first, second]);
            } else {
                let attempt = first.await;
                request.attempts.push(attempt);
            }
            let is_final = |attempt: &Attempt| {
                matches!(
                    attempt.outcome,
                    Outcome::Written(_)
                        | Outcome::Replayed(_)
                        | Outcome::Conflict(_)
                        | Outcome::Unexpected(_)
                        | Outcome::Hung
                )
            };
            if request.attempts.iter().any(is_final) {
                // In the history, the last attempt is the one with the final response.
                request.attempts.sort_by_key(is_final);
                return;
            }
            tokio::time::sleep(Duration::from_millis(random.u64(20..150))).await;
        }
    }

    async fn send(&self, request: &Request, replica: usize, time_limit: Duration) -> Attempt {
        let sent = self.now();
        let response = tokio::time::timeout(time_limit, self.post(request, replica)).await;
        let outcome = match response {
            Ok(Ok((status, body))) => classify(request, status, &body),
            Ok(Err(error)) => Outcome::Unknown(format!("{error:?}").chars().take(200).collect()),
            Err(_) if time_limit < RESPONSE_MAX => Outcome::Unknown("aborted by the client".to_owned()),
            Err(_) => Outcome::Hung,
        };
        if matches!(outcome, Outcome::Written(_) | Outcome::Replayed(_)) {
            self.acknowledged[replica].fetch_add(1, Ordering::SeqCst);
        }
        Attempt { sent, ended: self.now(), replica, outcome }
    }

    async fn post(&self, request: &Request, replica: usize) -> reqwest::Result<(u16, String)> {
        let events = |names: Vec<EventName>| -> Vec<Value> {
            let event =
                |name: EventName| json!({"event_id": name.id(), "event_type": "Happened", "event_data": name.data()});
            names.into_iter().map(event).collect()
        };
        let base = &self.bases[replica];
        let mut appends: Vec<_> = request.names().map(|(append, names)| (append, events(names))).collect();
        let call = if appends.len() == 1 {
            let (append, events) = appends.remove(0);
            let mut call = self.client.post(format!("{base}/streams/{}", append.stream));
            if let Some(expected) = append.expected {
                call = call.header("if-match", format!("\"{expected}\""));
            }
            call.body(json!({ "events": events }).to_string())
        } else {
            let append = |(append, events): (&Append, Vec<Value>)| {
                let (aggregate_type, aggregate_id) = append.stream.split_once('/').expect("type/id");
                let mut body =
                    json!({"aggregate_type": aggregate_type, "aggregate_id": aggregate_id, "events": events});
                if let Some(expected) = append.expected {
                    body["expected_version"] = expected.into();
                }
                body
            };
            let appends: Vec<_> = appends.into_iter().map(append).collect();
            self.client.post(format!("{base}/appends")).body(json!({ "appends": appends }).to_string())
        };
        let response = call.header("content-type", "application/json").send().await?;
        let status = response.status().as_u16();
        Ok((status, response.text().await?))
    }

    fn record_versions(&self, request: &Request) {
        let mut versions = self.versions.lock().expect("the lock");
        let mut record = |stream: &String, version: Version| {
            let known = versions.entry(stream.clone()).or_default();
            *known = version.max(*known);
        };
        for (append, (first, _)) in request.appends.iter().zip(request.acknowledged().unwrap_or_default()) {
            record(&append.stream, first + Version::from(append.events) - 1);
        }
        for attempt in &request.attempts {
            if let Outcome::Conflict(current) = &attempt.outcome {
                current.iter().for_each(|(stream, version)| record(stream, *version));
            }
        }
    }
}

/// Returns the outcome of a request with this response.
fn classify(request: &Request, status: u16, body: &str) -> Outcome {
    let unexpected = || Outcome::Unexpected(format!("{status} {body}"));
    let Ok(response) = serde_json::from_str::<Value>(body) else { return unexpected() };
    let number = |value: &Value| value.as_i64();
    let places = || -> Option<Vec<(Version, Position)>> {
        let one = [response.clone()];
        let appends = response["appends"].as_array().map_or(&one[..], Vec::as_slice);
        let place = |append: &Value| {
            let first = append["events"].get(0)?;
            Some((Version::try_from(number(&append["first_version"])?).ok()?, number(&first["global_position"])?))
        };
        appends.iter().map(place).collect()
    };
    let conflicts = || -> Option<Vec<(String, Version)>> {
        let version = |value: &Value| Version::try_from(number(value)?).ok();
        match response["conflicts"].as_array() {
            None => Some(vec![(request.appends[0].stream.clone(), version(&response["current_version"])?)]),
            Some(conflicts) => conflicts
                .iter()
                .map(|conflict| {
                    let stream =
                        format!("{}/{}", conflict["aggregate_type"].as_str()?, conflict["aggregate_id"].as_str()?);
                    Some((stream, version(&conflict["current_version"])?))
                })
                .collect(),
        }
    };
    let outcome = match (status, response["code"].as_str()) {
        (201, None) => places().map(Outcome::Written),
        (200, None) => places().map(Outcome::Replayed),
        (412 | 409, Some("version_conflict")) => conflicts().map(Outcome::Conflict),
        (503, Some(code @ ("overloaded" | "database_unavailable" | "shutting_down"))) => {
            Some(Outcome::Refused(code.to_owned()))
        }
        (503, Some("outcome_unknown")) => Some(Outcome::Unknown("outcome_unknown".to_owned())),
        _ => None,
    };
    outcome.unwrap_or_else(unexpected)
}

/// The way in which a reader reads the log.
#[derive(Clone, Copy)]
pub enum ReadMode {
    /// By event streams, each of which ends after a random number of events.
    Subscribe,
    /// By event streams, with a pause after every 100 events.
    SubscribeSlowly,
    /// By pages.
    Poll,
}

impl Load {
    /// Reads the log until the task is aborted. Each connection resumes at the cursor of the previous one.
    pub async fn read(
        self: Arc<Self>,
        name: &'static str,
        mode: ReadMode,
        aggregate_type: Option<&'static str>,
        seed: u64,
    ) {
        let number = self.next_reader.fetch_add(1, Ordering::SeqCst);
        let mut random = fastrand::Rng::with_seed(seed ^ 0x4EAD ^ (u64::from(number) << 32));
        let reader =
            Reader { name: name.to_owned(), aggregate_type: aggregate_type.map(str::to_owned), ..Reader::default() };
        self.readers.lock().expect("the lock").insert(name.to_owned(), reader);
        let filter =
            aggregate_type.map_or_else(String::new, |aggregate_type| format!("&aggregate_type={aggregate_type}"));
        let mut cursor = "0".to_owned();
        loop {
            let replica = random.usize(0..REPLICAS);
            match mode {
                ReadMode::Poll => self.poll(name, replica, &filter, &mut cursor).await,
                ReadMode::Subscribe => {
                    let events_max = random.u32(50..3_000);
                    self.subscribe(name, replica, &filter, &mut cursor, events_max, Duration::ZERO).await;
                }
                ReadMode::SubscribeSlowly => {
                    self.subscribe(name, replica, &filter, &mut cursor, 3_000, Duration::from_millis(100)).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(random.u64(10..60))).await;
        }
    }

    /// Returns the text of a successful response to a reader. Records every error except 503 and 404 as unexpected.
    async fn read_body(&self, response: reqwest::Response) -> Option<String> {
        let (status, path) = (response.status(), response.url().path().to_owned());
        let text = response.text().await.ok()?;
        if !status.is_success() && status != 503 && status != 404 {
            let what = format!("a reader requested {path}");
            let fault = Fault { round: 0, at: self.now(), what, harm: Some(format!("{status} {text}")) };
            self.unexpected.lock().expect("the lock").push(fault);
        }
        status.is_success().then_some(text)
    }

    fn record(&self, reader: &str, events: impl IntoIterator<Item = Value>) {
        let mut readers = self.readers.lock().expect("the lock");
        let reader = readers.get_mut(reader).expect("a reader");
        for event in events {
            let id = event["event_id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
            reader.events.push((event["global_position"].as_i64().unwrap_or(0), id));
        }
    }

    async fn poll(&self, name: &str, replica: usize, filter: &str, cursor: &mut String) {
        let asked = self.now();
        let call = self.get(replica, &format!("/events?after={cursor}&limit=500{filter}"));
        let Ok(response) = call.timeout(RESPONSE_MAX).send().await else { return };
        let Some(text) = self.read_body(response).await else { return };
        let Ok(mut page) = serde_json::from_str::<Value>(&text) else { return };
        let ended = self.now();
        let (Some(head), Some(next), Some(epoch)) =
            (page["head"].as_i64(), page["next_after"].as_i64(), page["epoch"].as_i64())
        else {
            return;
        };
        self.reads.lock().expect("the lock").push(Read::Head { asked, ended, head });
        let events = page["events"].as_array_mut().map(std::mem::take).unwrap_or_default();
        for announcement in events.iter().filter(|event| event["event_type"] == "$erased") {
            super::erasers::check_announced(self, replica, announcement).await;
        }
        self.record(name, events);
        *cursor = format!("{epoch}:{next}");
    }

    /// Reads one event stream, up to a number of events.
    async fn subscribe(
        &self,
        name: &str,
        replica: usize,
        filter: &str,
        cursor: &mut String,
        events_max: u32,
        pause: Duration,
    ) {
        let path = format!("/events?after=0{filter}");
        let call = self.get(replica, &path).header("accept", "text/event-stream");
        // The header takes precedence over the parameter. The first request has no header.
        let call = if cursor == "0" { call } else { call.header("last-event-id", cursor.as_str()) };
        let Ok(Ok(mut response)) = tokio::time::timeout(SILENCE_MAX, call.send()).await else { return };
        if !response.status().is_success() {
            self.read_body(response).await;
            return;
        }
        self.readers.lock().expect("the lock").get_mut(name).expect("a reader").connections += 1;
        let (mut buffer, mut count) = (Vec::new(), 0);
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout(SILENCE_MAX, response.chunk()).await {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
                let frame: Vec<u8> = buffer.drain(..end + 2).collect();
                let frame = String::from_utf8_lossy(&frame);
                let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                if let (None, Some(Ok(event))) = (field("event"), field("data").map(serde_json::from_str::<Value>)) {
                    self.record(name, [event]);
                    count += 1;
                    // At the end of the run, slow readers do not pause, so that they catch up.
                    if count % 100 == 0 && !self.is_stopped() {
                        tokio::time::sleep(pause).await;
                    }
                }
                if let Some(id) = field("id") {
                    *cursor = id.to_owned();
                }
            }
            if count >= events_max {
                return;
            }
        }
    }

    /// Reads states of random aggregates until the task is aborted.
    pub async fn read_states(self: Arc<Self>, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed ^ 0xF01D);
        loop {
            tokio::time::sleep(Duration::from_millis(random.u64(20..80))).await;
            let stream = format!("{}/{}", TYPES[0], random.u64(0..self.streams));
            let asked = self.now();
            let call = self.get(random.usize(0..REPLICAS), &format!("/aggregates/{stream}/state"));
            let Ok(response) = call.timeout(RESPONSE_MAX).send().await else { continue };
            let Some(text) = self.read_body(response).await else { continue };
            let Ok(state) = serde_json::from_str::<Value>(&text) else { continue };
            let version = state["version"].as_i64().and_then(|version| Version::try_from(version).ok());
            let last = state["state"]["last"].as_str().and_then(|id| id.parse().ok());
            if let (Some(version), Some(last)) = (version, last) {
                let read = Read::State { asked, ended: self.now(), stream, version, last };
                self.reads.lock().expect("the lock").push(read);
            }
        }
    }
}
