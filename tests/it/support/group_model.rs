//! No promise: a model of consumer groups. It performs random operations of workers and operators through two processes
//! of the service, and checks the rules that every response must obey (G1 to G7 of
//! docs/explanation/consumer-groups.md). The integration tests and `annals-torture` use it.
//!
//! The model knows nothing of the implementation. It knows the events, which of them an accepted acknowledgement has
//! processed, which streams are parked, and which claims have a live lease. A lease ends when the model says so: it
//! writes the step of an expired lease itself.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

const EXPIRE: &str = "
    INSERT INTO claims
    SELECT (jsonb_populate_record(c, jsonb_build_object(
               'step', c.step + 1, 'kind', 'changed', 'claim_key', NULL,
               'claimed_until', clock_timestamp() - interval '1 second'))).*
      FROM claims c
     WHERE c.group_no = (SELECT g.group_no FROM groups g WHERE g.projection_name = $3)
       AND c.partition = $1
       AND c.claim_step = $2
       AND NOT EXISTS (SELECT FROM claims l WHERE l.group_no = c.group_no AND l.partition = $1 AND l.step > c.step)
    ON CONFLICT DO NOTHING";

const REFUSE_UPDATES: &str = "
    CREATE TRIGGER refuse_updates BEFORE UPDATE ON claims FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()";

/// A rule, and how a response has broken it.
pub type Broken = (&'static str, String);

struct Stream {
    id: String,
    bucket: u8,
    /// The positions of its events.
    events: Vec<i64>,
    /// The number of processed events.
    done: usize,
    is_parked: bool,
}

#[derive(Clone)]
struct Claim {
    id: String,
    partition: i64,
    events: Vec<i64>,
    /// Everything up to here is acknowledged.
    acknowledged: i64,
    claimed_to: i64,
    is_retry: bool,
    /// The lease has not expired.
    is_live: bool,
    /// Another claim of the partition was handed out, or the claim has ended.
    is_over: bool,
}

#[derive(Clone)]
struct Accepted {
    path: String,
    body: Value,
    acknowledged: Value,
    next: Value,
    resets: u32,
}

pub struct Model<'m> {
    group: String,
    aggregate_type: String,
    bases: [String; 2],
    client: reqwest::Client,
    session: &'m mut PgConnection,
    random: fastrand::Rng,
    streams: Vec<Stream>,
    /// The stream of each event.
    at: HashMap<i64, usize>,
    partitions: i64,
    claims: Vec<Claim>,
    accepted: Vec<Accepted>,
    /// The position of each partition, as far as acknowledgements have moved it.
    positions: BTreeMap<i64, i64>,
    /// Up to this position of a partition, a claim has one event: the lease for these events has expired.
    careful_to: BTreeMap<i64, i64>,
    resets: u32,
    pub operations: u32,
    broken: Vec<Broken>,
}

/// Shortens a body for a trace: of the events, only the positions are left.
fn brief(text: &str) -> String {
    fn shorten(value: &mut Value) {
        if let Some(events) = value.get_mut("events").and_then(Value::as_array_mut) {
            events.iter_mut().for_each(|event| *event = json!([event["aggregate_id"], event["global_position"]]));
        }
        value.as_object_mut().into_iter().flatten().for_each(|(_, member)| shorten(member));
    }
    let Ok(mut value) = serde_json::from_str(text) else { return text.to_owned() };
    shorten(&mut value);
    value.to_string()
}

/// Tries what a sequence of operations does not show, with groups of its own: a worker that waits when a lease ends, the
/// epoch of a claim, and what a step does in the database. Returns the broken rules.
pub async fn run_scenarios(
    bases: &[String; 2],
    client: &reqwest::Client,
    session: &mut PgConnection,
) -> anyhow::Result<Vec<Broken>> {
    let call = async |method: &str, path: &str, body: Value| -> anyhow::Result<(u16, Value)> {
        let request = client.request(method.parse()?, format!("{}{path}", bases[0]));
        let response = request.header("content-type", "application/json").body(body.to_string()).send().await?;
        let (status, text) = (response.status().as_u16(), response.text().await?);
        Ok((status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? }))
    };
    let mut broken = Vec::new();
    let event = json!({"events": [{"event_type": "E", "event_data": 1}, {"event_type": "E", "event_data": 2}]});
    call("POST", "/streams/Scenario/1", event).await?;
    let settings = json!({"filter": {"aggregate_type": ["Scenario"]}, "partitions": 1, "lease_seconds": 1});
    let (status, body) = call("PUT", "/groups/scenario", settings).await?;
    anyhow::ensure!(status == 201, "{status} {body}");

    let (_, first) = call("POST", "/groups/scenario/claims?limit=1", json!({})).await?;
    let waiting = call("POST", "/groups/scenario/claims?wait=60", json!({}));
    let woken = tokio::time::timeout(std::time::Duration::from_secs(15), waiting).await;
    let body = match woken {
        Ok(answer) => answer?.1,
        Err(_) => {
            broken.push(("G10 a waiting worker is woken when a lease ends", format!("after {first}")));
            Value::Null
        }
    };
    let end = |claim: &Value| format!("/groups/scenario/claims/{}", claim["claim_id"].as_str().unwrap_or("1.0.1"));
    call("DELETE", &end(&body), json!({})).await?;

    sqlx::query("SELECT begin_epoch(p_reason => 'a scenario')").execute(&mut *session).await?;
    let epoch: i32 = sqlx::query_scalar("SELECT max(epoch) FROM epochs").fetch_one(&mut *session).await?;
    let (_, claim) = call("POST", "/groups/scenario/claims?limit=1", json!({})).await?;
    if claim["epoch"] != epoch {
        broken.push(("G11 a claim is of the current epoch", format!("{claim}, and the epoch is {epoch}")));
    }
    call("DELETE", &end(&claim), json!({})).await?;

    let mut transaction = sqlx::Connection::begin(session).await?;
    sqlx::query("LOCK TABLE append_lock IN EXCLUSIVE MODE").execute(&mut *transaction).await?;
    let asked = call("POST", "/groups/scenario/claims?limit=1", json!({}));
    let answer = tokio::time::timeout(std::time::Duration::from_secs(5), asked).await;
    transaction.rollback().await?;
    if !matches!(answer, Ok(Ok((201, _)))) {
        broken.push(("G13 a step needs no append lock", format!("{answer:?}")));
    }

    sqlx::query(REFUSE_UPDATES).execute(&mut *session).await?;
    let (status, body) = call("POST", "/groups/scenario/claims?limit=1&wait=10", json!({})).await?;
    if status != 201 {
        broken.push(("G12 a step updates no row", format!("{status} {body}")));
    }
    sqlx::query("DROP TRIGGER refuse_updates ON claims").execute(&mut *session).await?;
    Ok(broken)
}

impl<'m> Model<'m> {
    /// Creates a group, and the streams that it will have. Each seed has a group and a type of its own.
    pub async fn start(
        bases: [String; 2],
        client: reqwest::Client,
        session: &'m mut PgConnection,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let mut random = fastrand::Rng::with_seed(seed);
        let aggregate_type = format!("T{seed}");
        let stream = |n: u32| {
            let id = format!("s{n}");
            let bucket = Sha256::digest(format!("{aggregate_type}/{id}").as_bytes())[0];
            Stream { id, bucket, events: Vec::new(), done: 0, is_parked: false }
        };
        let streams = (0..random.u32(2..10)).map(stream).collect();
        let partitions = 1 << random.u32(0..3);
        let mut model = Self {
            group: format!("g{seed}"),
            aggregate_type: aggregate_type.clone(),
            bases,
            client,
            session,
            random,
            streams,
            at: HashMap::new(),
            partitions,
            claims: Vec::new(),
            accepted: Vec::new(),
            positions: BTreeMap::new(),
            careful_to: BTreeMap::new(),
            resets: 0,
            operations: 0,
            broken: Vec::new(),
        };
        let settings = json!({"filter": {"aggregate_type": [aggregate_type]}, "partitions": partitions,
            "lease_seconds": 3600, "retry_after": [0], "last_processed_position": "head"});
        let (status, body, _) =
            model.call("PUT", &format!("/groups/{}", model.group.clone()), Some(&settings), &[]).await?;
        anyhow::ensure!(status == 201, "the group was not created: {status} {body}");
        Ok(model)
    }

    /// Runs a number of random operations, and then processes everything. Returns the broken rules.
    pub async fn run(mut self, operations: u32) -> anyhow::Result<Vec<Broken>> {
        for _ in 0..operations {
            self.operations += 1;
            match self.random.u8(0..100) {
                0..24 => self.append().await?,
                24..46 => self.claim().await?,
                46..52 => self.claim_twice_at_once().await?,
                52..78 => self.acknowledge().await?,
                78..82 => self.acknowledge_again().await?,
                82..87 => self.expire().await?,
                87..89 => self.release().await?,
                89..94 => self.operate().await?,
                94..96 => self.double().await?,
                96..97 => self.reset().await?,
                _ => self.compare_positions().await?,
            }
            if !self.broken.is_empty() {
                return Ok(self.broken);
            }
        }
        self.drain().await?;
        Ok(self.broken)
    }

    fn violated(&mut self, rule: &'static str, what: String) {
        self.broken.push((rule, format!("operation {}: {what}", self.operations)));
    }

    /// Sends a request to one of the processes. Returns the status, the body, and whether it is a replay.
    async fn call(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<(u16, Value, bool)> {
        let base = self.random.usize(0..2);
        self.call_at(base, method, path, body, headers).await
    }

    async fn call_at(
        &self,
        base: usize,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<(u16, Value, bool)> {
        let mut request = self.client.request(method.parse()?, format!("{}{path}", self.bases[base]));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = body.map(Value::to_string).unwrap_or_default();
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let is_replayed = response.headers().contains_key("idempotent-replayed");
        let text = response.text().await?;
        if std::env::var_os("ANNALS_TEST_TRACE").is_some() {
            eprintln!("{} at {base}: {method} {path} {sent} => {status} {}", self.operations, brief(&text));
        }
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? };
        Ok((status, body, is_replayed))
    }

    fn partition_of(&self, stream: usize) -> i64 {
        i64::from(self.streams[stream].bucket) % self.partitions
    }

    async fn append(&mut self) -> anyhow::Result<()> {
        let stream = self.random.usize(0..self.streams.len());
        // Events of another type are not in the group.
        let is_noise = self.random.u8(0..5) == 0;
        let aggregate_type = if is_noise { "Noise" } else { &self.aggregate_type };
        let events: Vec<_> =
            (0..self.random.u32(1..4)).map(|n| json!({"event_type": "E", "event_data": {"n": n}})).collect();
        let path = format!("/streams/{aggregate_type}/{}", self.streams[stream].id);
        let (status, body, _) = self.call("POST", &path, Some(&json!({"events": events})), &[]).await?;
        anyhow::ensure!(status == 201, "an append failed: {status} {body}");
        for event in body["events"].as_array().into_iter().flatten().filter(|_| !is_noise) {
            let position = event["global_position"].as_i64().unwrap_or_default();
            self.streams[stream].events.push(position);
            self.at.insert(position, stream);
        }
        Ok(())
    }

    async fn claim(&mut self) -> anyhow::Result<()> {
        let path = format!("/groups/{}/claims?limit={}", self.group, self.random.u8(1..7));
        let key = format!("k{}", self.random.u8(0..4));
        let headers: &[(&str, &str)] = if self.random.bool() { &[("idempotency-key", &key)] } else { &[] };
        let base = self.random.usize(0..2);
        let (status, body, _) = self.call_at(base, "POST", &path, None, headers).await?;
        self.claimed(status, &body).await?;
        if status == 201 && !headers.is_empty() && self.random.bool() {
            let (again, other, is_replayed) = self.call_at(1 - base, "POST", &path, None, headers).await?;
            if again != 200
                || other["claim_id"] != body["claim_id"]
                || other["events"] != body["events"]
                || !is_replayed
            {
                self.violated("G6 a repeated POST gets the first answer", format!("{body}, then {again} {other}"));
            }
        }
        Ok(())
    }

    /// Two workers ask at the same time, each another process.
    async fn claim_twice_at_once(&mut self) -> anyhow::Result<()> {
        let path = format!("/groups/{}/claims?limit={}", self.group, self.random.u8(1..4));
        let (one, other) =
            tokio::join!(self.call_at(0, "POST", &path, None, &[]), self.call_at(1, "POST", &path, None, &[]));
        for (status, body, _) in [one?, other?] {
            // One of the two may find nothing while the other one takes the last events.
            if status != 204 {
                self.claimed(status, &body).await?;
            }
        }
        Ok(())
    }

    /// Checks a claim that was handed out.
    async fn claimed(&mut self, status: u16, body: &Value) -> anyhow::Result<()> {
        match status {
            201 => self.handed_out(body).await,
            200 => {
                let id = body["claim_id"].as_str().unwrap_or_default();
                if !self.claims.iter().any(|claim| claim.id == id && !claim.is_over) {
                    self.violated("G6 a key finds its open claim", body.to_string());
                }
                Ok(())
            }
            204 => self.nothing_waits().await,
            _ => anyhow::bail!("a claim failed: {status} {body}"),
        }
    }

    /// Nothing was handed out, so no event waits in a partition without a live claim.
    async fn nothing_waits(&mut self) -> anyhow::Result<()> {
        self.read_parked().await?;
        let is_free = |partition: i64| {
            !self.claims.iter().any(|claim| claim.partition == partition && claim.is_live && !claim.is_over)
        };
        let free: Vec<i64> = (0..self.partitions).filter(|partition| is_free(*partition)).collect();
        if let Some(waiting) = free.into_iter().find_map(|partition| self.waiting(partition).next()) {
            self.violated("G8 what waits is handed out", format!("event {waiting} waits in a free partition"));
        }
        Ok(())
    }

    async fn handed_out(&mut self, body: &Value) -> anyhow::Result<()> {
        self.read_parked().await?;
        let positions: Option<Vec<i64>> = body["events"]
            .as_array()
            .and_then(|events| events.iter().map(|event| event["global_position"].as_i64()).collect());
        let events = positions.unwrap_or_default();
        let partition = body["partition"].as_i64().unwrap_or(-1);
        let claim = Claim {
            id: body["claim_id"].as_str().unwrap_or_default().to_owned(),
            partition,
            acknowledged: body["last_processed_position"].as_i64().unwrap_or(-1),
            claimed_to: body["claimed_to"].as_i64().unwrap_or(-1),
            is_retry: !body["retry"].is_null(),
            events,
            is_live: true,
            is_over: false,
        };
        let what = format!("claim {} of {:?}", claim.id, claim.events);
        if claim.events.is_empty() || !claim.events.is_sorted() || claim.events.last() != Some(&claim.claimed_to) {
            self.violated("G2 a claim has events in order", what.clone());
        }
        let live: Vec<_> = self.claims.iter().filter(|other| other.is_live && !other.is_over).cloned().collect();
        for other in &live {
            let shares_stream = other.events.iter().any(|position| {
                *position > other.acknowledged
                    && claim.events.iter().any(|own| self.at.get(own) == self.at.get(position))
            });
            if other.partition == partition || shares_stream {
                self.violated("G3 one worker at a time", format!("{what}, beside {} of {:?}", other.id, other.events));
            }
        }
        let mut next: HashMap<usize, usize> = HashMap::new();
        for position in &claim.events {
            let Some(stream) = self.at.get(position).copied() else {
                self.violated("G14 a claim has only events of the group", format!("{what}: {position}"));
                continue;
            };
            if self.partition_of(stream) != partition {
                self.violated("G5 a stream belongs to one partition", format!("{what}: {position}"));
            }
            let of = &self.streams[stream];
            let expected = next.entry(stream).or_insert(of.done);
            let is_next = of.events.get(*expected) == Some(position);
            *expected += 1;
            if !is_next || of.is_parked != claim.is_retry {
                let state = format!("{} of {:?} are processed, parked: {}", of.done, of.events, of.is_parked);
                self.violated(
                    "G2 the events of a stream are handed out in order",
                    format!("{what}: {position}, {state}"),
                );
            }
        }
        if !claim.is_retry {
            let missing = self
                .waiting(partition)
                .find(|position| *position <= claim.claimed_to && !claim.events.contains(position));
            if let Some(missing) = missing {
                self.violated("G1 no event is passed", format!("{what}, without {missing}"));
            }
        }
        for other in self.claims.iter_mut().filter(|other| other.partition == partition && !other.is_over) {
            other.is_over = true;
            if !other.is_retry {
                let careful_to = self.careful_to.entry(partition).or_default();
                *careful_to = other.claimed_to.max(*careful_to);
            }
        }
        let careful_to = self.careful_to.get(&partition).copied().unwrap_or_default();
        if !claim.is_retry && claim.events.len() > 1 && claim.events[0] <= careful_to {
            self.violated("G9 after an expired lease, a claim has one event", what);
        }
        self.claims.push(claim);
        Ok(())
    }

    /// Returns the unprocessed events of a partition whose streams are not parked.
    fn waiting(&self, partition: i64) -> impl Iterator<Item = i64> {
        let streams = (0..self.streams.len()).filter(move |stream| self.partition_of(*stream) == partition);
        let streams = streams.map(|stream| &self.streams[stream]).filter(|stream| !stream.is_parked);
        streams.flat_map(|stream| stream.events[stream.done..].iter().copied())
    }

    /// Reads which streams are parked. A stream that no worker has finished is parked without an acknowledgement.
    async fn read_parked(&mut self) -> anyhow::Result<()> {
        let (status, body, _) =
            self.call("GET", &format!("/groups/{}/parked?limit=1000", self.group), None, &[]).await?;
        anyhow::ensure!(status == 200, "the parked streams could not be read: {status} {body}");
        let mut lost = None;
        for stream in &mut self.streams {
            let parked = body["parked_streams"].as_array().into_iter().flatten();
            let parked = parked.into_iter().find(|parked| parked["aggregate_id"] == stream.id.as_str());
            stream.is_parked = parked.is_some();
            if let Some(position) = parked.and_then(|parked| parked["last_processed_position"].as_i64()) {
                let done = stream.events.iter().filter(|event| **event <= position).count();
                if done != stream.done {
                    lost = Some(format!("{} is parked at {position}, and {} are processed", stream.id, stream.done));
                }
            }
        }
        if let Some(what) = lost {
            self.violated("G1 a parked stream is where its events are processed", what);
        }
        // No event at or below the position of its partition waits.
        let passed = self.positions.clone().into_iter().find_map(|(partition, position)| {
            let event = self.waiting(partition).find(|event| *event <= position)?;
            Some(format!("event {event} waits, and partition {partition} is at {position}"))
        });
        if let Some(what) = passed {
            self.violated("G1 no event is passed", what);
        }
        Ok(())
    }

    async fn acknowledge(&mut self) -> anyhow::Result<()> {
        let Some(index) = self.random_claim() else { return Ok(()) };
        let claim = self.claims[index].clone();
        let left: Vec<i64> = claim.events.iter().copied().filter(|position| *position > claim.acknowledged).collect();
        let to = match self.random.u8(0..6) {
            0 => claim.acknowledged,
            1 | 2 if !left.is_empty() => left[self.random.usize(0..left.len())],
            _ => claim.claimed_to,
        };
        let mut failed = Vec::new();
        for position in left.iter().filter(|position| **position <= to) {
            if self.random.u8(0..8) == 0 {
                failed.push(json!({"global_position": position, "reason": "it failed"}));
            }
        }
        let release = self.random.u8(0..8) == 0;
        let body = json!({"last_processed_position": to, "failed": failed, "release": release});
        let next = self.random.bool();
        let path = format!("/groups/{}/claims/{}?next={next}&limit={}", self.group, claim.id, self.random.u8(1..6));
        let base = self.random.usize(0..2);
        let (status, answer, is_replayed) = self.call_at(base, "PUT", &path, Some(&body), &[]).await?;
        match status {
            200 if is_replayed => {
                let known = self.accepted.iter().any(|accepted| accepted.acknowledged == answer["acknowledged"]);
                if !known {
                    self.violated("G6 only what was accepted is replayed", format!("{path} {body}: {answer}"));
                }
                self.next_claim(&answer["claim"], &claim.id).await
            }
            200 => {
                if claim.is_over {
                    let what = format!("{path} {body}: {answer}");
                    self.violated("G4 a superseded claim changes nothing", what);
                }
                self.accepted_at(index, to, &failed, release, &answer).await?;
                let accepted = Accepted {
                    path,
                    body,
                    acknowledged: answer["acknowledged"].clone(),
                    next: answer["claim"].clone(),
                    resets: self.resets,
                };
                if self.random.u8(0..3) == 0 {
                    self.repeat(&accepted, 1 - base).await?;
                }
                self.accepted.push(accepted);
                Ok(())
            }
            409 if answer["code"] == "claim_lost" => {
                if claim.is_live && !claim.is_over {
                    self.violated("G3 a live claim is not lost", format!("{path} {body}: {answer}"));
                }
                self.claims[index].is_over = true;
                Ok(())
            }
            _ => anyhow::bail!("an acknowledgement failed: {path} {body}: {status} {answer}"),
        }
    }

    /// Records an accepted acknowledgement.
    async fn accepted_at(
        &mut self,
        index: usize,
        to: i64,
        failed: &[Value],
        release: bool,
        answer: &Value,
    ) -> anyhow::Result<()> {
        let claim = self.claims[index].clone();
        let failed: Vec<i64> = failed.iter().filter_map(|failure| failure["global_position"].as_i64()).collect();
        let mut parked = Vec::new();
        for position in claim.events.iter().filter(|position| (claim.acknowledged + 1..=to).contains(*position)) {
            let Some(stream) = self.at.get(position).copied() else { continue };
            if parked.contains(&stream) || self.streams[stream].is_parked && !claim.is_retry {
                continue;
            }
            if failed.contains(position) {
                parked.push(stream);
                continue;
            }
            let of = &mut self.streams[stream];
            let is_next = of.events.get(of.done) == Some(position);
            of.done += 1;
            if !is_next {
                let what = format!("{}: {position} after {} of {:?}", claim.id, of.done - 1, of.events);
                self.violated("G2 the events of a stream are acknowledged in order", what);
            }
        }
        for stream in &parked {
            self.streams[*stream].is_parked = true;
        }
        if !claim.is_retry && answer["acknowledged"]["parked_streams"] != parked.len() {
            self.violated("G1 a failed event is parked", format!("{answer}, and {} streams failed", parked.len()));
        }
        let ends = to >= claim.claimed_to || release || claim.is_retry && !parked.is_empty();
        self.claims[index].acknowledged = to;
        self.claims[index].is_over = ends;
        if !ends {
            self.claims[index].is_live = true;
        }
        if !claim.is_retry {
            let position = self.positions.entry(claim.partition).or_default();
            *position = to.max(*position);
        }
        if ends {
            self.next_claim(&answer["claim"], &claim.id).await?;
        } else if answer["claim"]["claim_id"] != claim.id.as_str() {
            self.violated("G6 a partial acknowledgement returns the same claim", answer.to_string());
        }
        self.read_parked().await?;
        // A retry that was processed to its end is no longer parked, unless more of its events have been passed.
        for stream in parked {
            if !self.streams[stream].is_parked {
                self.violated("G1 a failed event is parked", self.streams[stream].id.clone());
            }
        }
        Ok(())
    }

    /// Checks the claim in the answer to an acknowledgement that has ended its claim.
    async fn next_claim(&mut self, next: &Value, ended: &str) -> anyhow::Result<()> {
        let id = next["claim_id"].as_str().unwrap_or_default();
        if next.is_null() || id == ended || self.claims.iter().any(|claim| claim.id == id) {
            return Ok(());
        }
        self.handed_out(next).await
    }

    /// Sends an acknowledgement again that was accepted. Nothing may change, and the answer must be the first one.
    async fn repeat(&mut self, accepted: &Accepted, base: usize) -> anyhow::Result<()> {
        let (status, answer, _) = self.call_at(base, "PUT", &accepted.path, Some(&accepted.body), &[]).await?;
        let id = accepted.path.split(['/', '?']).nth(4).unwrap_or_default().to_owned();
        let to = accepted.body["last_processed_position"].as_i64().unwrap_or_default();
        let claim = self.claims.iter().find(|claim| claim.id == id);
        let is_regressed = claim.is_some_and(|claim| !claim.is_over && claim.acknowledged > to);
        let is_allowed = match status {
            200 => {
                let same = answer["acknowledged"]["claim_id"] == accepted.acknowledged["claim_id"]
                    && answer["acknowledged"]["last_processed_position"] == to;
                let next = accepted.next["claim_id"].as_str();
                let is_open = self.claims.iter().any(|claim| Some(claim.id.as_str()) == next && !claim.is_over);
                same && (!is_open || answer["claim"]["claim_id"] == accepted.next["claim_id"])
            }
            // Answers of before a reset are forgotten. An expired claim may have ended since.
            409 if answer["code"] == "claim_lost" => {
                accepted.resets != self.resets || claim.is_some_and(|claim| !claim.is_live)
            }
            409 => answer["code"] == "position_regressed" && is_regressed,
            // The failed events are parked, and the claim has gone beyond them.
            400 => claim.is_some_and(|claim| !claim.is_over) && accepted.body["failed"] != json!([]),
            _ => false,
        };
        if !is_allowed {
            let what = format!(
                "{} {}: {} {}, then {status} {answer}",
                accepted.path, accepted.body, accepted.acknowledged, accepted.next
            );
            self.violated("G6 a repeated PUT gets the first answer", what);
        }
        if status == 200 {
            // The same position again extends the lease.
            let extended =
                self.claims.iter_mut().find(|claim| claim.id == id && answer["claim"]["claim_id"] == id.as_str());
            extended.into_iter().for_each(|claim| claim.is_live = true);
            self.next_claim(&answer["claim"], &id).await?;
        }
        Ok(())
    }

    async fn acknowledge_again(&mut self) -> anyhow::Result<()> {
        if self.accepted.is_empty() {
            return Ok(());
        }
        let accepted = self.accepted[self.random.usize(0..self.accepted.len())].clone();
        // A claim that is open may have got new failures at the same position since.
        let base = self.random.usize(0..2);
        self.repeat(&accepted, base).await
    }

    fn random_claim(&mut self) -> Option<usize> {
        // Also claims that are over: their workers may come back.
        let recent = self.claims.len().saturating_sub(8);
        (recent < self.claims.len()).then(|| self.random.usize(recent..self.claims.len()))
    }

    /// The lease of a claim ends.
    async fn expire(&mut self) -> anyhow::Result<()> {
        let Some(index) = self.random_claim() else { return Ok(()) };
        self.expire_claim(index).await
    }

    async fn expire_claim(&mut self, index: usize) -> anyhow::Result<()> {
        let claim = &self.claims[index];
        if claim.is_over || !claim.is_live {
            return Ok(());
        }
        let number: i64 = claim.id.rsplit('.').next().unwrap_or_default().parse()?;
        let partition = i16::try_from(claim.partition)?;
        let expired =
            sqlx::query(EXPIRE).bind(partition).bind(number).bind(&self.group).execute(&mut *self.session).await?;
        if expired.rows_affected() == 1 {
            self.claims[index].is_live = false;
        }
        // Both processes read the states again.
        for base in 0..2 {
            self.call_at(base, "GET", &format!("/groups/{}", self.group), None, &[]).await?;
        }
        Ok(())
    }

    async fn release(&mut self) -> anyhow::Result<()> {
        let Some(index) = self.random_claim() else { return Ok(()) };
        let path = format!("/groups/{}/claims/{}", self.group, self.claims[index].id);
        let (status, body, _) = self.call("DELETE", &path, None, &[]).await?;
        anyhow::ensure!(status == 204, "a claim could not be released: {status} {body}");
        self.claims[index].is_over = true;
        Ok(())
    }

    /// An operator tries parked streams again, or skips events.
    async fn operate(&mut self) -> anyhow::Result<()> {
        self.read_parked().await?;
        let parked: Vec<usize> = (0..self.streams.len()).filter(|stream| self.streams[*stream].is_parked).collect();
        if parked.is_empty() || self.random.bool() {
            let path = format!("/groups/{}/retries", self.group);
            let (status, body, _) = self.call("POST", &path, Some(&json!({})), &[]).await?;
            anyhow::ensure!(status == 200, "{status} {body}");
            return Ok(());
        }
        let stream = parked[self.random.usize(0..parked.len())];
        let path = format!("/groups/{}/parked/{}/{}", self.group, self.aggregate_type, self.streams[stream].id);
        let (status, body, _) = self.call("GET", &path, None, &[]).await?;
        anyhow::ensure!(status == 200, "{status} {body}");
        let failed = body["global_position"].as_i64().unwrap_or_default();
        let current = body["last_processed_position"].as_i64().unwrap_or_default();
        let to = if self.random.bool() { failed } else { current };
        let change = json!({"last_processed_position": to});
        let (status, body, _) = self.call("PUT", &path, Some(&change), &[]).await?;
        // The worker of a retry that is under way has acknowledged the event in the meantime.
        anyhow::ensure!(status == 200 || status == 409, "{status} {body}");
        if status == 200 {
            let of = &mut self.streams[stream];
            of.done = of.done.max(of.events.iter().filter(|event| **event <= to).count());
            if to > current {
                // The claim of a retry that is under way has events that were skipped.
                for claim in &mut self.claims {
                    claim.is_over |=
                        claim.is_retry && claim.events.iter().any(|event| self.at.get(event) == Some(&stream));
                }
            }
        }
        self.read_parked().await
    }

    fn has_live_claims(&self) -> bool {
        self.claims.iter().any(|claim| claim.is_live && !claim.is_over)
    }

    async fn double(&mut self) -> anyhow::Result<()> {
        if self.partitions >= 16 {
            return Ok(());
        }
        let change = json!({"partitions": self.partitions * 2});
        let (status, body, _) = self.call("PUT", &format!("/groups/{}", self.group), Some(&change), &[]).await?;
        match status {
            200 => {
                if self.has_live_claims() {
                    self.violated("G5 partitions double only without live claims", body.to_string());
                }
                self.partitions *= 2;
                self.claims.iter_mut().for_each(|claim| claim.is_over = true);
                for of_partitions in [&mut self.positions, &mut self.careful_to] {
                    let upper = of_partitions.iter().map(|(partition, at)| (partition + self.partitions / 2, *at));
                    of_partitions.extend(upper.collect::<Vec<_>>());
                }
            }
            409 if body["code"] == "claims_open" && self.has_live_claims() => {}
            _ => anyhow::bail!("doubling failed: {status} {body}"),
        }
        Ok(())
    }

    async fn reset(&mut self) -> anyhow::Result<()> {
        let last = self.at.keys().max().copied().unwrap_or(0);
        let to = self.random.i64(0..=last);
        let change = json!({"last_processed_position": to});
        let (status, body, _) =
            self.call("PUT", &format!("/groups/{}?reset=true", self.group), Some(&change), &[]).await?;
        match status {
            200 => {
                self.resets += 1;
                self.claims.iter_mut().for_each(|claim| claim.is_over = true);
                self.positions.clear();
                self.careful_to.clear();
                for stream in &mut self.streams {
                    stream.done = stream.events.iter().filter(|event| **event <= to).count();
                    stream.is_parked = false;
                }
            }
            409 if body["code"] == "claims_open" && self.has_live_claims() => {}
            _ => anyhow::bail!("the reset failed: {status} {body}"),
        }
        Ok(())
    }

    /// Both processes have a position below every event that waits.
    async fn compare_positions(&mut self) -> anyhow::Result<()> {
        self.read_parked().await?;
        for base in 0..2 {
            for (path, member) in
                [(format!("/groups/{}", self.group), "groups"), (format!("/projections/{}", self.group), "projections")]
            {
                let (status, body, _) = self.call_at(base, "GET", &path, None, &[]).await?;
                anyhow::ensure!(status == 200, "{status} {body}");
                let position = body["last_processed_position"].as_i64().unwrap_or(i64::MAX);
                let first = (0..self.partitions).flat_map(|partition| self.waiting(partition)).min();
                if first.is_some_and(|first| first <= position) {
                    let what = format!("{member}: {position}, and event {first:?} waits");
                    self.violated("G7 the position is below every event that waits", what);
                }
            }
        }
        Ok(())
    }

    /// All leases end, and one worker processes everything.
    async fn drain(&mut self) -> anyhow::Result<()> {
        for index in 0..self.claims.len() {
            self.expire_claim(index).await?;
        }
        let events = u32::try_from(self.at.len())?;
        for _ in 0..20 + 4 * events {
            self.operations += 1;
            let retries = format!("/groups/{}/retries", self.group);
            let (status, body, _) = self.call("POST", &retries, Some(&json!({})), &[]).await?;
            anyhow::ensure!(status == 200, "{status} {body}");
            let path = format!("/groups/{}/claims?limit=10", self.group);
            let (status, body, _) = self.call("POST", &path, None, &[]).await?;
            self.claimed(status, &body).await?;
            if status == 204 {
                // A retry whose lease has expired waits for an operator again.
                self.read_parked().await?;
                if self.streams.iter().any(|stream| stream.is_parked) {
                    continue;
                }
            }
            if status == 204 || !self.broken.is_empty() {
                break;
            }
            let (id, to) = (body["claim_id"].as_str().unwrap_or_default().to_owned(), body["claimed_to"].clone());
            let path = format!("/groups/{}/claims/{id}", self.group);
            let change = json!({"last_processed_position": to});
            let (status, answer, _) = self.call("PUT", &path, Some(&change), &[]).await?;
            anyhow::ensure!(status == 200, "{status} {answer}");
            let index = self.claims.iter().position(|claim| claim.id == id).unwrap_or_default();
            self.accepted_at(index, to.as_i64().unwrap_or_default(), &[], false, &answer).await?;
        }
        self.compare_positions().await?;
        let (_, group, _) = self.call("GET", &format!("/groups/{}", self.group), None, &[]).await?;
        let left: Vec<_> = self.streams.iter().filter(|stream| stream.done < stream.events.len()).collect();
        if let Some(stream) = left.first() {
            let what = format!("{}: {} of {:?}, parked: {}", stream.id, stream.done, stream.events, stream.is_parked);
            self.violated("G1 every event is processed", format!("{what}: {group}"));
        }
        Ok(())
    }
}
