//! Promise P1: the validator against PostgreSQL. JSONB accepts every document that the validator accepts, and prints it
//! in exactly the size that the validator computed. The validator accepts what JSONB prints.

use annals::domain::json::inspect;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::value::RawValue;

use crate::support::TestDatabase;

/// JSON texts of any shape, including those that cannot be stored.
fn documents() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        "-?(0|[1-9][0-9]{0,44})(\\.[0-9]{1,44})?([eE][+-]?[0-9]{1,3})?",
        "-?0(\\.0{1,40})?([eE][+-]?[0-9]{1,3})?",
        "-?[1-9][0-9]{0,3}0{0,300}(\\.[0-9]{1,3}0{0,300})?",
    ];
    let character = prop_oneof![
        6 => "[ -!#-\\[\\]-~]",
        1 => any::<char>().prop_filter("escaped below", |c| !c.is_control() && *c != '"' && *c != '\\').prop_map(String::from),
        1 => "\\\\[\"\\\\/bfnrt]",
        1 => "\\\\u[0-9a-fA-F]{4}",
        1 => (0xD800u32..0xDC00, 0xDC00u32..0xE000).prop_map(|(high, low)| format!("\\u{high:04x}\\u{low:04x}")),
    ];
    let string = prop::collection::vec(character, 0..12).prop_map(|characters| format!("\"{}\"", characters.concat()));
    let leaf =
        prop_oneof![Just("null".to_owned()), Just("true".to_owned()), Just("false".to_owned()), number, string.clone()];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec((string.clone(), inner), 0..6).prop_map(|members| {
                let members: Vec<_> = members.iter().map(|(key, value)| format!("{key}: {value}")).collect();
                format!("{{ {} }}", members.join(","))
            }),
        ]
    })
}

#[tokio::test]
async fn accepted_documents_are_stored_and_printed_in_the_computed_size() {
    let database = TestDatabase::create_empty().await;
    let mut session = database.session().await;
    let mut runner = TestRunner::deterministic();
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..4_000 {
        let document = documents().new_tree(&mut runner).expect("a document").current();
        let Ok(raw) = serde_json::from_str::<Box<RawValue>>(&document) else { panic!("not JSON: {document}") };
        match inspect(&raw) {
            Err(_) => refused += 1,
            Ok(inspected) => {
                accepted += 1;
                let printed: Result<String, _> =
                    sqlx::query_scalar("SELECT $1::text::jsonb::text").bind(&document).fetch_one(&mut session.0).await;
                let printed = printed.unwrap_or_else(|error| panic!("{document} was accepted: {error}"));
                assert_eq!(printed.len(), inspected.printed_bytes, "{document}");
                // What is returned can be sent again.
                let raw: Box<RawValue> = serde_json::from_str(&printed).expect("JSONB prints JSON");
                let again = inspect(&raw).unwrap_or_else(|fault| panic!("{printed} was printed: {fault:?}"));
                assert_eq!(again.printed_bytes, printed.len(), "{document}");
            }
        }
    }
    assert!(accepted > 1_000 && refused > 200, "{accepted} accepted, {refused} refused");
}
