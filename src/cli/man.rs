//! `annals man`: prints the manual page of a command, or writes all of them into a folder.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::{Man, generate_to};

use crate::cli::client::failure::{Failure, Kind, exit_code};

/// The text after the flags in the help.
pub const EXAMPLES: &str = "\
Examples:
  annals man | man -l -                    the manual page of annals
  annals man tail | man -l -               the one of annals tail
  annals man --folder /usr/local/share/man/man1";

/// The arguments of `annals man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The command; without it, the page of annals itself
    command: Option<String>,

    /// Write all pages into this folder, which must exist
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    folder: Option<PathBuf>,
}

/// Runs `annals man`.
pub fn run(args: &ManArgs, program: Command) -> ExitCode {
    exit_code(print(args, program))
}

fn print(args: &ManArgs, mut program: Command) -> Result<(), Failure> {
    if let Some(folder) = &args.folder {
        return generate_to(program, folder)
            .map_err(|error| Failure::new(Kind::Other, format!("{}: {error}", folder.display())));
    }
    program.build();
    let command = match &args.command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name).filter(|found| !found.is_hide_set());
            found.cloned().ok_or_else(|| Failure::new(Kind::Usage, format!("there is no command {name}")))?
        }
    };
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(io::stdout().write_all(&page)?)
}
