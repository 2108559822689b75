//! Access rights of an API key: scopes, each on the aggregate types that a pattern matches.

use std::fmt;
use std::str::FromStr;

use crate::domain::name::check_path_name;

/// What an API key may do with the aggregates of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Reads events, states, snapshots and statistics.
    Read,
    /// Appends events and writes snapshots.
    Append,
    /// Everything, including what affects other clients: reducers, resets of projections.
    Admin,
}

/// Matches one aggregate type (`Order`), or all that begin with a prefix (`Order*`, `*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    is_prefix: bool,
}

/// A scope on the aggregate types that a pattern matches. Its text form is `read:Order*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What the grant permits.
    pub scope: Scope,
    /// The aggregate types for which it does.
    pub pattern: Pattern,
}

/// A text is not a valid grant or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseGrantError {
    /// The text is not `scope:pattern`, or the scope is unknown.
    #[error("must be a scope and a pattern, like read:Order*; the scopes are read, append and admin")]
    Syntax,
    /// The pattern is invalid, with the reason.
    #[error("a pattern is an aggregate type, or a prefix followed by *: {0}")]
    Pattern(String),
}

/// All grants of an API key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access(Vec<Grant>);

impl Scope {
    /// Returns whether this scope permits what `wanted` permits: `admin` includes `read` and `append`.
    fn includes(self, wanted: Self) -> bool {
        self == wanted || self == Self::Admin
    }

    /// Returns the name of the scope in the text form of a grant.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Append => "append",
            Self::Admin => "admin",
        }
    }
}

impl Pattern {
    /// Returns whether the pattern matches an aggregate type. Names are compared byte by byte.
    pub fn matches(&self, aggregate_type: &str) -> bool {
        if self.is_prefix { aggregate_type.starts_with(&self.text) } else { aggregate_type == self.text }
    }

    fn matches_all(&self) -> bool {
        self.is_prefix && self.text.is_empty()
    }
}

impl FromStr for Pattern {
    type Err = ParseGrantError;

    fn from_str(text: &str) -> Result<Self, ParseGrantError> {
        let (name, is_prefix) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        let invalid = |reason: &str| Err(ParseGrantError::Pattern(reason.to_owned()));
        if name.contains('*') {
            return invalid("* is allowed only at the end");
        }
        if !(is_prefix && name.is_empty())
            && let Err(fault) = check_path_name(name)
        {
            return invalid(&fault.to_string());
        }
        Ok(Self { text: name.to_owned(), is_prefix })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.text, if self.is_prefix { "*" } else { "" })
    }
}

impl FromStr for Grant {
    type Err = ParseGrantError;

    fn from_str(text: &str) -> Result<Self, ParseGrantError> {
        let (scope, pattern) = text.split_once(':').ok_or(ParseGrantError::Syntax)?;
        let scope = match scope {
            "read" => Scope::Read,
            "append" => Scope::Append,
            "admin" => Scope::Admin,
            _ => return Err(ParseGrantError::Syntax),
        };
        Ok(Self { scope, pattern: pattern.parse()? })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.scope.as_str(), self.pattern)
    }
}

impl Access {
    /// Creates the access rights from the grants of a key.
    pub fn new(grants: Vec<Grant>) -> Self {
        Self(grants)
    }

    /// Returns whether a grant permits `scope` on an aggregate type.
    pub fn may(&self, scope: Scope, aggregate_type: &str) -> bool {
        self.patterns(scope).any(|pattern| pattern.matches(aggregate_type))
    }

    /// Returns whether a grant permits `scope` on every aggregate type, including types that have no events yet.
    pub fn may_all(&self, scope: Scope) -> bool {
        self.patterns(scope).any(Pattern::matches_all)
    }

    /// Returns whether a grant permits `scope` on at least one aggregate type.
    pub fn may_any(&self, scope: Scope) -> bool {
        self.patterns(scope).next().is_some()
    }

    /// Returns the patterns of the aggregate types on which `scope` is granted.
    pub fn patterns(&self, scope: Scope) -> impl Iterator<Item = &Pattern> {
        self.0.iter().filter(move |grant| grant.scope.includes(scope)).map(|grant| &grant.pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(grants: &[&str]) -> Access {
        Access::new(grants.iter().map(|grant| grant.parse().expect("a grant")).collect())
    }

    #[test]
    fn a_grant_is_parsed_and_printed_unchanged() {
        for text in ["read:Order", "append:Order*", "admin:*", "read:日本*", "read:a:b"] {
            assert_eq!(text.parse::<Grant>().expect("a grant").to_string(), text);
        }
        for text in
            ["", "read", "read:", "write:Order", "read:Or*er", "read:**", "read:a/b", "read: a", ":Order", "Read:Order"]
        {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_scope_applies_to_the_types_of_its_pattern_and_admin_includes_all_three() {
        let some = access(&["read:Order*", "append:Cart", "admin:Stock"]);
        assert!(
            some.may(Scope::Read, "Order") && some.may(Scope::Read, "OrderLine") && some.may(Scope::Append, "Cart")
        );
        assert!(
            !some.may(Scope::Append, "Order") && !some.may(Scope::Read, "Cart") && !some.may(Scope::Append, "Cart2")
        );
        assert!(some.may(Scope::Read, "Stock") && some.may(Scope::Append, "Stock") && some.may(Scope::Admin, "Stock"));
        assert!(!some.may(Scope::Admin, "Order") && some.may_any(Scope::Admin) && !some.may_all(Scope::Read));
        let all = access(&["read:*"]);
        assert!(all.may_all(Scope::Read) && all.may(Scope::Read, "x") && !all.may_any(Scope::Append));
        assert!(!access(&[]).may_any(Scope::Read));
    }
}
