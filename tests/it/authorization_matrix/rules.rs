//! No promise: the rules of authorization, as the documents state them. They share no code with the service.

/// What a key may do with the aggregates of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Read,
    Append,
    Admin,
}

impl Scope {
    /// Returns the scopes that permit it: `admin` includes the other two.
    fn granted_by(self) -> &'static [&'static str] {
        match self {
            Self::Read => &["read", "admin"],
            Self::Append => &["append", "admin"],
            Self::Admin => &["admin"],
        }
    }
}

/// The grants of a key, as texts like `read:Order*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants(pub Vec<&'static str>);

impl Grants {
    /// Returns the patterns of the grants with one of these scopes.
    fn patterns(&self, scopes: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied().filter_map(move |grant: &'static str| {
            let (scope, pattern) = grant.split_once(':').expect("a scope and a pattern");
            scopes.contains(&scope).then_some(pattern)
        })
    }

    pub fn may(&self, scope: Scope, aggregate_type: &str) -> bool {
        self.patterns(scope.granted_by()).any(|pattern| matches(pattern, aggregate_type))
    }

    fn may_on_any_type(&self, scope: Scope) -> bool {
        self.patterns(scope.granted_by()).next().is_some()
    }

    fn may_on_all_types(&self, scope: Scope) -> bool {
        self.patterns(scope.granted_by()).any(|pattern| pattern == "*")
    }

    /// Whether the key has a scope on all types of a filter. An empty list is all types.
    fn may_on_filter(&self, scope: Scope, types: &[&str]) -> bool {
        if types.is_empty() { self.may_on_all_types(scope) } else { types.iter().all(|name| self.may(scope, name)) }
    }

    /// Whether the key may move and delete a projection. The name of an aggregate type says nothing about projections,
    /// so only `admin` on all types includes it.
    fn may_write_projection(&self, name: &str) -> bool {
        self.patterns(&["project"]).any(|pattern| matches(pattern, name)) || self.may_on_all_types(Scope::Admin)
    }
}

/// Whether a pattern matches a name: it is the name, or a prefix of it and `*`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// What the service knows about the sender of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The request has a valid key.
    Key(Grants),
    /// The request has no valid key.
    Unknown,
    /// The request has more than one key.
    Ambiguous,
}

impl Identity {
    /// Whether responses may contain data of an aggregate type.
    pub fn may_read(&self, aggregate_type: &str) -> bool {
        matches!(self, Self::Key(grants) if grants.may(Scope::Read, aggregate_type))
    }
}

/// What a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needs {
    /// No key.
    Nothing,
    /// A valid key with any grants: the request is about the key, or its route or method does not exist.
    AnyKey,
    /// The scope on each of these types.
    On(Scope, Vec<String>),
    OnAnyType(Scope),
    OnAllTypes(Scope),
    /// The scope `project` on a projection.
    Projection(String),
    /// The scope `project` on a group, and another scope on all types of its filter (an empty list: on all types).
    Group(&'static str, Scope, Vec<&'static str>),
    /// A scope on all types of the filter of a group.
    GroupEvents(Scope, Vec<&'static str>),
    /// `read` on the type of an event; `None`: the event does not exist. With `read` on other types only, the event
    /// seems not to exist.
    ReadEvent(Option<&'static str>),
}

impl Needs {
    /// Whether the request itself names an aggregate type.
    pub fn names(&self, aggregate_type: &str) -> bool {
        matches!(self, Self::On(_, types) if types.iter().any(|named| named == aggregate_type))
    }
}

/// What the rules say about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The request receives the normal response of its route.
    Admitted,
    /// 403
    Forbidden,
    /// 404, as if the resource did not exist.
    Hidden,
    /// 401
    Unauthenticated,
    /// 400
    Ambiguous,
}

impl Decision {
    /// Applies the rules.
    pub fn new(identity: &Identity, needs: &Needs) -> Self {
        if *needs == Needs::Nothing {
            return Self::Admitted;
        }
        let grants = match identity {
            Identity::Key(grants) => grants,
            Identity::Unknown => return Self::Unauthenticated,
            Identity::Ambiguous => return Self::Ambiguous,
        };
        let is_permitted = match needs {
            Needs::Nothing | Needs::AnyKey => true,
            Needs::On(scope, types) => types.iter().all(|aggregate_type| grants.may(*scope, aggregate_type)),
            Needs::OnAnyType(scope) => grants.may_on_any_type(*scope),
            Needs::OnAllTypes(scope) => grants.may_on_all_types(*scope),
            Needs::Projection(name) => grants.may_write_projection(name),
            Needs::Group(name, scope, types) => {
                grants.may_write_projection(name) && grants.may_on_filter(*scope, types)
            }
            Needs::GroupEvents(scope, types) => grants.may_on_filter(*scope, types),
            Needs::ReadEvent(_) => grants.may_on_any_type(Scope::Read),
        };
        match needs {
            _ if !is_permitted => Self::Forbidden,
            Needs::ReadEvent(aggregate_type) if aggregate_type.is_none_or(|name| !grants.may(Scope::Read, name)) => {
                Self::Hidden
            }
            _ => Self::Admitted,
        }
    }

    /// Returns the statuses that are right. `outcomes` are those of the route, for a request that is admitted.
    pub fn statuses(self, outcomes: &'static [u16]) -> &'static [u16] {
        match self {
            Self::Admitted => outcomes,
            Self::Forbidden => &[403],
            Self::Hidden => &[404],
            Self::Unauthenticated => &[401],
            Self::Ambiguous => &[400],
        }
    }
}

#[test]
fn the_rules_compare_whole_names_and_prefixes() {
    let may = |grant: &'static str, scope, name: &str| Grants(vec![grant]).may(scope, name);
    assert!(may("read:A", Scope::Read, "A") && !may("read:A", Scope::Read, "AB") && !may("read:A", Scope::Read, "a"));
    assert!(may("read:A*", Scope::Read, "AB") && may("read:*", Scope::Read, "日本語"));
    assert!(may("read:a:b", Scope::Read, "a:b") && !may("read:A", Scope::Append, "A"));
    assert!(
        may("admin:A", Scope::Read, "A") && may("admin:A", Scope::Append, "A") && !may("project:A", Scope::Read, "A")
    );
    let may_write = |grant: &'static str| Grants(vec![grant]).may_write_projection("p");
    assert!(may_write("project:p") && may_write("project:*") && may_write("admin:*"));
    assert!(!may_write("project:pq") && !may_write("admin:p*") && !may_write("append:*") && !may_write("read:p"));
}
