//! No promise: a scenario of erasures, with the rules that every response and every file must obey (E1 to E9 of
//! docs/explanation/erasure.md). The integration tests and `annals-torture` use it.
//!
//! Events in a table, in an archived month, in the rings of two processes, in snapshots and in states have a text that
//! occurs nowhere else. Before the erasure, the scenario finds the text at each of these places: a search that cannot
//! find it would prove nothing. Afterwards it searches again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Value, json};
use sqlx::{Executor, PgConnection};

/// A rule, and how the service has broken it.
pub type Broken = (&'static str, String);

const HIDDEN: &str = "E1 no response has erased content";
const UNCHANGED: &str = "E2 erased events have their places";
const RETRIES: &str = "E3 a retry of an erased append gets the first response";
const SNAPSHOTS: &str = "E4 no snapshot has erased content";
const REMOVED: &str = "E5 no file has removed content";
const ANNOUNCED: &str = "E6 an announced erasure is hidden";
const ACCESS: &str = "E7 an erasure needs the scope admin";
const IMMUTABLE: &str = "E8 nothing but an erasure changes an event";
const STATES: &str = "E9 a state is that of the remaining events";

/// The text that is erased.
const ERASED: &str = "Ada-Lovelace-4711";
/// A text of the same events, and of others, that stays.
const KEPT: &str = "Grace-Hopper-4712";
/// The streams with a reducer. The events of the first one are in an archived month.
const REDUCED: [&str; 3] = [ARCHIVED, "Person/live", "Visitor/live"];
const ARCHIVED: &str = "Person/archived";
/// A stream without a reducer, whose snapshots a client stores.
const PLAIN: &str = "Plain/1";
/// A stream of which some members are erased.
const FORM: &str = "Form/1";
/// The number of events of the long streams. Erased rows then fill several pages.
const EVENTS: u32 = 120;
/// The versions from here are erased in the streams with a reducer.
const ERASED_FROM: u32 = 50;
/// The time limit of whatever happens in the background. No rule depends on how long it takes.
const LIMIT: Duration = Duration::from_secs(60);

/// The service, and the places of its data.
pub struct Place {
    /// Two processes on the same log.
    pub bases: [String; 2],
    /// A process on the same log that requires keys.
    pub base_with_keys: String,
    /// A key with the scopes `read` and `append` on all types, and `admin` on another one.
    pub key: String,
    pub client: reqwest::Client,
    /// A session as the owner of the database.
    pub session: PgConnection,
    /// Another session, which keeps a snapshot of the database from before the erasures.
    pub old_session: PgConnection,
    pub program: PathBuf,
    /// The environment of the program's commands.
    pub environment: Vec<(String, String)>,
    /// The folder of PostgreSQL.
    pub files: PathBuf,
    pub archive: PathBuf,
}

/// A response.
struct Reply {
    status: u16,
    text: String,
}

impl Reply {
    fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("{} {}", self.status, self.text))
    }

    fn expect(self, status: u16) -> anyhow::Result<Self> {
        ensure!(self.status == status, "expected {status}, got {} {}", self.status, self.text);
        Ok(self)
    }
}

struct Scenario {
    place: Place,
    broken: Vec<Broken>,
}

/// An event of a stream, as it is appended. The scenario erases those with the erased text, and no others.
fn event(stream: &str, version: u32) -> Value {
    let is_reduced = REDUCED.contains(&stream);
    let is_erased = [PLAIN, FORM].contains(&stream) || is_reduced && version >= ERASED_FROM;
    let name = if is_erased { ERASED } else { KEPT };
    json!({
        "event_id": event_id(stream, version),
        "event_type": "Entered",
        "event_data": {"name": name, "n": version, "address": {"street": name, "town": KEPT}, "pad": "x".repeat(100)},
        "metadata": {"ip": name, "by": KEPT},
    })
}

/// Returns an id that is easy to recognise: the number of the stream and the version.
fn event_id(stream: &str, version: u32) -> String {
    let number: u32 = stream.bytes().map(u32::from).sum();
    format!("{number:08}-0000-4000-8000-{version:012}")
}

/// The ways to read a stream whose first event is at `position`. Each response has content of the stream.
fn routes(stream: &str, position: i64, has_reducer: bool) -> Vec<(String, &'static str)> {
    const JSON: &str = "application/json";
    const LINES: &str = "application/x-ndjson";
    const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";
    const EVENT_STREAM: &str = "text/event-stream";
    let (aggregate_type, aggregate_id) = stream.split_once('/').expect("type/id");
    let (after, end) = (position - 1, position + i64::from(EVENTS));
    let of_stream = format!("aggregate_type={aggregate_type}&aggregate_id={aggregate_id}");
    let mut routes = vec![
        (format!("/streams/{stream}?from_version={ERASED_FROM}&limit=1000"), JSON),
        (format!("/streams/{stream}?direction=backward"), JSON),
        (format!("/streams/{stream}?from_version={ERASED_FROM}"), LINES),
        (format!("/streams/{stream}?from_version={ERASED_FROM}"), CLOUD_EVENTS),
        (format!("/streams/{stream}?from_version={ERASED_FROM}"), EVENT_STREAM),
        (format!("/streams/{stream}/{ERASED_FROM}"), JSON),
        (format!("/events/{}", event_id(stream, ERASED_FROM)), JSON),
        (format!("/events?after={}&limit=10&aggregate_type={aggregate_type}", after + 50), JSON),
        (format!("/events?direction=backward&before={end}&limit=20&{of_stream}"), JSON),
        (format!("/events?after={}&{of_stream}", after + 50), LINES),
        (format!("/events?after={}&limit=10&{of_stream}", after + 50), CLOUD_EVENTS),
        (format!("/events?after={}&{of_stream}", after + 50), EVENT_STREAM),
        (format!("/aggregates/{stream}"), JSON),
        (format!("/aggregates/{stream}?snapshot=ignore"), JSON),
    ];
    if has_reducer {
        routes.push((format!("/aggregates/{stream}/state"), JSON));
        routes.push((format!("/aggregates/{stream}/state?version={}", EVENTS - 3), JSON));
        routes.push((format!("/aggregates/{stream}/states?from_version={}", EVENTS - 3), JSON));
    }
    routes
}

/// Runs the scenario on an empty log. Returns the broken rules.
pub async fn run_scenario(place: Place) -> anyhow::Result<Vec<Broken>> {
    let mut scenario = Scenario { place, broken: Vec::new() };
    match scenario.run().await {
        Err(error) if scenario.broken.is_empty() => Err(error),
        // A broken rule can lead to other faults.
        _ => Ok(scenario.broken),
    }
}

impl Scenario {
    async fn run(&mut self) -> anyhow::Result<()> {
        self.import_old_events().await?;
        // An event stream of each process keeps its tailer and its ring at the head of the log.
        let mut open = Vec::new();
        for base in self.place.bases.clone() {
            let stream =
                self.place.client.get(format!("{base}/events?after=head")).header("accept", "text/event-stream");
            open.push(stream.send().await?.error_for_status()?);
        }
        self.append_events().await?;
        let firsts = self.first_positions().await?;
        self.expect_content_everywhere(&firsts).await?;
        self.check_refusals().await?;
        let before = self.places().await?;

        // It uses none of the tables of Annals, so it holds up no removal.
        self.place.old_session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class").await?;
        let position = self.erase_and_watch().await?;
        self.check_places(&before).await?;
        for (stream, first, has_reducer) in &firsts {
            self.check_hidden(0, stream, *first, *has_reducer, "").await?;
            self.check_hidden(1, stream, *first, *has_reducer, &format!("min_position={position}")).await?;
        }
        if self.broken.is_empty() {
            self.check_hidden_in_other_process(&firsts).await?;
        }
        self.check_members().await?;
        self.check_retries().await?;
        self.check_snapshots().await?;
        self.check_states().await?;
        self.check_immutable().await?;

        let receipt = self.remove().await?;
        self.check_removed(&receipt).await?;
        self.place.old_session.execute("ROLLBACK").await?;
        for (stream, first, has_reducer) in &firsts {
            self.check_hidden(0, stream, *first, *has_reducer, "").await?;
        }
        self.check_places(&before).await?;
        self.check_retries().await?;
        self.check_states().await?;
        let verified = self.command(&["verify"]).await;
        if let Err(error) = verified {
            self.broke(UNCHANGED, format!("annals verify: {error:#}"));
        }
        drop(open);
        Ok(())
    }

    fn broke(&mut self, rule: &'static str, what: String) {
        self.broken.push((rule, what));
    }

    async fn send(&self, process: usize, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Reply> {
        let request = self.place.client.request(method.parse()?, format!("{}{path}", self.place.bases[process]));
        receive(match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        })
        .await
    }

    /// Reads a path in a representation. An event stream is read until it has caught up with the log.
    async fn read(&self, process: usize, path: &str, accept: &str) -> anyhow::Result<Reply> {
        let request = self.place.client.get(format!("{}{path}", self.place.bases[process])).header("accept", accept);
        receive(request).await.with_context(|| format!("{path} as {accept}"))
    }

    /// Runs a command of the program.
    async fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(&self.place.program);
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command.envs(self.place.environment.iter().cloned());
        let output = command.output().await?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "annals {}: {text}", arguments.join(" "));
        Ok(text)
    }

    /// Imports events of two months that are over, and archives the first one.
    async fn import_old_events(&self) -> anyhow::Result<()> {
        let mut lines = String::new();
        let mut add = |stream: &str, version: u32, time: &str| {
            let (aggregate_type, aggregate_id) = stream.split_once('/').expect("type/id");
            let mut line = event(stream, version);
            line["aggregate_type"] = aggregate_type.into();
            line["aggregate_id"] = aggregate_id.into();
            line["occurred_at"] = time.into();
            lines += &format!("{line}\n");
        };
        for version in 1..=EVENTS {
            add("Person/archived", version, &format!("2020-01-10T08:{:02}:{:02}Z", version / 60, version % 60));
        }
        add("Other/1", 1, "2020-02-10T08:00:00Z");
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), lines)?;
        self.command(&["import", &file.path().display().to_string()]).await?;
        // The event of another month seals the month before it.
        let event = json!({"events": [{"event_type": "Entered", "event_data": {"n": 1}}]});
        self.send(0, "POST", "/streams/Other/2", Some(event)).await?.expect(201)?;
        let until = Instant::now() + LIMIT;
        // The events of a month are counted before the month can be archived.
        while let Err(error) = self.command(&["archive", "--yes"]).await {
            ensure!(Instant::now() < until, "{error:#}");
        }
        let archived = decoded_archive(&self.place.archive)?;
        ensure!(archived.iter().any(|row| row.contains(ERASED)), "the archived events do not have the text");
        Ok(())
    }

    async fn append_events(&self) -> anyhow::Result<()> {
        let merge_patch = json!({"language": "merge-patch", "snapshot_every": 7});
        self.send(0, "PUT", "/reducers/Person", Some(merge_patch)).await?.expect(201)?;
        let source = "({ $any: (state, { event_data: { n, name } }) => ({ sum: (state.sum || 0) + n, name }) })";
        let javascript = json!({"language": "javascript", "source": source, "snapshot_every": 7});
        self.send(0, "PUT", "/reducers/Visitor", Some(javascript)).await?.expect(201)?;
        for stream in ["Person/live", "Visitor/live", PLAIN, FORM, "Sealed/1", "Sealed/2"] {
            let events: Vec<_> = (1..=EVENTS).map(|version| event(stream, version)).collect();
            self.send(0, "POST", &format!("/streams/{stream}"), Some(json!({"events": events}))).await?.expect(201)?;
        }
        let snapshot = json!({"version": EVENTS, "state": {"name": ERASED}});
        self.send(0, "PUT", &format!("/snapshots/{PLAIN}"), Some(snapshot)).await?.expect(201)?;
        Ok(())
    }

    /// Returns the streams that are erased, with the position of the first event of each, and whether the type has a reducer.
    async fn first_positions(&self) -> anyhow::Result<Vec<(&'static str, i64, bool)>> {
        let mut firsts = Vec::new();
        for (stream, has_reducer) in REDUCED.map(|stream| (stream, true)).into_iter().chain([(PLAIN, false)]) {
            let first = self.send(0, "GET", &format!("/streams/{stream}/1"), None).await?.expect(200)?.json()?;
            firsts.push((stream, first["global_position"].as_i64().context("a position")?, has_reducer));
        }
        Ok(firsts)
    }

    /// Fails unless every route of every process, and the files, have the text.
    async fn expect_content_everywhere(&mut self, firsts: &[(&str, i64, bool)]) -> anyhow::Result<()> {
        for (stream, first, has_reducer) in firsts {
            for (path, accept) in routes(stream, *first, *has_reducer) {
                for process in 0..2 {
                    let reply = self.read(process, &path, accept).await?.expect(200)?;
                    ensure!(reply.text.contains(ERASED), "{path} as {accept} does not have the text: {}", reply.text);
                }
            }
        }
        self.place.session.execute("ANALYZE").await?;
        self.place.session.execute("CHECKPOINT").await?;
        let files = files_with(&self.place.files, ERASED)?;
        ensure!(files.len() >= 2, "the files of the tables do not have the text: {files:?}");
        Ok(())
    }

    /// Tries to erase without the scope `admin`.
    async fn check_refusals(&mut self) -> anyhow::Result<()> {
        let body = json!({"reason": "a test", "streams": [{"aggregate_type": "Sealed", "aggregate_id": "1"}]});
        for query in ["", "?dry_run=true"] {
            let url = format!("{}/erasures{query}", self.place.base_with_keys);
            let request = self.place.client.post(url).bearer_auth(&self.place.key);
            let reply = receive(request.header("content-type", "application/json").body(body.to_string())).await?;
            if reply.status != 403 {
                self.broke(ACCESS, format!("the response to a key without the scope: {} {}", reply.status, reply.text));
            }
        }
        let sealed = self.send(0, "GET", "/streams/Sealed/1", None).await?.expect(200)?;
        if !sealed.text.contains(KEPT) {
            self.broke(ACCESS, "a key without the scope has erased content".to_owned());
        }
        Ok(())
    }

    /// Returns everything of all events but the content.
    async fn places(&self) -> anyhow::Result<Vec<Value>> {
        let lines = self.read(0, "/events", "application/x-ndjson").await?.expect(200)?.text;
        let mut places = Vec::new();
        for line in lines.lines() {
            let mut event: Value = serde_json::from_str(line)?;
            let members = event.as_object_mut().context("an object")?;
            if !members.contains_key("end") {
                members.retain(|name, _| !matches!(name.as_str(), "event_data" | "metadata"));
                places.push(event);
            }
        }
        Ok(places)
    }

    async fn check_places(&mut self, before: &[Value]) -> anyhow::Result<()> {
        let after = self.places().await.inspect_err(|error| self.broken.push((UNCHANGED, format!("{error:#}"))))?;
        if let Some(at) = (0..before.len()).find(|at| after.get(*at) != before.get(*at)) {
            self.broke(UNCHANGED, format!("{:?} instead of {}", after.get(at), before[at]));
        }
        Ok(())
    }

    /// Erases events, while a subscriber waits for the announcement and then reads the streams. Returns the position of
    /// the last announcement.
    async fn erase_and_watch(&mut self) -> anyhow::Result<i64> {
        let stream = |name: &str, from: u32| {
            let (aggregate_type, aggregate_id) = name.split_once('/').expect("type/id");
            json!({"aggregate_type": aggregate_type, "aggregate_id": aggregate_id, "from_version": from})
        };
        let mut streams: Vec<_> = REDUCED.iter().map(|name| stream(name, ERASED_FROM)).collect();
        streams.push(stream(PLAIN, 1));
        let erasing = self.send(0, "POST", "/erasures", Some(json!({"reason": "a test", "streams": streams})));
        let (erased, shown) = tokio::join!(erasing, self.watch());
        if let Some(shown) = shown? {
            self.broke(ANNOUNCED, shown);
        }
        let receipt = erased?.expect(201)?.json()?;
        ensure!(!receipt["hidden_at"].is_null() && receipt["removed_at"].is_null(), "{receipt}");
        let members = ["/event_data/name", "/event_data/address/street", "/metadata/ip"];
        let body = json!({"reason": "a test", "streams": [stream(FORM, 1)], "members": members});
        let receipt = self.send(0, "POST", "/erasures", Some(body)).await?.expect(201)?.json()?;
        receipt["global_position"].as_i64().context("a position")
    }

    /// Waits for an announcement, and reads its stream. Returns the response if it has erased content.
    async fn watch(&self) -> anyhow::Result<Option<String>> {
        let url = format!("{}/events?after=head&event_type=$erased", self.place.bases[0]);
        let mut response = self.place.client.get(url).header("accept", "text/event-stream").send().await?;
        let (mut text, until) = (String::new(), Instant::now() + LIMIT);
        loop {
            if let Some(announcement) = text.lines().find(|line| line.starts_with("data:") && line.contains("$erased"))
            {
                let announcement: Value = serde_json::from_str(&announcement["data:".len()..])?;
                let name = |member: &str| announcement[member].as_str().unwrap_or_default().to_owned();
                let path = format!("/streams/{}/{}", name("aggregate_type"), name("aggregate_id"));
                let versions = &announcement["event_data"]["versions"][0];
                let path = format!("{path}?from_version={}&to_version={}", versions[0], versions[1]);
                let reply = self.read(0, &path, "application/json").await?.expect(200)?;
                return Ok(reply
                    .text
                    .contains(ERASED)
                    .then(|| format!("{path} after its announcement: {}", reply.text)));
            }
            ensure!(Instant::now() < until, "no announcement arrives: {text}");
            let chunk = tokio::time::timeout(LIMIT, response.chunk()).await?;
            text += &String::from_utf8_lossy(&chunk?.context("the event stream ends")?);
        }
    }

    /// Reads a stream in every way. Reports responses with erased content.
    async fn check_hidden(
        &mut self,
        process: usize,
        stream: &str,
        first: i64,
        has_reducer: bool,
        query: &str,
    ) -> anyhow::Result<()> {
        for (path, accept) in routes(stream, first, has_reducer) {
            let has_min_position = path.starts_with("/aggregates/") || path.contains('?');
            if !query.is_empty() && (!has_min_position || accept == "text/event-stream") {
                continue;
            }
            let path = match (query, path.contains('?')) {
                ("", _) => path,
                (query, true) => format!("{path}&{query}"),
                (query, false) => format!("{path}?{query}"),
            };
            if let Some(what) = self.shown(process, &path, accept).await? {
                self.broke(HIDDEN, what);
            }
        }
        Ok(())
    }

    /// Returns the response to a read if it has erased content.
    async fn shown(&self, process: usize, path: &str, accept: &str) -> anyhow::Result<Option<String>> {
        let reply = self.read(process, path, accept).await?;
        ensure!(reply.status == 200, "{path} as {accept}: {} {}", reply.status, reply.text);
        let is_shown = reply.text.contains(ERASED);
        Ok(is_shown.then(|| format!("{path} as {accept} of process {process}: {}", reply.text)))
    }

    /// Waits until the other process, too, has hidden the content.
    async fn check_hidden_in_other_process(&mut self, firsts: &[(&str, i64, bool)]) -> anyhow::Result<()> {
        let began = Instant::now();
        for (stream, first, has_reducer) in firsts {
            for (path, accept) in routes(stream, *first, *has_reducer) {
                while let Some(what) = self.shown(1, &path, accept).await? {
                    if began.elapsed() > LIMIT {
                        self.broke(HIDDEN, what);
                        break;
                    }
                }
            }
        }
        println!("the other process has hidden the content after {:.3} s at most", began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Checks that erased members are null, and that the others are as before.
    async fn check_members(&mut self) -> anyhow::Result<()> {
        let page = self.send(0, "GET", &format!("/streams/{FORM}?to_version=3"), None).await?.expect(200)?.json()?;
        for (event, version) in page["events"].as_array().context("events")?.iter().zip(1..) {
            let mut expected = self::event(FORM, version);
            expected["event_data"]["name"] = Value::Null;
            expected["event_data"]["address"]["street"] = Value::Null;
            expected["metadata"]["ip"] = Value::Null;
            if event["event_data"] != expected["event_data"] || event["metadata"] != expected["metadata"] {
                self.broke(HIDDEN, format!("{event}"));
            }
        }
        Ok(())
    }

    /// Appends events again whose content is erased, with the same content and with other content.
    async fn check_retries(&mut self) -> anyhow::Result<()> {
        for stream in ["Person/archived", "Person/live", PLAIN, FORM] {
            let path = format!("/streams/{stream}");
            let stored = self.send(0, "GET", &format!("{path}/{ERASED_FROM}"), None).await?.expect(200)?.json()?;
            let mut other = event(stream, ERASED_FROM);
            other["event_data"] = json!("something else");
            for retry in [event(stream, ERASED_FROM), other] {
                let reply = self.send(0, "POST", &path, Some(json!({"events": [retry]}))).await?;
                let position = reply.json()?["events"][0]["global_position"].clone();
                if reply.status != 200 || position != stored["global_position"] {
                    self.broke(RETRIES, format!("{path}: {} {}", reply.status, reply.text));
                }
            }
        }
        let mut other = event("Person/live", 1);
        other["event_data"] = json!("something else");
        let reply = self.send(0, "POST", "/streams/Person/live", Some(json!({"events": [other]}))).await?;
        ensure!(reply.status == 409, "an event with its content is compared: {} {}", reply.status, reply.text);
        Ok(())
    }

    /// Stores a snapshot that a client computed before the erasure.
    async fn check_snapshots(&mut self) -> anyhow::Result<()> {
        let path = format!("/snapshots/{PLAIN}");
        let reply = self.send(0, "GET", &path, None).await?;
        if reply.status != 404 {
            self.broke(SNAPSHOTS, format!("{} {}", reply.status, reply.text));
        }
        let snapshot = json!({"version": EVENTS, "state": {"name": ERASED}});
        let reply = self.send(0, "PUT", &path, Some(snapshot)).await?;
        if reply.status != 409 || reply.json()?["code"] != "snapshot_stale" {
            self.broke(SNAPSHOTS, format!("the PUT of a former state: {} {}", reply.status, reply.text));
        }
        let load = self.send(0, "GET", &format!("/aggregates/{PLAIN}"), None).await?.expect(200)?;
        if load.text.contains(ERASED) {
            self.broke(SNAPSHOTS, load.text);
        }
        Ok(())
    }

    /// Compares the states with those of the events that are left.
    async fn check_states(&mut self) -> anyhow::Result<()> {
        let left = ERASED_FROM - 1;
        let last = event(ARCHIVED, left)["event_data"].clone();
        let sum = json!({"sum": left * (left + 1) / 2, "name": KEPT});
        for (stream, expected) in REDUCED.into_iter().zip([&last, &last, &sum]) {
            let reply = self.send(0, "GET", &format!("/aggregates/{stream}/state"), None).await?;
            if reply.status != 200 || reply.json()?["state"] != *expected {
                self.broke(STATES, format!("{stream}: {} {}", reply.status, reply.text));
            }
        }
        Ok(())
    }

    /// Tries to change events in the session of an erasure, as the owner and as the role of the service.
    async fn check_immutable(&mut self) -> anyhow::Result<()> {
        let erase =
            "SELECT erase_events('a test', '{}', NULL, NULL, array_agg(e.global_position), array_agg(e.occurred_at),
                            array_agg(e.event_id), array_agg(e.aggregate_type::text), array_agg(e.aggregate_id::text),
                            array_agg(e.version))
                       FROM events e WHERE e.aggregate_type = 'Sealed' AND e.aggregate_id = '2'";
        for role in ["", "SET ROLE annals_app"] {
            self.place.session.execute("RESET ROLE").await?;
            self.place.session.execute(role).await?;
            self.place.session.execute(erase).await?;
            for change in [
                "UPDATE events SET event_data = '1'",
                "UPDATE event_ids SET content_hash = 1",
                "DELETE FROM events",
                "DELETE FROM event_ids",
                "TRUNCATE events",
            ] {
                self.place.session.execute("BEGIN").await?;
                let changed = self.place.session.execute(change).await;
                self.place.session.execute("ROLLBACK").await?;
                match changed {
                    Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => {}
                    other => self.broke(IMMUTABLE, format!("{role} {change}: {other:?}")),
                }
            }
        }
        self.place.session.execute("RESET ROLE").await?;
        // The service announces an erasure whose process has ended.
        let until = Instant::now() + LIMIT;
        let path = format!("/streams/Sealed/2/{}", EVENTS + 1);
        while self.send(0, "GET", &path, None).await?.status != 200 {
            if Instant::now() > until {
                self.broke(ANNOUNCED, "an erasure is not announced by the service".to_owned());
                break;
            }
        }
        Ok(())
    }

    /// Removes the content from the files. Returns the receipt of the first erasure.
    async fn remove(&mut self) -> anyhow::Result<Value> {
        self.command(&["erasures", "run"]).await?;
        self.send(1, "GET", "/erasures/1", None).await?.expect(200)?.json()
    }

    async fn check_removed(&mut self, receipt: &Value) -> anyhow::Result<()> {
        let months = receipt["months"].as_array().context("months")?;
        let is_pending = |of: &Value| of["removed_at"].is_null();
        if months.len() != 2 || is_pending(receipt) || months.iter().any(is_pending) {
            self.broke(REMOVED, format!("the receipt: {receipt}"));
        }
        let sampled = "SELECT count(*) FROM pg_statistic
                        WHERE concat(stavalues1, stavalues2, stavalues3, stavalues4, stavalues5) LIKE '%' || $1 || '%'";
        self.place.session.execute("ANALYZE").await?;
        let samples: i64 = sqlx::query_scalar(sampled).bind(KEPT).fetch_one(&mut self.place.session).await?;
        if samples > 0 {
            self.broke(REMOVED, format!("the statistics have {samples} samples of content"));
        }
        self.place.session.execute("CHECKPOINT").await?;
        for file in files_with(&self.place.files, ERASED)? {
            self.broke(REMOVED, format!("{} has the text", file.display()));
        }
        let archived = decoded_archive(&self.place.archive)?;
        ensure!(archived.iter().any(|row| row.contains(KEPT)), "the archive has no content at all");
        if let Some(row) = archived.iter().find(|row| row.contains(ERASED)) {
            self.broke(REMOVED, format!("the archive has the row {row}"));
        }
        Ok(())
    }
}

/// Receives a response. An event stream is read until it has caught up with the log.
async fn receive(request: reqwest::RequestBuilder) -> anyhow::Result<Reply> {
    let mut response = request.send().await?;
    let status = response.status().as_u16();
    let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let is_event_stream = header("content-type").as_deref() == Some("text/event-stream");
    let (mut body, until) = (Vec::new(), Instant::now() + LIMIT);
    while let Some(chunk) = tokio::time::timeout(LIMIT, response.chunk()).await.context("no chunk arrives")?? {
        body.extend_from_slice(&chunk);
        if is_event_stream && String::from_utf8_lossy(&body).contains("event: caught-up") {
            break;
        }
        ensure!(Instant::now() < until, "the response does not end");
    }
    Ok(Reply { status, text: String::from_utf8(body)? })
}

/// Returns the files below a folder that have a text. The write-ahead log is excepted.
fn files_with(folder: &Path, text: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for file in files_below(folder)? {
        match std::fs::read(&file) {
            Ok(content) if String::from_utf8_lossy(&content).contains(text) => found.push(file),
            // PostgreSQL deletes files at any time.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(found)
}

/// Returns all rows of all files of the archive, as text.
fn decoded_archive(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut rows = Vec::new();
    for path in files_below(folder)?.into_iter().filter(|path| path.extension().is_some_and(|name| name == "parquet")) {
        let reader = SerializedFileReader::new(std::fs::File::open(&path)?)?;
        for row in reader.get_row_iter(None)? {
            rows.push(row?.to_string());
        }
    }
    Ok(rows)
}

/// Returns the regular files below a folder.
fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && entry.file_name() != "pg_wal" => files.extend(files_below(&entry.path())?),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(files)
}
