//! `PUT /groups/{group_name}`: create a consumer group, change it, or move it to another position.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::access::Scope;
use crate::domain::event::Position;
use crate::domain::group::GroupFilter;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::domain::name::{NameFault, check_name, check_path_name};
use crate::domain::partition::{PARTITIONS_MAX, is_number_of_partitions};
use crate::domain::version::ExpectedVersion;
use crate::http::cache::etag;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::conditional::Precondition;
use crate::http::extract::json_request::JsonRequest;
use crate::http::extract::path::GroupPath;
use crate::http::extract::query::{FromQuery, Parameters, Query};
use crate::http::openapi::parameters::GroupParams;
use crate::http::openapi::responses::WriteProblems;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::schema::ProblemSchema;
use crate::http::routes::groups::shared::{GroupFilterSchema, GroupOut, check_filter, in_range, of_group};
use crate::store::admin::projections::{PROJECTIONS_MAX, PROJECTIONS_OF_KEY_MAX};
use crate::store::groups::settings::{ChangeGroupResult, CreateGroupResult, Group, GroupSettings};
use crate::wire::correlation::id_from_text;

const EXAMPLE: &str = r#"{"filter": {"aggregate_type": ["Order"]}}"#;
const LEASE_SECONDS_MAX: i64 = 3_600;
const RETRIES_MAX: usize = 100;
const RETRY_SECONDS_MAX: i64 = 86_400;
/// The largest number of values of one member of a filter.
const VALUES_MAX: usize = 100;

/// A group to create, or what changes of it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewGroup)]
pub struct GroupIn {
    /// The events of the group, all if it is empty. It never changes.
    #[schema(value_type = Option<GroupFilterSchema>)]
    filter: Option<FilterIn>,
    /// The position after which the group begins: a number, or `head`. Default 0. Only for a new group, or with `reset`.
    #[schema(value_type = Option<serde_json::Value>)]
    last_processed_position: Option<serde_json::Value>,
    /// A power of two, 1 to 256. Default 16. It can be doubled, and never decreases.
    partitions: Option<i64>,
    /// 1 to 3600, default 30.
    #[schema(minimum = 1, maximum = 3600)]
    lease_seconds: Option<i64>,
    /// The seconds before each further try of a failed event, default `[1, 5, 30, 120, 600]`.
    #[schema(max_items = 100)]
    retry_after: Option<Vec<i64>>,
    /// Whether the group hands out nothing.
    paused: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct FilterIn {
    aggregate_type: Vec<String>,
    aggregate_id: Vec<String>,
    event_type: Vec<String>,
    correlation_id: Vec<String>,
}

/// Where a group begins.
enum Start {
    Head,
    At(Position),
}

/// Whether the request moves the group.
pub struct Reset(bool);

impl FromQuery for Reset {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let reset = query.take_flag("reset")?;
        query.finish()?;
        Ok(Self(reset))
    }
}

/// The validated body.
struct Change {
    filter: Option<GroupFilter>,
    start: Option<Start>,
    partitions: Option<i16>,
    lease_seconds: Option<i32>,
    retry_after: Option<Vec<i32>>,
    paused: Option<bool>,
}

impl FilterIn {
    fn validate(self) -> ApiResult<GroupFilter> {
        type Check = fn(&str) -> Result<(), NameFault>;
        let lists: [(&str, &[String], Check); 4] = [
            ("aggregate_type", &self.aggregate_type, check_path_name),
            ("aggregate_id", &self.aggregate_id, check_path_name),
            ("event_type", &self.event_type, check_name),
            (
                "correlation_id",
                &self.correlation_id,
                |text| if text.is_empty() { Err(NameFault::Empty) } else { Ok(()) },
            ),
        ];
        for (member, values, check) in lists {
            if values.len() > VALUES_MAX {
                return Err(ApiError::invalid_member(
                    format!("/filter/{member}"),
                    format!("must have at most {VALUES_MAX} values"),
                ));
            }
            for (index, value) in values.iter().enumerate() {
                check(value).map_err(|fault| {
                    ApiError::invalid_member(format!("/filter/{member}/{index}"), fault.to_string())
                })?;
            }
        }
        if !self.aggregate_id.is_empty() && self.aggregate_type.len() != 1 {
            return Err(ApiError::invalid_member("/filter/aggregate_id", "requires exactly one aggregate_type"));
        }
        let correlation_id = self.correlation_id.iter().map(|text| id_from_text(text.as_bytes())).collect();
        let Self { aggregate_type, aggregate_id, event_type, .. } = self;
        Ok(GroupFilter { aggregate_type, aggregate_id, event_type, correlation_id }.normalized())
    }
}

impl GroupIn {
    fn validate(self) -> ApiResult<Change> {
        let partitions = self.partitions.map(|number| {
            let partitions = u16::try_from(number).ok().filter(|number| is_number_of_partitions(*number));
            let detail = || format!("must be a power of two from 1 to {PARTITIONS_MAX}");
            partitions
                .and_then(|number| i16::try_from(number).ok())
                .ok_or_else(|| ApiError::invalid_member("/partitions", detail()))
        });
        let partitions = partitions.transpose()?;
        let start = match &self.last_processed_position {
            None => None,
            Some(serde_json::Value::String(text)) if text == "head" => Some(Start::Head),
            Some(value) => {
                let position = value.as_i64().filter(|position| (0..=EXACT_INTEGER_MAX).contains(position));
                let fault = || {
                    let detail = if value.is_f64() {
                        format!("must be a whole number, and is {value}")
                    } else {
                        format!("must be a position from 0 to {EXACT_INTEGER_MAX}, or \"head\"")
                    };
                    ApiError::invalid_member("/last_processed_position", detail)
                };
                Some(Start::At(position.ok_or_else(fault)?))
            }
        };
        let lease_seconds =
            self.lease_seconds.map(|seconds| in_range("/lease_seconds", seconds, 1, LEASE_SECONDS_MAX)).transpose()?;
        let retry_after = match self.retry_after {
            None => None,
            Some(seconds) if seconds.len() > RETRIES_MAX => {
                let detail = format!("must have at most {RETRIES_MAX} elements, and has {}", seconds.len());
                return Err(ApiError::invalid_member("/retry_after", detail));
            }
            Some(seconds) => {
                let number =
                    |(index, seconds)| in_range(format!("/retry_after/{index}"), seconds, 0, RETRY_SECONDS_MAX);
                Some(seconds.into_iter().enumerate().map(number).collect::<ApiResult<_>>()?)
            }
        };
        let filter = self.filter.map(FilterIn::validate).transpose()?;
        Ok(Change { filter, start, partitions, lease_seconds, retry_after, paused: self.paused })
    }
}

impl Change {
    /// Returns the settings: those of the request, and for the others those of the group, or the defaults.
    fn settings(&self, current: Option<&GroupSettings>) -> GroupSettings {
        let default =
            GroupSettings { partitions: 16, lease_seconds: 30, retry_after: vec![1, 5, 30, 120, 600], paused: false };
        let current = current.unwrap_or(&default);
        GroupSettings {
            partitions: self.partitions.unwrap_or(current.partitions),
            lease_seconds: self.lease_seconds.unwrap_or(current.lease_seconds),
            retry_after: self.retry_after.clone().unwrap_or_else(|| current.retry_after.clone()),
            paused: self.paused.unwrap_or(current.paused),
        }
    }

    /// Returns the position of `start`; `None` if the request has none.
    async fn position(&self, app: &App) -> ApiResult<Option<Position>> {
        let Some(start) = &self.start else { return Ok(None) };
        let head = app.primary.log_head().await?.global_position;
        match start {
            Start::Head => Ok(Some(head)),
            Start::At(position) if *position > head => Err(ApiError::position_beyond_head(head)),
            Start::At(position) => Ok(Some(*position)),
        }
    }
}

/// Create a consumer group, or change it
///
/// A group that exists keeps what the request does not name. `filter` never changes, and `partitions` can only be doubled.
/// `reset=true` moves the group to `last_processed_position` and deletes its parked streams. While claims are open,
/// neither is possible.
#[utoipa::path(put, path = "/groups/{group_name}", operation_id = "put_group", tag = "groups",
    params(
        GroupParams,
        ("reset" = Option<bool>, Query, description = "`true`: the group moves to `last_processed_position`"),
        ("If-Match" = Option<String>, Header, description = "The expected revision, or `*`: the group exists"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: the group does not exist"),
    ),
    request_body(content = GroupIn, content_type = "application/json"),
    responses(
        (status = 200, description = "The group exists, or was changed", body = GroupOut),
        (status = 201, description = "Created", body = GroupOut),
        (status = 409, description = "The group has another filter, the name belongs to another projection, or claims \
            are open", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 412, description = "The group has another revision", body = ProblemSchema,
            content_type = "application/problem+json"),
        (status = 422, description = "The position is beyond the head of the log", body = ProblemSchema,
            content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn put_group(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    request: JsonRequest<(GroupPath, Parameters<Reset>, Precondition)>,
) -> ApiResult<Response> {
    let JsonRequest { parts: (GroupPath(name), Parameters(Reset(reset)), Precondition(expected)), body } = request;
    let change = body.parse::<GroupIn>(EXAMPLE)?.validate()?;
    if reset && change.start.is_none() {
        return Err(ApiError::invalid_member("/last_processed_position", "is required with reset=true"));
    }
    let status = loop {
        let current = app.primary.group(&name).await?;
        check_precondition(expected, current.as_ref())?;
        let applied = match &current {
            None => create(&app, &caller, &name, &change).await?,
            Some(group) => update(&app, &caller, group, &change, reset).await?,
        };
        // Another request may have created or changed the group in the meantime.
        if let Some(status) = applied {
            break status;
        }
    };
    let group = app.groups.open_current(&name).await.map_err(|error| of_group(error, &name))?;
    let out = GroupOut::read(&app, &group).await?;
    Ok((status, [(header::ETAG, etag(group.group().revision))], Json(out)).into_response())
}

/// Creates a group. Returns `None` if a group of this name exists.
async fn create(app: &App, caller: &Caller, name: &str, change: &Change) -> ApiResult<Option<StatusCode>> {
    let filter = change.filter.clone().unwrap_or_default();
    check_filter(caller, Scope::Admin, &filter)?;
    let position = change.position(app).await?.unwrap_or(0);
    let created = app.primary.create_group(name, &filter, &change.settings(None), position, caller.key_id()).await?;
    match created {
        CreateGroupResult::Created => Ok(Some(StatusCode::CREATED)),
        CreateGroupResult::NameInUse if app.primary.group(name).await?.is_some() => Ok(None),
        CreateGroupResult::NameInUse => {
            Err(ApiError::group_differs("a projection that is not a group has this name: choose another name"))
        }
        CreateGroupResult::TooMany => Err(ApiError::too_many_projections(PROJECTIONS_MAX, "the store")),
        CreateGroupResult::TooManyOfKey => Err(ApiError::too_many_projections(PROJECTIONS_OF_KEY_MAX, "the key")),
    }
}

/// Changes a group. Returns `None` if it was changed in the meantime.
async fn update(
    app: &App,
    caller: &Caller,
    group: &Group,
    change: &Change,
    reset: bool,
) -> ApiResult<Option<StatusCode>> {
    check_filter(caller, Scope::Admin, &group.filter)?;
    if change.filter.as_ref().is_some_and(|filter| *filter != group.filter) {
        let detail = "the group has another filter, which never changes: create another group";
        return Err(ApiError::group_differs(detail).with("filter", &group.filter));
    }
    let settings = change.settings(Some(&group.settings));
    if settings.partitions < group.settings.partitions {
        let detail =
            format!("must be at least {}: the number of partitions never decreases", group.settings.partitions);
        return Err(ApiError::invalid_member("/partitions", detail));
    }
    let reset_to = if reset { change.position(app).await? } else { None };
    if settings == group.settings && reset_to.is_none() {
        return Ok(Some(StatusCode::OK));
    }
    match app.primary.change_group(group, &settings, reset_to).await? {
        ChangeGroupResult::Changed => Ok(Some(StatusCode::OK)),
        ChangeGroupResult::Conflict => Ok(None),
        ChangeGroupResult::ClaimsOpen(seconds) => Err(ApiError::claims_open(seconds)),
    }
}

/// Fails unless the group has the expected revision.
fn check_precondition(expected: ExpectedVersion, current: Option<&Group>) -> ApiResult<()> {
    let revision = current.map(|group| group.revision);
    let is_met = match expected {
        ExpectedVersion::Any => true,
        ExpectedVersion::None => revision.is_none(),
        ExpectedVersion::Exists => revision.is_some(),
        ExpectedVersion::Exact(expected) => revision.is_some_and(|revision| u64::try_from(revision) == Ok(expected)),
    };
    if is_met { Ok(()) } else { Err(ApiError::revision_conflict(expected, revision)) }
}
