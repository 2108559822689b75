//! `POST /erasures`: erase the content of events.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::domain::access::Scope;
use crate::domain::erasure::{
    ERASED_IDS_MAX, ERASED_MEMBERS_MAX, ERASED_STREAMS_MAX, ErasedContent, ParseMemberError, REASON_CHARS_MAX,
};
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::erasures::request::{ErasureRequest, NamedStream};
use crate::erasures::service::{ErasurePreview, ErasureResult};
use crate::http::base_path;
use crate::http::cache::NO_CACHE;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::json_request::{JsonBody, JsonRequest};
use crate::http::extract::query::{FromQuery, Parameters, Query};
use crate::http::openapi::responses::WriteProblems;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::schema::ProblemSchema;
use crate::http::representation::response::json;
use crate::http::routes::erasures::receipt::{ErasureOut, Projections, may_read};
use crate::mutants;
use crate::wire::object::optional_objects;

/// The smallest body.
const EXAMPLE: &str =
    r#"{"reason": "Art. 17, ticket 4711", "streams": [{"aggregate_type": "Customer", "aggregate_id": "c-7"}]}"#;

/// What to erase. At least one stream or event id is named.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewErasure)]
pub struct ErasureIn {
    reason: String,
    #[serde(default, deserialize_with = "optional_objects")]
    #[schema(max_items = 100)]
    streams: Option<Vec<ErasedStreamIn>>,
    #[schema(value_type = Option<Vec<Uuid>>, max_items = 1000)]
    event_ids: Option<Vec<String>>,
    members: Option<Vec<String>>,
}

/// A stream, or some of its versions.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StreamToErase)]
pub struct ErasedStreamIn {
    aggregate_type: String,
    aggregate_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_version: Option<i64>,
}

/// The query parameters.
pub struct CreateParameters {
    is_dry_run: bool,
}

impl FromQuery for CreateParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let is_dry_run = query.take_flag("dry_run")?;
        query.finish()?;
        Ok(Self { is_dry_run })
    }
}

/// Returns an error for a list with more elements than allowed.
fn check_length<T>(pointer: &str, list: &[T], most: usize) -> ApiResult<()> {
    if list.len() <= most {
        return Ok(());
    }
    Err(ApiError::invalid_member(pointer, format!("must have at most {most} elements, and has {}", list.len())))
}

impl ErasureIn {
    /// Parses and validates a body.
    fn parse(body: &JsonBody, caller: &Caller) -> ApiResult<ErasureRequest> {
        let parsed: Self = body.parse(EXAMPLE)?;
        let length = parsed.reason.chars().count();
        if !(1..=REASON_CHARS_MAX).contains(&length) || parsed.reason.contains('\0') {
            let detail = format!("must have 1 to {REASON_CHARS_MAX} characters, and no U+0000");
            return Err(ApiError::invalid_member("/reason", detail));
        }
        let streams = parsed.streams.as_deref().unwrap_or_default();
        let texts = parsed.event_ids.as_deref().unwrap_or_default();
        let event_ids = texts.iter().enumerate().map(|(index, text)| {
            let invalid = |_| ApiError::invalid_member(format!("/event_ids/{index}"), "must be a UUID");
            Uuid::try_parse(text).map_err(invalid)
        });
        let event_ids = event_ids.collect::<ApiResult<Vec<_>>>()?;
        if streams.is_empty() && event_ids.is_empty() {
            return Err(ApiError::invalid_member("", "must name at least one event, in streams or in event_ids"));
        }
        check_length("/streams", streams, ERASED_STREAMS_MAX)?;
        check_length("/event_ids", &event_ids, ERASED_IDS_MAX)?;
        let named = streams.iter().enumerate().map(|(index, stream)| stream.named(index));
        Ok(ErasureRequest {
            streams: named.collect::<ApiResult<_>>()?,
            content: parsed.content()?,
            named: serde_json::to_string(&Named { streams, event_ids: &event_ids, members: parsed.members.as_deref() })
                .map_err(ApiError::internal)?,
            event_ids,
            reason: parsed.reason,
            requested_by: caller.key_id().map(str::to_owned),
        })
    }

    fn content(&self) -> ApiResult<ErasedContent> {
        let Some(members) = &self.members else { return Ok(ErasedContent::All) };
        if members.is_empty() {
            let detail = "must have at least one member; to erase all of event_data and metadata, omit it";
            return Err(ApiError::invalid_member("/members", detail));
        }
        check_length("/members", members, ERASED_MEMBERS_MAX)?;
        let parsed = members.iter().enumerate().map(|(index, member)| {
            let invalid =
                |fault: ParseMemberError| ApiError::invalid_member(format!("/members/{index}"), fault.to_string());
            member.parse().map_err(invalid)
        });
        Ok(ErasedContent::Members(parsed.collect::<ApiResult<_>>()?))
    }
}

/// What a request names, as it is stored.
#[derive(Serialize)]
struct Named<'r> {
    streams: &'r [ErasedStreamIn],
    event_ids: &'r [Uuid],
    members: Option<&'r [String]>,
}

impl ErasedStreamIn {
    fn named(&self, index: usize) -> ApiResult<NamedStream> {
        let pointer = |member: &str| format!("/streams/{index}/{member}");
        let stream = StreamId::parse(self.aggregate_type.clone(), self.aggregate_id.clone())
            .map_err(|fault| ApiError::invalid_member(pointer(fault.field), fault.fault.to_string()))?;
        let version = |member: &str, version: Option<i64>, default: Version| {
            let Some(version) = version else { return Ok(default) };
            if !(1..=EXACT_INTEGER_MAX).contains(&version) {
                return Err(ApiError::invalid_member(pointer(member), "must be a version: 1, 2, 3 …"));
            }
            Ok(Version::try_from(version).unwrap_or(Version::MAX))
        };
        let from = version("from_version", self.from_version, 1)?;
        let to = version("to_version", self.to_version, Version::MAX)?;
        if from > to {
            return Err(ApiError::invalid_member(pointer("from_version"), "must not be above to_version"));
        }
        Ok(NamedStream { stream, from, to })
    }
}

/// Erase the content of events
///
/// When the response arrives, no request is answered with the content any more. Each event keeps its place: its id,
/// type, version, position and time. An event of the type `$erased` in each stream announces the erasure. The bytes are
/// removed from the files of the tables and of the archive later: see `removed_at`.
#[utoipa::path(post, path = "/erasures", operation_id = "erase_events", tag = "erasures",
    params(("dry_run" = Option<bool>, Query, description = "`true`: returns the receipt as it would be, and erases nothing")),
    request_body(content = ErasureIn, content_type = "application/json"),
    responses(
        (status = 201, description = "The content is erased", body = ErasureOut),
        (status = 200, description = "All of it was erased before, or this is a dry run", body = ErasureOut),
        (status = 404, description = "A stream or an event does not exist; nothing is erased", body = ProblemSchema,
            content_type = "application/problem+json"),
        (status = 422, description = "The request names too many events; nothing is erased", body = ProblemSchema,
            content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn erase_events(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    request: JsonRequest<Parameters<CreateParameters>>,
) -> ApiResult<Response> {
    let JsonRequest { parts: Parameters(CreateParameters { is_dry_run }), body } = request;
    let scope = if mutants::is(mutants::ERASED_WITH_SCOPE_APPEND) { Scope::Append } else { Scope::Admin };
    let request = ErasureIn::parse(&body, &caller)?;
    for named in &request.streams {
        caller.check(scope, named.stream.aggregate_type())?;
    }
    let may_erase = |aggregate_type: &str| caller.may(scope, aggregate_type);
    let (reason, requested_by) = (request.reason.clone(), request.requested_by.clone());
    let unwritten = |preview: ErasurePreview, projections: &Projections| {
        ErasureOut::unwritten(reason, requested_by, app.clock.now(), preview, projections)
    };
    if is_dry_run {
        let preview = app.erasures.preview(&request, may_erase).await?;
        return Ok(json(unwritten(preview, &Projections::read(&app).await?)));
    }
    let result = app.erasures.erase(request, may_erase).await?;
    let projections = Projections::read(&app).await?;
    match result {
        ErasureResult::Erased(erasure) => {
            let location = HeaderValue::try_from(format!("{}/erasures/{}", base_path::current(), erasure.erasure))
                .map_err(ApiError::internal)?;
            let headers = [(header::LOCATION, location), (header::CACHE_CONTROL, NO_CACHE)];
            Ok((StatusCode::CREATED, headers, Json(ErasureOut::new(erasure, &projections))).into_response())
        }
        ErasureResult::Before(Some(erasure)) if may_read(&caller, &erasure) => {
            Ok(json(ErasureOut::new(erasure, &projections)))
        }
        // The receipt of an erasure that also concerns other types is not shown.
        ErasureResult::Before(_) => Ok(json(unwritten(ErasurePreview::default(), &projections))),
    }
}
