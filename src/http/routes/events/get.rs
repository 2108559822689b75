//! `GET /events/{event_id}`: read one event.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use crate::app::App;
use crate::domain::access::Scope;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::path::EventIdPath;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::schema::ProblemSchema;
use crate::http::representation::response::single_event;
use crate::wire::event::{EventSchema, write_event};

/// Read one event by its id
#[utoipa::path(get, path = "/events/{event_id}", operation_id = "read_event", tag = "streams",
    params(("event_id" = String, Path, description = "A UUID", format = Uuid)),
    responses(
        (status = 200, description = "The event", body = EventSchema),
        (status = 404, description = "No event has this id", body = ProblemSchema,
            content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_event(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    EventIdPath(event_id): EventIdPath,
    _: NoQuery,
) -> ApiResult<Response> {
    let written = app.primary.read_event(event_id, |event| {
        // A caller that may not read the event gets the same response as if it did not exist.
        caller.may(Scope::Read, event.aggregate_type).then(|| {
            let mut event_json = Vec::new();
            write_event(&mut event_json, event);
            event_json
        })
    });
    let event_json = written.await?.flatten().ok_or_else(|| ApiError::event_not_found(event_id))?;
    Ok(single_event(event_json))
}
