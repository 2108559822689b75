//! The OpenAPI document: the file is what the program serves, and what it says can be relied on.

use serde_json::Value;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");

fn document() -> Value {
    serde_json::to_value(annals::http::openapi_document()).expect("a document")
}

#[test]
fn the_file_is_what_the_program_serves() {
    let file = std::fs::read_to_string(FILE).unwrap_or_default();
    let served = annals::http::openapi_document().to_pretty_json().expect("a document");
    assert!(
        file.trim_end() == served.trim_end(),
        "openapi/openapi.json differs from the routes. If the change is meant, run\n\n    \
         cargo run -- openapi > openapi/openapi.json\n\nand review the difference."
    );
}

#[test]
fn every_operation_and_every_answer_is_described() {
    let document = document();
    assert_eq!(document["openapi"].as_str().map(|version| version.starts_with("3.1")), Some(true));
    assert_eq!(document["info"]["license"]["identifier"], "MIT");
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            operations += 1;
            for member in ["summary", "operationId"] {
                assert!(
                    operation[member].as_str().is_some_and(|text| !text.is_empty()),
                    "{method} {path} has no {member}"
                );
            }
            for (status, response) in operation["responses"].as_object().expect("responses") {
                assert!(
                    response["description"].as_str().is_some_and(|text| !text.is_empty()),
                    "{method} {path} {status}"
                );
                let problem = response["content"].get("application/problem+json").is_some();
                let health = path == "/readyz" && status == "503";
                assert_eq!(problem, status.as_str() >= "400" && !health, "{method} {path} {status}");
            }
        }
    }
    assert!(operations >= 10, "{operations}");
}

#[test]
fn every_reference_leads_somewhere() {
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
