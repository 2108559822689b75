//! `GET /streams/{aggregate_type}/{aggregate_id}/{version}`: read one event of a stream.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use crate::app::App;
use crate::domain::version::Version;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::path::{StreamPath, VersionPath};
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::StreamParams;
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::schema::ProblemSchema;
use crate::http::representation::response::single_event;
use crate::store::fetch_size::FetchSize;
use crate::store::streams::events::StreamRead;
use crate::store::streams::range::VersionRange;
use crate::wire::event::{EventSchema, write_event};

/// Read one event of a stream by its version
#[utoipa::path(get, path = "/streams/{aggregate_type}/{aggregate_id}/{version}", operation_id = "read_stream_event",
    tag = "streams",
    params(StreamParams, ("version" = u64, Path, description = "1, 2, 3 …", minimum = 1)),
    responses(
        (status = 200, description = "The event", body = EventSchema),
        (status = 404, description = "The stream does not exist, or does not have this version", body = ProblemSchema,
            content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_stream_event(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    StreamPath(stream): StreamPath,
    VersionPath(version): VersionPath,
    _: NoQuery,
) -> ApiResult<Response> {
    let head = app.primary.stream_head(&stream).await?;
    let head = head.ok_or_else(|| ApiError::stream_of_event_not_found(&stream, version))?;
    let existing = Version::try_from(version).ok().filter(|version| *version <= head.version);
    let version = existing.ok_or_else(|| ApiError::version_not_found(&stream, head.version, version))?;
    let read = StreamRead { stream: &stream, head: &head, range: VersionRange::forward(version, version), limit: 1 };
    let mut event_json = Vec::new();
    app.primary
        .read_stream(read, &mut FetchSize::default(), |event| {
            write_event(&mut event_json, event);
            ControlFlow::Continue(())
        })
        .await?;
    Ok(single_event(event_json))
}
