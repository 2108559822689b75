//! Media types.

pub const JSON: &str = "application/json";
pub const NDJSON: &str = "application/x-ndjson";
pub const EVENT_STREAM: &str = "text/event-stream";
pub const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";
pub const PROBLEM_JSON: &str = "application/problem+json";
pub const HTML: &str = "text/html";
pub const MARKDOWN: &str = "text/markdown";
