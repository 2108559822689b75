//! What a command names: a stream, an event of a stream, an event by its id, a position.

use uuid::Uuid;

use crate::domain::name::StreamId;

/// What `annals show` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Stream(StreamId),
    Version(StreamId, u64),
    EventId(Uuid),
    Position(u64),
}

/// Parses a stream, like `Order/ord-1`.
pub fn stream(text: &str) -> Result<StreamId, String> {
    let Some((aggregate_type, aggregate_id)) = text.split_once('/') else {
        return Err("must be an aggregate type, a slash and an aggregate id, like Order/ord-1".to_owned());
    };
    StreamId::parse(aggregate_type.to_owned(), aggregate_id.to_owned())
        .map_err(|fault| format!("{} {}", fault.field, fault.fault))
}

/// Parses a target. An `@` with digits at the end is a version, also if an aggregate id ends so.
pub fn target(text: &str) -> Result<Target, String> {
    if text.contains('/') {
        let version = text.rsplit_once('@').and_then(|(name, version)| Some((name, whole_number(version)?)));
        return match version {
            Some((_, 0)) => Err("versions begin with 1".to_owned()),
            Some((name, version)) => Ok(Target::Version(stream(name)?, version)),
            None => stream(text).map(Target::Stream),
        };
    }
    match (whole_number(text), Uuid::try_parse(text)) {
        (Some(0), _) => Err("positions begin with 1".to_owned()),
        (Some(position), _) => Ok(Target::Position(position)),
        (None, Ok(event_id)) => Ok(Target::EventId(event_id)),
        (None, Err(_)) => {
            Err("must be a stream (Order/ord-1), an event (Order/ord-1@3), an event id (a UUID) or a position (1042)"
                .to_owned())
        }
    }
}

/// Parses digits. `u64` would accept a sign.
fn whole_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_target_is_recognised() {
        let named = |id: &str| StreamId::parse("Order".to_owned(), id.to_owned()).expect("names");
        let id = "01987c5e-0000-7000-8000-000000000001";
        for (text, expected) in [
            ("Order/ord-1", Target::Stream(named("ord-1"))),
            ("Order/ord-1@3", Target::Version(named("ord-1"), 3)),
            ("Order/a@example.org", Target::Stream(named("a@example.org"))),
            ("Order/a@7@3", Target::Version(named("a@7"), 3)),
            ("Order/a@", Target::Stream(named("a@"))),
            ("1042", Target::Position(1042)),
            (id, Target::EventId(id.parse().expect("a UUID"))),
        ] {
            assert_eq!(target(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "Order", "Order/", "/a", "Order/a@0", "Order/a/b", "+1", "ord-1@3"] {
            assert!(target(text).is_err(), "{text:?}");
        }
    }
}
