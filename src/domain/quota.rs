//! The quotas of an API key.

/// The largest numbers that a key may use in a minute, for each process of the service; `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quotas {
    pub requests: Option<i32>,
    /// Events to append.
    pub events: Option<i32>,
    /// Bytes of request bodies.
    pub bytes: Option<i32>,
}
