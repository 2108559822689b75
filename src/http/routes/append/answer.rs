//! What an append answers: where the events stand, or why nothing was written.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::domain::append::{Append, AppendRequest, Outcome};
use crate::domain::event::Recorded;
use crate::domain::version::{ExpectedVersion, Version};
use crate::http::conditional::etag;
use crate::http::negotiate::JSON;
use crate::http::problem::{Code, Problem};
use crate::http::wire;
use crate::store::error::StoreError;
use crate::store::read::{Direction, Pace, VersionRange};

/// Missed events that a conflict brings along, at most.
const MISSED_EVENTS_MAX: usize = 100;
const MISSED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// An expected version in the words of the request: a number, `"none"` or `"exists"`; null if there was none.
struct InWords(ExpectedVersion);

impl Serialize for InWords {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            ExpectedVersion::Any => serializer.serialize_none(),
            ExpectedVersion::None => serializer.serialize_str("none"),
            ExpectedVersion::Exists => serializer.serialize_str("exists"),
            ExpectedVersion::Exact(version) => serializer.serialize_u64(version),
        }
    }
}

/// What an append answers for one stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of write_appended's output, for the OpenAPI document")]
pub struct Appended {
    aggregate_type: String,
    aggregate_id: String,
    /// Version of the last event of this append.
    version: Version,
    first_version: Version,
    /// Position of the last event of this append.
    global_position: i64,
    /// This append crossed a multiple of the snapshot interval, and only the client can make the snapshot.
    snapshot_due: bool,
    events: Vec<RecordedOut>,
}

/// Where an event stands.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of write_appended's output, for the OpenAPI document")]
pub struct RecordedOut {
    #[schema(format = Uuid)]
    event_id: String,
    version: Version,
    global_position: i64,
    #[schema(format = DateTime)]
    occurred_at: String,
}

/// What an append to several streams answers.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of the answer, for the OpenAPI document")]
pub struct AllAppended {
    appends: Vec<Appended>,
}

#[derive(Serialize)]
struct Conflict<'r> {
    aggregate_type: &'r str,
    aggregate_id: &'r str,
    expected_version: InWords,
    current_version: Version,
}

/// How a request that was decided is answered; what identifies known events is a [`Problem`] already.
pub(super) enum Decision {
    /// Where the events stand, one list an append.
    Appended {
        replayed: bool,
        recorded: Vec<Vec<Recorded>>,
    },
    Conflict(Vec<Version>),
}

/// Has a request written and counts how it ended.
pub(super) async fn submit(app: &App, request: &Arc<AppendRequest>) -> Result<Decision, Box<Problem>> {
    let timer = app.metrics.append_duration_seconds.start_timer();
    let outcome = app.writer.submit(request.clone()).await;
    timer.observe_duration();
    app.metrics.appends.with_label_values(&[result_label(&outcome)]).inc();

    match outcome? {
        Outcome::Written(recorded) => {
            for append in &request.appends {
                app.metrics.count_inserted(append.stream.aggregate_type(), append.events.len() as u64);
            }
            for (append, recorded) in request.appends.iter().zip(&recorded) {
                if let (Some(first), Some(last)) = (recorded.first(), recorded.last()) {
                    app.snapshotter.grown(&append.stream, first.version - 1, last.version);
                }
            }
            Ok(Decision::Appended { replayed: false, recorded })
        }
        Outcome::Replayed(recorded) => Ok(Decision::Appended { replayed: true, recorded }),
        Outcome::VersionConflict(current) => Ok(Decision::Conflict(current)),
        Outcome::EventIdReused(known) => Err(known_events(
            Code::EventIdReused,
            "an event with this id was written before, with other content or in another stream; nothing was written",
            request,
            &known,
        )),
        Outcome::EventPartlyKnown(known) => Err(known_events(
            Code::EventPartlyKnown,
            "some of these events were written before, but not as this request; nothing was written",
            request,
            &known,
        )),
    }
}

fn known_events(code: Code, detail: &str, request: &AppendRequest, known: &[Uuid]) -> Box<Problem> {
    let known: Vec<String> = known.iter().map(Uuid::to_string).collect();
    let problem = Problem::new(code, detail).with("known_event_ids", &known);
    match request.appends.as_slice() {
        [append] if append.expected != ExpectedVersion::Any => {
            problem.with("expected_version", &InWords(append.expected))
        }
        _ => problem,
    }
}

fn result_label(outcome: &Result<Outcome, StoreError>) -> &'static str {
    match outcome {
        Ok(Outcome::Written(_)) => "written",
        Ok(Outcome::Replayed(_)) => "replayed",
        Ok(Outcome::VersionConflict(_)) => "version_conflict",
        Ok(Outcome::EventIdReused(_)) => "event_id_reused",
        Ok(Outcome::EventPartlyKnown(_)) => "event_partly_known",
        Err(StoreError::Overloaded) => "overloaded",
        Err(StoreError::ShuttingDown) => "shutting_down",
        Err(StoreError::Unavailable(_)) => "database_unavailable",
        Err(StoreError::OutcomeUnknown) => "outcome_unknown",
        Err(
            StoreError::Internal(_)
            | StoreError::NotFolded
            | StoreError::EpochChanged { .. }
            | StoreError::Behind(_)
            | StoreError::ArchiveUnavailable(_)
            | StoreError::ArchiveDamaged(_),
        ) => "internal",
    }
}

/// Appends what one append answers.
pub(super) fn write_appended(out: &mut Vec<u8>, app: &App, append: &Append, recorded: &[Recorded]) {
    let (Some(first), Some(last)) = (recorded.first(), recorded.last()) else { return };
    let every = i64::from(app.settings.snapshot_every);
    // Where there is a reducer, no client makes the snapshot.
    let due = i64::from(last.version) / every > i64::from(first.version - 1) / every
        && app.snapshotter.reducer(append.stream.aggregate_type()).is_none();
    wire::write_stream_head(out, &append.stream, last.version);
    write!(
        out,
        ",\"first_version\":{},\"global_position\":{},\"snapshot_due\":{due},\"events\":[",
        first.version, last.global_position
    )
    .expect("writing to memory does not fail");
    for (n, event) in recorded.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        wire::write_recorded(out, event);
    }
    out.extend_from_slice(b"]}");
}

/// The answer to what is written, with its body.
pub(super) fn answer(replayed: bool, body: Vec<u8>) -> Response {
    let status = if replayed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = (status, Body::from(body)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    if replayed {
        let name = HeaderName::from_static("idempotent-replayed");
        response.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    response
}

/// The answer of several streams, of which some failed their precondition.
pub(super) fn conflicts(request: &AppendRequest, current: &[Version]) -> Box<Problem> {
    let conflicts: Vec<_> = request
        .appends
        .iter()
        .zip(current)
        .filter(|(append, current)| !append.expected.holds(**current))
        .map(|(append, current)| Conflict {
            aggregate_type: append.stream.aggregate_type(),
            aggregate_id: append.stream.aggregate_id(),
            expected_version: InWords(append.expected),
            current_version: *current,
        })
        .collect();
    let detail = format!("{} of the streams are at another version; nothing was written", conflicts.len());
    Problem::new(Code::VersionConflict, detail).with_status(StatusCode::CONFLICT).with("conflicts", &conflicts)
}

/// The answer to a failed precondition, with the missed events where the client prefers to have them.
pub(super) async fn conflict(
    app: &App,
    append: &Append,
    current: Version,
    with_missed: bool,
) -> Result<Box<Problem>, Box<Problem>> {
    let detail = match append.expected {
        ExpectedVersion::Exact(expected) => {
            format!("the stream is at version {current}, and the request expects {expected}")
        }
        ExpectedVersion::None => {
            format!("the stream exists, at version {current}, and the request expects that it does not")
        }
        ExpectedVersion::Exists | ExpectedVersion::Any => {
            "the stream does not exist, and the request expects that it does".to_owned()
        }
    };
    let problem = Problem::new(Code::VersionConflict, detail)
        .with("expected_version", &InWords(append.expected))
        .with("current_version", &current)
        .with_header(header::ETAG, etag(current));
    if !with_missed {
        return Ok(problem);
    }
    let (missed, truncated) = missed_events(app, append, current).await?;
    Ok(problem
        .with_raw("missed_events", missed)
        .with("missed_events_truncated", &truncated)
        .with_header(HeaderName::from_static("preference-applied"), HeaderValue::from_static("return=representation")))
}

/// The events after the expected version, up to the one that the stream was at, and whether there are more.
async fn missed_events(app: &App, append: &Append, current: Version) -> Result<(Box<RawValue>, bool), Box<Problem>> {
    let none = || to_raw_value::<[u8]>(&[]).map(|list| (list, false)).map_err(|_| lost());
    let Ok(after) = Version::try_from(append.expected.missed_after()) else { return none() };
    let range = VersionRange { from: after.saturating_add(1), to: current, direction: Direction::Forward };
    if range.is_empty() {
        return none();
    }
    let Some(head) = app.store.stream_head(&append.stream).await? else { return none() };
    let mut list = vec![b'['];
    let left = app
        .store
        .read_stream(&append.stream, &head, range, MISSED_EVENTS_MAX, &mut Pace::default(), |event| {
            if list.len() > 1 {
                list.push(b',');
            }
            wire::write_event(&mut list, event);
            if list.len() < MISSED_BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await?;
    list.push(b']');
    let list = String::from_utf8(list).ok().and_then(|list| RawValue::from_string(list).ok()).ok_or_else(lost)?;
    Ok((list, !left.is_empty()))
}

pub(super) fn lost() -> Box<Problem> {
    Problem::new(Code::Internal, "the answer of the store is incomplete; this is a defect")
}
