//! The log, in JSON for machines or plain for people: what happens to the service, and a line for each request that was refused
//! or failed; at `debug` for every request. Never payloads, never secrets.

use std::io::IsTerminal;

use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// Sends the log to standard error; standard output belongs to commands' results.
pub fn init(config: &LogConfig) {
    let layer = layer()
        .with_writer(std::io::stderr)
        // A closed standard error must not become a panic in whatever is being logged.
        .log_internal_errors(false)
        .with_target(false);
    let layer = match config.format {
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
        LogFormat::Human => layer.compact().with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    registry().with(layer).with(config.level.clone()).init();
}
