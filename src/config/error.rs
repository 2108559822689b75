//! Errors of the configuration.

/// Settings that are not valid, alone or together. The text names the variables, and says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);
