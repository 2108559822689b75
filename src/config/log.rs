//! Settings of the log.

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::Targets;

/// Settings of every command's log.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Format of the log [default: human on a terminal, otherwise json]
    #[arg(long, env = "ANNALS_LOG", value_name = "ANNALS_LOG", global = true, ignore_case = true)]
    pub annals_log: Option<LogFormat>,

    /// Level of the log: off, error, warn, info, debug, trace, or a list of directives like info,hyper=debug
    #[arg(long, env = "ANNALS_LOG_LEVEL", value_name = "ANNALS_LOG_LEVEL", default_value = "info", global = true,
          value_parser = log_level)]
    pub annals_log_level: Targets,
}

/// The format of the log: text for a terminal, or one JSON object a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Human,
    Json,
}

/// The resolved settings of the log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    pub format: LogFormat,
    pub level: Targets,
}

impl LogArgs {
    /// Resolves the defaults. The format depends on whether standard error is a terminal.
    pub fn resolve(&self) -> LogConfig {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let default = if terminal { LogFormat::Human } else { LogFormat::Json };
        LogConfig { format: self.annals_log.unwrap_or(default), level: self.annals_log_level.clone() }
    }
}

fn log_level(value: &str) -> Result<Targets, String> {
    // A word that is not a level would be parsed as the name of a module, and disable all other messages.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let unknown = value
        .split(',')
        .map(str::trim)
        .find(|part| !part.contains('=') && !levels.contains(&part.to_lowercase().as_str()));
    if let Some(unknown) = unknown {
        return Err(format!("{unknown:?} is not a level: use {}", levels.join(", ")));
    }
    value.parse().map_err(|_| format!("must be a list like info,hyper=debug, with the levels {}", levels.join(", ")))
}
