//! What the routes of reducers have in common: a reducer in a response, and the source in a request.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::reducer::{Language, Reducer, ReducerSource, SNAPSHOT_EVERY_MAX, UnknownLanguage};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::wire::time::format_time;

/// The reducer of a type.
#[derive(Serialize, ToSchema)]
#[schema(as = Reducer)]
pub struct ReducerOut {
    aggregate_type: String,
    /// A number that is never used again.
    revision: i64,
    language: &'static str,
    source: String,
    snapshot_every: u32,
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<Reducer> for ReducerOut {
    fn from(reducer: Reducer) -> Self {
        Self {
            aggregate_type: reducer.aggregate_type,
            revision: reducer.revision,
            language: reducer.source.language.as_str(),
            source: reducer.source.source,
            snapshot_every: reducer.source.snapshot_every,
            created_at: format_time(reducer.created_at),
        }
    }
}

/// Validates the source in a request, without running it.
pub fn validate_source(language: &str, source: Option<String>, snapshot_every: u32) -> ApiResult<ReducerSource> {
    let language = language.parse().map_err(|_: UnknownLanguage| {
        ApiError::invalid(FieldError::pointer("/language", "must be javascript or merge-patch"))
    })?;
    let source = match (language, source.filter(|source| !source.trim().is_empty())) {
        (Language::MergePatch, Some(_)) => {
            return Err(ApiError::invalid_reducer("merge-patch takes no source", 1, 1));
        }
        (Language::JavaScript, None) => {
            return Err(ApiError::invalid(FieldError::pointer("/source", "is required: an object of handlers")));
        }
        (_, source) => source.unwrap_or_default(),
    };
    Ok(ReducerSource { language, source, snapshot_every })
}

/// Validates the interval of snapshots in a request.
pub fn validate_interval(snapshot_every: u32) -> ApiResult<u32> {
    ApiError::check_range("/snapshot_every", snapshot_every.into(), 1, SNAPSHOT_EVERY_MAX.into())?;
    Ok(snapshot_every)
}
