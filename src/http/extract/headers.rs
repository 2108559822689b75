//! Headers that may occur once in a request.

use axum::http::{HeaderMap, HeaderValue};

use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;

/// Returns the value of a header, if the request has it. Fails if the header occurs more than once. Errors show `name`
/// with the given capitals.
pub fn single<'h>(headers: &'h HeaderMap, name: &'static str) -> ApiResult<Option<&'h HeaderValue>> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(ApiError::invalid(FieldError::header(name, "is given more than once")));
    }
    Ok(value)
}

/// Returns the value of such a header as text, without white space at its ends. Fails unless it is visible ASCII.
pub fn single_text<'h>(headers: &'h HeaderMap, name: &'static str) -> ApiResult<Option<&'h str>> {
    let Some(value) = single(headers, name)? else { return Ok(None) };
    let text = value.to_str();
    let text = text.map_err(|_| ApiError::invalid(FieldError::header(name, "must be visible ASCII")))?;
    Ok(Some(text.trim()))
}
