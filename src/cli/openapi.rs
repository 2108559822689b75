//! `annals openapi`: prints the OpenAPI document. A test compares it with `openapi/openapi.json`.

use std::process::ExitCode;

use crate::http::router::openapi_document;

/// Runs `annals openapi`.
pub fn run() -> anyhow::Result<ExitCode> {
    println!("{}", openapi_document().to_pretty_json()?);
    Ok(ExitCode::SUCCESS)
}
