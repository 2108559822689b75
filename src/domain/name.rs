//! Names: aggregate types, aggregate ids, event types.
//!
//! A name is 1 to 255 characters of any script, compared byte by byte, without control characters and without white
//! space at its ends. One that stands in a path is not `.` or `..` and has no `/`, because clients, proxies and
//! browsers rewrite such paths.

use std::fmt;

/// Longest name, in characters: the width of the columns.
pub const NAME_CHARS_MAX: usize = 255;

/// Why a string is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    #[error("must not be empty")]
    Empty,
    #[error("must have at most {NAME_CHARS_MAX} characters")]
    TooLong,
    #[error("must not contain control characters")]
    Control,
    #[error("must not begin or end with white space")]
    WhiteSpace,
    #[error("must not be \".\" or \"..\" and must not contain \"/\": it is part of a path")]
    NotAPathSegment,
}

/// Checks a name that stands in no path (an event type).
pub fn check_name(name: &str) -> Result<(), NameFault> {
    if name.is_empty() {
        return Err(NameFault::Empty);
    }
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(NameFault::TooLong);
    }
    if name.chars().any(char::is_control) {
        return Err(NameFault::Control);
    }
    if name.trim().len() != name.len() {
        return Err(NameFault::WhiteSpace);
    }
    Ok(())
}

/// Checks a name that is a segment of a path (an aggregate type or id, a projection).
pub fn check_path_name(name: &str) -> Result<(), NameFault> {
    check_name(name)?;
    if name == "." || name == ".." || name.contains('/') {
        return Err(NameFault::NotAPathSegment);
    }
    Ok(())
}

/// What identifies a stream: the history of one aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    aggregate_type: String,
    aggregate_id: String,
}

/// Which part of a stream's identity is wrong, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamIdFault {
    pub field: &'static str,
    pub fault: NameFault,
}

impl StreamId {
    pub fn parse(aggregate_type: String, aggregate_id: String) -> Result<Self, StreamIdFault> {
        let named = |field| move |fault| StreamIdFault { field, fault };
        check_path_name(&aggregate_type).map_err(named("aggregate_type"))?;
        check_path_name(&aggregate_id).map_err(named("aggregate_id"))?;
        Ok(Self { aggregate_type, aggregate_id })
    }

    pub fn aggregate_type(&self) -> &str {
        &self.aggregate_type
    }

    pub fn aggregate_id(&self) -> &str {
        &self.aggregate_id
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.aggregate_type, self.aggregate_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_script_are_taken_up_to_255_characters() {
        for name in ["Order", "ord-123", "libc-bin:amd64", "a b", "日本語", "é", "x.y", "...", &"ü".repeat(255)] {
            assert_eq!(check_path_name(name), Ok(()), "{name:?}");
        }
        assert_eq!(check_path_name(&"ü".repeat(256)), Err(NameFault::TooLong));
    }

    #[test]
    fn names_that_paths_or_people_would_mangle_are_refused() {
        use NameFault::*;
        for (name, fault) in [
            ("", Empty),
            ("a\0b", Control),
            ("a\nb", Control),
            ("\u{85}x", Control),
            (" a", WhiteSpace),
            ("a\u{a0}", WhiteSpace),
            (".", NotAPathSegment),
            ("..", NotAPathSegment),
            ("a/b", NotAPathSegment),
        ] {
            assert_eq!(check_path_name(name), Err(fault), "{name:?}");
        }
        assert_eq!(check_name("order/placed"), Ok(()));
    }
}
