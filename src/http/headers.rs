//! Headers that may be given once.

use axum::http::{HeaderMap, HeaderValue};

use super::problem::{FieldError, Problem};

/// The header's value, if it is given; an error if it is given more than once. `name` is as people write it.
pub fn single<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h HeaderValue>, Box<Problem>> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Problem::invalid(FieldError::header(name, "is given more than once")));
    }
    Ok(value)
}
