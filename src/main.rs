use std::process::ExitCode;

use annals::cli::command::{Cli, run};
use annals::cli::environment::without_misleading_variables;
use clap::Parser;

fn main() -> ExitCode {
    let done = match without_misleading_variables() {
        Ok(()) => run(Cli::parse()),
        Err(error) => Err(error),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("annals: {error:#}");
            ExitCode::FAILURE
        }
    }
}
