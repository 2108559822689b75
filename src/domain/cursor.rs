//! Where a reader of the log stands.
//!
//! A position names an event within an epoch. A new epoch begins when the end of the log may have been lost (a failover,
//! a restore): a cursor that carries its epoch can then be told from one that still leads somewhere.

use std::fmt;
use std::str::FromStr;

use super::event::Position;
use super::json::EXACT_INTEGER_MAX;

/// 1, 2, 3 …
pub type Epoch = i32;

/// The last position that a reader has seen, and the epoch that it has seen it in; as text `epoch:position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// `None`: the reader did not say, and takes the risk.
    pub epoch: Option<Epoch>,
    pub position: Position,
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a position like 1042, or an epoch and a position like 1:1042")]
pub struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (epoch, position) = match text.split_once(':') {
            Some((epoch, position)) => (Some(epoch), position),
            None => (None, text),
        };
        let epoch = epoch.map(|epoch| number(epoch).and_then(|epoch| Epoch::try_from(epoch).ok()).ok_or(NotACursor));
        let epoch = epoch.transpose()?;
        if epoch == Some(0) {
            return Err(NotACursor);
        }
        Ok(Self { epoch, position: number(position).ok_or(NotACursor)? })
    }
}

/// Digits alone: no sign, no blank.
fn number(digits: &str) -> Option<Position> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| plain && *number <= EXACT_INTEGER_MAX)
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
    fn a_cursor_is_read_as_it_is_written() {
        for text in ["0", "1042", "1:0", "3:1042", "1:9007199254740991"] {
            let cursor: Cursor = text.parse().expect("a cursor");
            assert_eq!(cursor.to_string(), text);
        }
        for text in
            ["", ":", "1:", ":1", "0:1", "-1", "+1", "1:2:3", "1.5", " 1", "x", "9007199254740992", "3000000000:1"]
        {
            assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text}");
        }
    }
}
