//! Cursors: how far a reader has read the log.
//!
//! A position identifies an event only within an epoch. A new epoch begins when the end of the log may have been lost
//! (a failover, a restore). If a cursor contains its epoch, the service detects that the cursor is no longer valid.

use std::fmt;
use std::str::FromStr;

use crate::domain::event::Position;
use crate::domain::json::EXACT_INTEGER_MAX;

/// The number of an epoch. Later epochs have higher numbers, and the first one of a log is a number of its own.
pub type Epoch = i32;

/// The last position that a reader has processed, and its epoch. Its text form is `epoch:position`, or `position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// `None`: the reader did not name an epoch, so the service cannot detect that the cursor is no longer valid.
    pub epoch: Option<Epoch>,
    /// 0 before the first event, at most [`EXACT_INTEGER_MAX`].
    pub position: Position,
}

/// A text is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a position like 1042, or an epoch and a position like 1:1042")]
pub struct ParseCursorError;

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, ParseCursorError> {
        let (epoch, position) = match text.split_once(':') {
            Some((epoch, position)) => (Some(epoch), position),
            None => (None, text),
        };
        let parse_epoch = |digits| parse_number(digits).and_then(|epoch| Epoch::try_from(epoch).ok());
        let epoch = epoch.map(|digits| parse_epoch(digits).ok_or(ParseCursorError)).transpose()?;
        if epoch == Some(0) {
            return Err(ParseCursorError);
        }
        Ok(Self { epoch, position: parse_number(position).ok_or(ParseCursorError)? })
    }
}

/// Parses digits, without a sign or white space.
fn parse_number(digits: &str) -> Option<Position> {
    let only_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| only_digits && *number <= EXACT_INTEGER_MAX)
}

impl fmt::Display for Cursor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch {
            Some(epoch) => write!(out, "{epoch}:{}", self.position),
            None => write!(out, "{}", self.position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_parsed_and_printed_unchanged() {
        for text in ["0", "1042", "1:0", "3:1042", "1:9007199254740991"] {
            let cursor: Cursor = text.parse().expect("a cursor");
            assert_eq!(cursor.to_string(), text);
        }
        for text in
            ["", ":", "1:", ":1", "0:1", "-1", "+1", "1:2:3", "1.5", " 1", "x", "9007199254740992", "3000000000:1"]
        {
            assert_eq!(text.parse::<Cursor>(), Err(ParseCursorError), "{text}");
        }
    }
}
