//! Headers that a request may have once.

use axum::http::{HeaderMap, HeaderValue};

use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;

/// Returns the value of a header, if the request has it. Fails if it has more than one. Errors show `name` as it is
/// written.
pub fn single<'h>(headers: &'h HeaderMap, name: &'static str) -> ApiResult<Option<&'h HeaderValue>> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(ApiError::invalid(FieldError::header(name, "is given more than once")));
    }
    Ok(value)
}

/// Does the same for a header of visible ASCII characters, without white space at its ends.
pub fn single_text<'h>(headers: &'h HeaderMap, name: &'static str) -> ApiResult<Option<&'h str>> {
    let Some(value) = single(headers, name)? else { return Ok(None) };
    let text = value.to_str();
    let text = text.map_err(|_| ApiError::invalid(FieldError::header(name, "must be visible ASCII")))?;
    Ok(Some(text.trim()))
}
