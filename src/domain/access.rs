//! Access rights of an API key: scopes, each on the names that a pattern matches: aggregate types, or projections.

use std::fmt;
use std::str::FromStr;

use crate::domain::name::check_path_name;

/// What an API key may do with the aggregates of a type, or with a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Reads events, states, snapshots and statistics.
    Read,
    /// Appends events and writes snapshots.
    Append,
    /// Both, and administers reducers.
    Admin,
    /// Moves, resets and deletes projections: the pattern matches their names.
    Project,
}

/// Matches one name (`Order`), or all that begin with a prefix (`Order*`, `*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    is_prefix: bool,
}

/// A scope on the names that a pattern matches. Its text form is `read:Order*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What the grant permits.
    pub scope: Scope,
    /// The aggregate types for which it does, or the projections.
    pub pattern: Pattern,
}

/// A text is not a valid grant or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseGrantError {
    /// The text is not `scope:pattern`, or the scope is unknown.
    #[error("must be a scope and a pattern, like read:Order*; the scopes are read, append, admin and project")]
    Syntax,
    /// The pattern is invalid, with the reason.
    #[error("a pattern is an aggregate type or a projection name, or a prefix followed by *: {0}")]
    Pattern(String),
}

/// All grants of an API key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access(Vec<Grant>);

impl Scope {
    /// Returns the name of the scope in the text form of a grant.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Append => "append",
            Self::Admin => "admin",
            Self::Project => "project",
        }
    }
}

impl Pattern {
    /// Returns whether the pattern matches a name. Names are compared byte by byte.
    pub fn matches(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.text) } else { name == self.text }
    }

    /// Returns whether the pattern is a prefix.
    pub fn is_prefix(&self) -> bool {
        self.is_prefix
    }

    /// Returns the name or the prefix, without `*`.
    pub fn text(&self) -> &str {
        &self.text
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
            "project" => Scope::Project,
            _ => return Err(ParseGrantError::Syntax),
        };
        Ok(Self { scope, pattern: pattern.parse()? })
    }
}

impl Grant {
    /// Returns whether the grant permits what a grant of `wanted` on its pattern permits. `admin` includes `read` and
    /// `append`. An aggregate type says nothing about projections, so only `admin:*` includes `project`.
    fn includes(&self, wanted: Scope) -> bool {
        match (self.scope, wanted) {
            (Scope::Admin, Scope::Project) => self.pattern.matches_all(),
            (Scope::Admin, _) => true,
            (granted, _) => granted == wanted,
        }
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

    /// Returns whether a grant permits `scope` on a name.
    pub fn may(&self, scope: Scope, name: &str) -> bool {
        self.patterns(scope).any(|pattern| pattern.matches(name))
    }

    /// Returns whether a grant permits `scope` on every name, including names that do not exist yet.
    pub fn may_all(&self, scope: Scope) -> bool {
        self.patterns(scope).any(Pattern::matches_all)
    }

    /// Returns whether a grant permits `scope` on at least one name.
    pub fn may_any(&self, scope: Scope) -> bool {
        self.patterns(scope).next().is_some()
    }

    /// Returns the patterns of the names on which `scope` is granted.
    pub fn patterns(&self, scope: Scope) -> impl Iterator<Item = &Pattern> {
        self.0.iter().filter(move |grant| grant.includes(scope)).map(|grant| &grant.pattern)
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
        for text in ["read:Order", "append:Order*", "admin:*", "read:日本*", "read:a:b", "project:orders-*"] {
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

    #[test]
    fn a_projection_needs_its_own_scope_and_admin_on_all_types_includes_it() {
        let some = access(&["project:orders*", "admin:Order", "read:*"]);
        assert!(some.may(Scope::Project, "orders-by-day") && !some.may(Scope::Project, "Order"));
        assert!(!some.may_all(Scope::Project) && !access(&["admin:Order*"]).may_any(Scope::Project));
        assert!(access(&["admin:*"]).may(Scope::Project, "orders") && access(&["project:*"]).may_all(Scope::Project));
        assert!(!access(&["project:*"]).may_any(Scope::Read));
    }
}
