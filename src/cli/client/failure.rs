//! Why a command that calls a service fails, and its exit status.

use std::io;
use std::process::ExitCode;

use crate::cli::client::text::printable;
use crate::config::error::ConfigError;

/// The kind of a failure. Its number is the exit status, which docs/reference/command-line.md describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Other = 1,
    /// The command line, or a value in it, is invalid.
    Usage = 2,
    NotFound = 3,
    /// The stream, or what was named, is not as the command expects.
    Conflict = 4,
    /// The service requires an API key, or one with more rights.
    Refused = 5,
    /// The service cannot be reached, or cannot serve the request at present.
    Unavailable = 6,
}

/// Why a command ends early.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The program that reads standard output, like head, has ended. The command ends quietly and with success.
    OutputClosed,
    Failed(Kind, String),
}

impl Failure {
    /// Creates a failure with the message for the person.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self::Failed(kind, message.into())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Kind::Usage, error.to_string())
    }
}

/// Converts an error of standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::new(Kind::Other, format!("standard output cannot be written: {error}")),
        }
    }
}

/// Prints the message of a failure to standard error, and returns the exit status.
pub fn exit_code(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::Failed(kind, message)) => {
            notice(&message);
            ExitCode::from(kind as u8)
        }
    }
}

/// Prints a message to standard error.
pub fn notice(message: &str) {
    eprintln!("annals: {}", printable(message));
}
