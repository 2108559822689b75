//! Standard output: lines for people, with colours on a terminal, or JSON.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use clap::Args;

use crate::cli::client::event::Event;
use crate::cli::client::failure::Failure;
use crate::cli::client::text::{cut, printable};

/// The largest number of characters of a payload in a line on a terminal. A pipe gets all of them.
const PAYLOAD_CHARS_MAX: usize = 400;

/// The flags of every command that prints a result of the service.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// Print JSON as the service returns it, one object a line
    #[arg(long)]
    pub json: bool,
}

/// What a part of a line is, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A time, a position or an id.
    Detail,
    Stream,
    Kind,
    Added,
    Removed,
    Changed,
}

impl Part {
    /// Returns the parameter of the escape sequence (SGR, ECMA-48).
    fn colour(self) -> &'static str {
        match self {
            Self::Detail => "2",
            Self::Stream => "36",
            Self::Kind => "1",
            Self::Added => "32",
            Self::Removed => "31",
            Self::Changed => "33",
        }
    }
}

/// Standard output of a command.
pub struct Output {
    out: BufWriter<Stdout>,
    pub is_json: bool,
    pub is_terminal: bool,
    has_colours: bool,
}

impl Output {
    /// Opens standard output. It has colours on a terminal, unless `NO_COLOR` is set or the terminal has none.
    pub fn new(args: OutputArgs) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            out: BufWriter::new(stdout),
            is_json: args.json,
            is_terminal,
            has_colours: is_terminal && !is_dumb && !is_set("NO_COLOR"),
        }
    }

    /// Returns a text with the colour of its part, and without control characters.
    pub fn paint(&self, part: Part, text: &str) -> String {
        let text = printable(text);
        if self.has_colours { format!("\u{1b}[{}m{text}\u{1b}[0m", part.colour()) } else { text.into_owned() }
    }

    /// Writes a line.
    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{line}")?)
    }

    /// Writes an event, given as the service returned it, in one line.
    pub fn event(&mut self, event: &str) -> Result<(), Failure> {
        if self.is_json {
            return self.line(event);
        }
        let event = Event::parse(event)?;
        let payload = event.event_data.get();
        let payload = if self.is_terminal { cut(payload, PAYLOAD_CHARS_MAX) } else { payload.into() };
        let line = format!(
            "{}  {}  {}  {}  {}",
            self.paint(Part::Detail, &event.occurred_at),
            self.paint(Part::Detail, &event.global_position.to_string()),
            self.paint(Part::Stream, &event.place()),
            self.paint(Part::Kind, &event.event_type),
            printable(&payload),
        );
        self.line(&line)
    }

    /// Clears the screen of a terminal.
    pub fn clear(&mut self) -> Result<(), Failure> {
        if self.is_terminal { Ok(self.out.write_all(b"\x1b[H\x1b[2J")?) } else { Ok(()) }
    }

    /// Passes on what was written. A command calls it before it waits and at its end.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}
