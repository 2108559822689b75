//! `annals openapi`: the document that the test compares with `openapi/openapi.json`.

use std::process::ExitCode;

pub fn run() -> anyhow::Result<ExitCode> {
    println!("{}", crate::http::openapi_document().to_pretty_json()?);
    Ok(ExitCode::SUCCESS)
}
