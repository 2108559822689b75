//! `prefix` of a list of streams: the beginning of their aggregate ids.

use crate::domain::name::check_path_name_prefix;
use crate::domain::name_range::NameRange;
use crate::http::extract::query::Query;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;

/// Takes `prefix` from the query.
pub fn take_prefix(query: &mut Query) -> ApiResult<Option<String>> {
    let prefix = query.take("prefix")?;
    if let Some(Err(fault)) = prefix.as_deref().map(check_path_name_prefix) {
        return Err(ApiError::invalid(FieldError::parameter("prefix", fault.to_string())));
    }
    Ok(prefix)
}

/// Returns the range of the aggregate ids that begin with a prefix; all of them without one.
pub fn ids_of_prefix(prefix: Option<&str>) -> NameRange {
    prefix.map_or_else(NameRange::all, NameRange::of_prefix)
}
