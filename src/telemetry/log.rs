//! The log: one line a request, in JSON for machines or plain for people. Never payloads, never secrets.

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Sends the log to standard error; standard output belongs to commands' results.
pub fn init(config: &LogConfig) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse_lossy(&config.level))
        .with_writer(std::io::stderr)
        // A closed standard error must not become a panic in whatever is being logged.
        .log_internal_errors(false)
        .with_target(false);
    match config.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).init(),
        LogFormat::Human => builder.compact().with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
    }
}
