//! The media types of requests and responses.

/// JSON, the default representation.
pub const JSON: &str = "application/json";
/// Events as lines.
pub const NDJSON: &str = "application/x-ndjson";
/// Server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";
/// A batch of CloudEvents.
pub const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";
/// Problem documents (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Pages for browsers.
pub const HTML: &str = "text/html";
/// The source of the pages of error codes.
pub const MARKDOWN: &str = "text/markdown";
