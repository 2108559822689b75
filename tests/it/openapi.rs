//! No promise: the OpenAPI document. The file in the repository is what the program serves, and every operation and
//! response in it is described.

use serde_json::Value;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");

fn document() -> Value {
    serde_json::to_value(annals::http::router::openapi_document()).expect("a document")
}

#[test]
fn the_file_is_the_document_that_the_program_serves() {
    let file = std::fs::read_to_string(FILE).unwrap_or_default();
    let served = annals::http::router::openapi_document().to_pretty_json().expect("a document");
    assert!(
        file.trim_end() == served.trim_end(),
        "openapi/openapi.json differs from the routes. If the change is intended, run\n\n    \
         cargo run -- openapi > openapi/openapi.json\n\nand review the difference."
    );
}

#[test]
fn every_operation_and_every_response_is_described() {
    let document = document();
    assert_eq!(document["openapi"].as_str().map(|version| version.starts_with("3.1")), Some(true));
    assert_eq!(document["info"]["license"]["identifier"], "MIT");
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                assert!(
                    response["description"].as_str().is_some_and(|text| !text.is_empty()),
                    "{method} {path} {status}"
                );
                let problem = response["content"].get("application/problem+json").is_some();
                let health = path == "/readyz" && status == "503" || method == "head" && status.as_str() >= "400";
                assert_eq!(problem, status.as_str() >= "400" && !health, "{method} {path} {status}");
            }
        }
    }
}

/// Every operation: its id, its method and its path. Clients are generated from these names, so they are part of the
/// contract.
const OPERATIONS: [(&str, &str, &str); 54] = [
    ("acknowledge_claim", "put", "/groups/{group_name}/claims/{claim_id}"),
    ("append_to_stream", "post", "/streams/{aggregate_type}/{aggregate_id}"),
    ("append_to_streams", "post", "/appends"),
    ("check_liveness", "get", "/livez"),
    ("check_readiness", "get", "/readyz"),
    ("create_claim", "post", "/groups/{group_name}/claims"),
    ("delete_group", "delete", "/groups/{group_name}"),
    ("delete_projection", "delete", "/projections/{projection_name}"),
    ("delete_reducer", "delete", "/reducers/{aggregate_type}"),
    ("delete_snapshot", "delete", "/snapshots/{aggregate_type}/{aggregate_id}"),
    ("erase_events", "post", "/erasures"),
    ("list_all_streams", "get", "/streams"),
    ("list_claims", "get", "/groups/{group_name}/claims"),
    ("list_erasures", "get", "/erasures"),
    ("list_groups", "get", "/groups"),
    ("list_parked_streams", "get", "/groups/{group_name}/parked"),
    ("list_projections", "get", "/projections"),
    ("list_reducers", "get", "/reducers"),
    ("list_streams", "get", "/streams/{aggregate_type}"),
    ("load_aggregate", "get", "/aggregates/{aggregate_type}/{aggregate_id}"),
    ("move_parked_stream", "put", "/groups/{group_name}/parked/{aggregate_type}/{aggregate_id}"),
    ("put_group", "put", "/groups/{group_name}"),
    ("put_reducer", "put", "/reducers/{aggregate_type}"),
    ("put_snapshot", "put", "/snapshots/{aggregate_type}/{aggregate_id}"),
    ("read_aggregate_stats", "get", "/stats/aggregates/{aggregate_type}/{aggregate_id}"),
    ("read_aggregate_type_stats", "get", "/stats/aggregate-types"),
    ("read_claim", "get", "/groups/{group_name}/claims/{claim_id}"),
    ("read_erasure", "get", "/erasures/{erasure}"),
    ("read_event", "get", "/events/{event_id}"),
    ("read_group", "get", "/groups/{group_name}"),
    ("read_group_history", "get", "/groups/{group_name}/history"),
    ("read_largest_aggregates", "get", "/stats/largest-aggregates"),
    ("read_log", "get", "/events"),
    ("read_metrics", "get", "/metrics"),
    ("read_own_key", "get", "/keys/self"),
    ("read_parked_stream", "get", "/groups/{group_name}/parked/{aggregate_type}/{aggregate_id}"),
    ("read_problem", "get", "/problems/{code}"),
    ("read_projection", "get", "/projections/{projection_name}"),
    ("read_projection_history", "get", "/projections/{projection_name}/history"),
    ("read_rates", "get", "/stats/rates"),
    ("read_reducer", "get", "/reducers/{aggregate_type}"),
    ("read_snapshot", "get", "/snapshots/{aggregate_type}/{aggregate_id}"),
    ("read_snapshot_coverage", "get", "/stats/snapshot-coverage"),
    ("read_state", "get", "/aggregates/{aggregate_type}/{aggregate_id}/state"),
    ("read_states", "get", "/aggregates/{aggregate_type}/{aggregate_id}/states"),
    ("read_stats", "get", "/stats"),
    ("read_stream", "get", "/streams/{aggregate_type}/{aggregate_id}"),
    ("read_stream_event", "get", "/streams/{aggregate_type}/{aggregate_id}/{version}"),
    ("read_stream_head", "head", "/streams/{aggregate_type}/{aggregate_id}"),
    ("read_table_stats", "get", "/stats/tables"),
    ("release_claim", "delete", "/groups/{group_name}/claims/{claim_id}"),
    ("retry_parked_streams", "post", "/groups/{group_name}/retries"),
    ("set_projection", "put", "/projections/{projection_name}"),
    ("test_reducer", "post", "/reducers/{aggregate_type}/test"),
];

#[test]
fn the_operations_are_those_of_the_contract() {
    let document = document();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            found.push((operation["operationId"].as_str().expect("an id"), method.as_str(), path.as_str()));
        }
    }
    found.sort_unstable();
    assert_eq!(found, OPERATIONS);
}

#[test]
fn every_reference_resolves() {
    fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("a local reference");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

/// Calls `check` with every object in the document, and its place.
fn each_object(value: &Value, place: &str, check: &mut dyn FnMut(&str, &serde_json::Map<String, Value>)) {
    match value {
        Value::Object(members) => {
            check(place, members);
            members.iter().for_each(|(name, member)| each_object(member, &format!("{place}/{name}"), check));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| each_object(item, &format!("{place}/{n}"), check));
        }
        _ => {}
    }
}

/// Generators cannot handle what this test excludes, or make clients of it that send something else.
#[test]
fn the_document_has_only_what_generators_understand() {
    let document = document();
    each_object(&document, "", &mut |place, object| {
        if let Some(types) = object.get("type").and_then(Value::as_array) {
            assert!(types.len() == 2 && types.contains(&Value::from("null")), "{place} has several types");
        }
        if let Some(pattern) = object.get("pattern").and_then(Value::as_str) {
            assert!(!pattern.contains("(?"), "{place} has a pattern with a look-ahead");
            assert!(!pattern.contains("\\u"), "{place} has a pattern with an escape that RE2 does not know");
        }
        assert_ne!(object.get("format"), Some(&Value::from("int32")), "{place}: integers have 64 bits");
        if let Some(description) = object.get("description").and_then(Value::as_str) {
            assert!(!description.contains("[`") && !description.contains("::"), "{place}: {description}");
        }
    });
    for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
        assert!(!name.ends_with("Out") && !name.ends_with("In"), "{name} is a name of the source");
        assert!(name.starts_with(char::is_uppercase), "{name} is the name of a Rust type");
        for member in schema["properties"].as_object().into_iter().flatten().map(|(member, _)| member) {
            assert_ne!(member.replace('_', ""), name.to_lowercase(), "a member is named like its schema");
        }
    }
    let event_data = &document["components"]["schemas"]["NewEvent"]["properties"]["event_data"];
    assert_eq!(*event_data, serde_json::json!({"description": "Any JSON value but null.", "example": {"total": 42}}));
}

#[test]
fn every_code_is_in_the_schema_of_a_problem() {
    let document = document();
    let mut schemas = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
        if let Some(codes) = schema["properties"]["code"]["enum"].as_array() {
            schemas.push((name.as_str(), codes.len()));
        }
    }
    assert!(schemas.contains(&("Problem", annals::http::problem::code::Code::ALL.len())), "{schemas:?}");
    assert!(schemas.len() > 15, "{schemas:?}");
}

/// An example that is sent twice must not fail: it has no event id and no expected version.
#[test]
fn examples_can_be_sent_twice() {
    let document = document();
    let mut examples = 0;
    each_object(&document["paths"], "", &mut |place, object| {
        let Some(example) = object.get("example") else { return };
        examples += 1;
        each_object(example, place, &mut |place, object| {
            for member in ["event_id", "correlation_id", "causation_id", "expected_version"] {
                assert!(!object.contains_key(member), "{place} has {member}");
            }
        });
    });
    assert!(examples > 10, "{examples} examples");
}
