//! Parsers for the values of settings.

use std::time::Duration;

/// Returns the value of a setting. An empty variable counts as not set.
pub fn non_empty(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

/// Parses a duration longer than 0s.
pub fn duration(value: &str) -> Result<Duration, String> {
    match humantime::parse_duration(value) {
        Ok(duration) if duration.is_zero() => Err("must be longer than 0s".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write it like 30s, 500ms or 2m")),
    }
}
