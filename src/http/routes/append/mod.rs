//! Append: `POST /streams/{type}/{id}`, and `POST /appends` for several streams in one atomic step.
//!
//! What is asked for is read in `request`, what is answered is written in `answer`.

mod answer;
mod request;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;

use crate::app::App;
use crate::domain::access::Scope;
use crate::domain::append::{Append, AppendRequest};
use crate::http::access::Caller;
use crate::http::conditional::{self, etag};
use crate::http::event_in::Door;
use crate::http::negotiate::{self, JSON};
use crate::http::openapi::WriteProblems;
use crate::http::path::{PathParams, stream_path};
use crate::http::problem::{ProblemSchema, Refusal};
use crate::http::{body, query};
use answer::{AllAppended, Appended, Decision, answer, conflict, conflicts, lost, submit, write_appended};
use request::{AppendsIn, Options, StreamAppendIn, appends};

/// Append events to a stream
///
/// All or nothing. The expected version is a precondition: `If-Match: "41"`, `If-None-Match: *` (no event yet),
/// `If-Match: *` (at least one), or none. A request with the same event ids, or the same `Idempotency-Key`, can be
/// repeated safely: the answer is the first one's, with status 200.
#[utoipa::path(post, path = "/streams/{aggregate_type}/{aggregate_id}", tag = "streams",
    params(
        ("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("aggregate_id" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("If-Match" = Option<String>, Header, description = "Expected version, `\"41\"`, or `*`"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: the stream does not exist"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the ids of events without one, 1 to 255 characters"),
        ("X-Correlation-Id" = Option<String>, Header, description = "Default for events without one, a UUID"),
        ("X-Causation-Id" = Option<String>, Header, description = "Default for events without one, a UUID"),
        ("Prefer" = Option<String>, Header, description = "`return=representation`: a conflict brings the missed events"),
    ),
    request_body(content = crate::http::openapi::StreamAppendSchema, content_type = "application/json"),
    responses(
        (status = 201, description = "Written and durable", body = Appended),
        (status = 200, description = "All of it was written before (`Idempotent-Replayed: true`)", body = Appended),
        (status = 409, description = "An event id is known already", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 412, description = "The stream is at another version", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 422, description = "JSON that cannot be kept", body = ProblemSchema, content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn append_to_stream(
    State(app): State<Arc<App>>,
    caller: Caller,
    path: PathParams,
    request: Request,
) -> Result<Response, Refusal> {
    // Taken as a whole: to take the headers alone copies them.
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    negotiate::accepted(headers, &[JSON])?;
    let body = body::read_json(headers, body, &app.settings).await?;
    query::no_parameters(&parts.uri)?;
    let stream = path.stream()?;
    let expected = conditional::expected_version(headers)?;
    let options = Options::of(headers)?;
    let sent: StreamAppendIn = body::parse(&body)?;

    let mut door = Door::new(app.settings.max_body_bytes);
    let events = door.let_in("/events", &sent.events, options.defaults, |n| options.event_id(&app, &stream, n))?;
    door.inspect("/events", &sent.events)?;
    let ids_are_new = options.ids_are_new(&sent.events);
    let request = Arc::new(AppendRequest { appends: vec![Append { stream, expected, events }], ids_are_new });

    match submit(&app, &request).await? {
        Decision::Appended { replayed, recorded } => {
            let (append, recorded) = request.appends.iter().zip(&recorded).next().ok_or_else(lost)?;
            let (first, last) = recorded.first().zip(recorded.last()).ok_or_else(lost)?;
            let mut body = Vec::with_capacity(512);
            write_appended(&mut body, &app, append, recorded);
            let mut response = answer(replayed, body);
            let location = format!("{}/{}", stream_path(&append.stream), first.version);
            response.headers_mut().insert(header::ETAG, etag(last.version));
            response.headers_mut().insert(header::LOCATION, HeaderValue::try_from(location).map_err(|_| lost())?);
            Ok(response)
        }
        Decision::Conflict(current) => {
            let append = request.appends.first().ok_or_else(lost)?;
            let current = current.first().copied().ok_or_else(lost)?;
            // Whoever may only append is told where the stream stands, and not what it says.
            let may_read = caller.may(Scope::Read, append.stream.aggregate_type());
            // In a box: every append would carry the room for reading the missed events.
            let conflict = Box::pin(conflict(&app, append, current, options.wants_missed_events && may_read));
            Err(conflict.await?.into())
        }
    }
}

/// Append events to several streams in one atomic step
///
/// At most 100 streams, each once, and 1,000 events in all. Where one precondition fails, nothing is written.
#[utoipa::path(post, path = "/appends", tag = "streams",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the ids of events without one, 1 to 255 characters"),
        ("X-Correlation-Id" = Option<String>, Header, description = "Default for events without one, a UUID"),
        ("X-Causation-Id" = Option<String>, Header, description = "Default for events without one, a UUID"),
    ),
    request_body(content = crate::http::openapi::AppendsSchema, content_type = "application/json"),
    responses(
        (status = 201, description = "Written and durable", body = AllAppended),
        (status = 200, description = "All of it was written before (`Idempotent-Replayed: true`)", body = AllAppended),
        (status = 409, description = "A stream is at another version (`conflicts`), or an event id is known already", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 422, description = "JSON that cannot be kept", body = ProblemSchema, content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn append_to_streams(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let body = body::read_json(&headers, body, &app.settings).await?;
    query::no_parameters(&uri)?;
    conditional::no_preconditions(&headers)?;
    let options = Options::of(&headers)?;
    let sent: AppendsIn = body::parse(&body)?;
    let request = Arc::new(appends(&app, sent, &options)?);
    request.appends.iter().try_for_each(|append| caller.check(Scope::Append, append.stream.aggregate_type()))?;

    match submit(&app, &request).await? {
        Decision::Appended { replayed, recorded } => {
            let mut body = Vec::from(b"{\"appends\":[");
            for (n, (append, recorded)) in request.appends.iter().zip(&recorded).enumerate() {
                if n > 0 {
                    body.push(b',');
                }
                write_appended(&mut body, &app, append, recorded);
            }
            body.extend_from_slice(b"]}");
            Ok(answer(replayed, body))
        }
        Decision::Conflict(current) => Err(conflicts(&request, &current).into()),
    }
}
