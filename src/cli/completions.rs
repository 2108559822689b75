//! `annals completions`: prints the completions of a shell.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use crate::cli::client::failure::{Failure, exit_code};

/// The text after the flags in the help.
pub const EXAMPLES: &str = "\
Examples:
  annals completions bash > ~/.local/share/bash-completion/completions/annals
  annals completions zsh  > ~/.zfunc/_annals       with fpath+=~/.zfunc before compinit
  annals completions fish > ~/.config/fish/completions/annals.fish";

/// The arguments of `annals completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs `annals completions`.
pub fn run(args: &CompletionsArgs, mut command: Command) -> ExitCode {
    // The library panics if it cannot write, so that it writes into memory.
    let mut script = Vec::new();
    generate(args.shell, &mut command, "annals", &mut script);
    exit_code(io::stdout().write_all(&script).map_err(Failure::from))
}
