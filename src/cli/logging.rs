//! The log, as JSON or as text: events of the service, and one line for each rejected or failed request; at `debug` for
//! every request. It never contains payloads or secrets.

use std::io::IsTerminal;

use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::log::{LogConfig, LogFormat};

/// Writes the log to standard error. Standard output has the results of commands.
pub fn init(config: &LogConfig) {
    let layer = layer()
        .with_writer(std::io::stderr)
        // A closed standard error must not cause a panic.
        .log_internal_errors(false)
        .with_target(false);
    let layer = match config.format {
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
        LogFormat::Human => layer.compact().with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    registry().with(layer).with(config.level.clone()).init();
}
