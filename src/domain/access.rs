//! Who may do what: scopes, on aggregate types that a pattern names.

use std::fmt;
use std::str::FromStr;

use super::name::check_path_name;

/// What a key may do with a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Read events, states, snapshots, statistics.
    Read,
    /// Append events, put snapshots.
    Append,
    /// Everything, with what decides about others: reducers, resets of projections.
    Admin,
}

/// Aggregate types: one, or all that begin alike (`Order*`, `*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    is_beginning: bool,
}

/// A scope on the types of a pattern; as text `read:Order*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub scope: Scope,
    pub pattern: Pattern,
}

/// A text that is no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAGrant {
    #[error("must be a scope and a pattern, like read:Order*; the scopes are read, append and admin")]
    Form,
    #[error("a pattern is an aggregate type, or the beginning of one with * at its end: {0}")]
    Pattern(String),
}

/// Everything that somebody may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access(Vec<Grant>);

impl Scope {
    /// Whoever may administer a type may read it and append to it.
    fn includes(self, wanted: Self) -> bool {
        self == wanted || self == Self::Admin
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Append => "append",
            Self::Admin => "admin",
        }
    }
}

impl Pattern {
    pub fn matches(&self, aggregate_type: &str) -> bool {
        if self.is_beginning { aggregate_type.starts_with(&self.text) } else { aggregate_type == self.text }
    }

    fn matches_all(&self) -> bool {
        self.is_beginning && self.text.is_empty()
    }
}

impl FromStr for Pattern {
    type Err = NotAGrant;

    fn from_str(text: &str) -> Result<Self, NotAGrant> {
        let (beginning, is_beginning) = match text.strip_suffix('*') {
            Some(beginning) => (beginning, true),
            None => (text, false),
        };
        let fault = |why: &str| Err(NotAGrant::Pattern(why.to_owned()));
        if beginning.contains('*') {
            return fault("a * in the middle would mean nothing");
        }
        if !(is_beginning && beginning.is_empty())
            && let Err(wrong) = check_path_name(beginning)
        {
            return fault(&wrong.to_string());
        }
        Ok(Self { text: beginning.to_owned(), is_beginning })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.text, if self.is_beginning { "*" } else { "" })
    }
}

impl FromStr for Grant {
    type Err = NotAGrant;

    fn from_str(text: &str) -> Result<Self, NotAGrant> {
        let (scope, pattern) = text.split_once(':').ok_or(NotAGrant::Form)?;
        let scope = match scope {
            "read" => Scope::Read,
            "append" => Scope::Append,
            "admin" => Scope::Admin,
            _ => return Err(NotAGrant::Form),
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
    pub fn new(grants: Vec<Grant>) -> Self {
        Self(grants)
    }

    pub fn may(&self, scope: Scope, aggregate_type: &str) -> bool {
        self.patterns(scope).any(|pattern| pattern.matches(aggregate_type))
    }

    /// On every type, those included that nobody has used yet.
    pub fn may_all(&self, scope: Scope) -> bool {
        self.patterns(scope).any(Pattern::matches_all)
    }

    /// On some type.
    pub fn may_any(&self, scope: Scope) -> bool {
        self.patterns(scope).next().is_some()
    }

    /// The types on which a scope is granted.
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
    fn a_grant_is_read_as_it_is_written() {
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
    fn a_scope_counts_on_the_types_of_its_pattern_and_admin_is_all_three() {
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
