//! Names: aggregate types, aggregate ids, event types.
//!
//! A name has 1 to 255 characters of any script, no control characters, and no white space at its ends. Names are
//! compared byte by byte. A name that is a segment of a path is not `.` or `..` and contains no `/`, because clients,
//! proxies and browsers rewrite such paths.

use std::fmt;

/// The largest length of a name, in characters (Unicode scalar values). The columns of the tables have this width.
pub const NAME_CHARS_MAX: usize = 255;

/// Why a string is not a valid name. The texts are part of the error that the client receives.
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
    #[error("must not begin with $, which is reserved for types of Annals itself")]
    Reserved,
    #[error("must not be \".\" or \"..\" and must not contain \"/\", because it is part of a path")]
    NotAPathSegment,
    #[error("must not contain \"/\", which no name in a path has")]
    Slash,
}

/// Checks a name that is not part of a path (an event type).
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

/// Checks the beginning of names that are segments of a path.
pub fn check_path_name_prefix(prefix: &str) -> Result<(), NameFault> {
    if prefix.is_empty() {
        return Err(NameFault::Empty);
    }
    if prefix.chars().count() > NAME_CHARS_MAX {
        return Err(NameFault::TooLong);
    }
    if prefix.chars().any(char::is_control) {
        return Err(NameFault::Control);
    }
    if prefix.contains('/') {
        return Err(NameFault::Slash);
    }
    Ok(())
}

/// Checks that a client may write an aggregate type or an event type: those that begin with `$` are reserved.
pub fn check_not_reserved(name: &str) -> Result<(), NameFault> {
    if name.starts_with('$') { Err(NameFault::Reserved) } else { Ok(()) }
}

/// The identity of a stream, which contains the events of one aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    aggregate_type: String,
    aggregate_id: String,
}

/// Which part of a stream's identity is invalid, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamIdFault {
    /// `aggregate_type` or `aggregate_id`.
    pub field: &'static str,
    pub fault: NameFault,
}

impl StreamId {
    /// Validates both names.
    pub fn parse(aggregate_type: String, aggregate_id: String) -> Result<Self, StreamIdFault> {
        let in_field = |field| move |fault| StreamIdFault { field, fault };
        check_path_name(&aggregate_type).map_err(in_field("aggregate_type"))?;
        check_path_name(&aggregate_id).map_err(in_field("aggregate_id"))?;
        Ok(Self { aggregate_type, aggregate_id })
    }

    /// Validates both names of a stream that a client writes: its type must not be reserved.
    pub fn parse_writable(aggregate_type: String, aggregate_id: String) -> Result<Self, StreamIdFault> {
        let stream = Self::parse(aggregate_type, aggregate_id)?;
        match check_not_reserved(stream.aggregate_type()) {
            Ok(()) => Ok(stream),
            Err(fault) => Err(StreamIdFault { field: "aggregate_type", fault }),
        }
    }

    /// Returns the aggregate type.
    pub fn aggregate_type(&self) -> &str {
        &self.aggregate_type
    }

    /// Returns the aggregate id.
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
    fn names_of_any_script_are_accepted_up_to_255_characters() {
        for name in ["Order", "ord-123", "libc-bin:amd64", "a b", "日本語", "é", "x.y", "...", &"ü".repeat(255)] {
            assert_eq!(check_path_name(name), Ok(()), "{name:?}");
        }
        assert_eq!(check_path_name(&"ü".repeat(256)), Err(NameFault::TooLong));
    }

    #[test]
    fn names_that_are_unsafe_in_paths_or_have_invisible_characters_are_rejected() {
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

    #[test]
    fn a_prefix_is_the_beginning_of_a_name() {
        for prefix in ["a", ".", "..", "a ", " ", "$", &"ü".repeat(255)] {
            assert_eq!(check_path_name_prefix(prefix), Ok(()), "{prefix:?}");
        }
        for (prefix, fault) in [
            ("", NameFault::Empty),
            ("a\0", NameFault::Control),
            ("a/", NameFault::Slash),
            (&"ü".repeat(256), NameFault::TooLong),
        ] {
            assert_eq!(check_path_name_prefix(prefix), Err(fault), "{prefix:?}");
        }
    }
}
