//! No promise: the promises and their tests. Every file of tests names the promises that it tries, and every promise
//! has a file.

use std::collections::BTreeMap;

use crate::support::markdown::code_spans;
use crate::support::sources::{exists, files, read};

const RELIABILITY: &str = "docs/explanation/reliability.md";

fn promises() -> impl Iterator<Item = String> {
    (1..=10).map(|number| format!("P{number}"))
}

/// Returns the promises that the first line of a file names, for example `//! Promise P2, P3: what it tries`. A line
/// `//! No promise: …` names none. Returns `None` if the line has another form.
fn tried_by(first_line: &str) -> Option<Vec<String>> {
    let (label, description) = first_line.strip_prefix("//! ")?.split_once(": ")?;
    if description.is_empty() {
        return None;
    }
    if label == "No promise" {
        return Some(Vec::new());
    }
    let named: Vec<String> = label.strip_prefix("Promise ")?.split(", ").map(str::to_owned).collect();
    let known: Vec<String> = promises().filter(|promise| named.contains(promise)).collect();
    // In order, without duplicates and without unknown names.
    (named == known).then_some(named)
}

#[test]
fn every_test_file_names_its_promises_and_every_promise_has_a_file() {
    let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files("tests/it", ".rs") {
        let text = read(&file);
        let first_line = text.lines().next().unwrap_or_default();
        let tried = tried_by(first_line).unwrap_or_else(|| panic!("{file} begins with {first_line:?}"));
        let has_tests = text.contains("#[test]") || text.contains("#[tokio::test");
        assert!(tried.is_empty() || has_tests, "{file} names a promise, but has no test");
        for promise in tried {
            tests.entry(promise).or_default().push(file.clone());
        }
    }
    for promise in promises() {
        assert!(tests.contains_key(&promise), "no file tries {promise}");
    }
}

#[test]
fn only_lines_of_the_right_form_name_promises() {
    assert_eq!(tried_by("//! Promise P2, P10: it tries both."), Some(vec!["P2".to_owned(), "P10".to_owned()]));
    assert_eq!(tried_by("//! No promise: support."), Some(Vec::new()));
    for line in ["", "//! Promise: P2.", "//! Promise P11: no.", "//! Promise P3, P2: no.", "//! Promise P2, P2: no."] {
        assert_eq!(tried_by(line), None, "{line}");
    }
}

#[test]
fn the_reliability_page_has_every_promise_and_names_only_files_that_exist() {
    let text = read(RELIABILITY);
    for promise in promises() {
        let rows = text.lines().filter(|line| line.starts_with(&format!("| {promise} |"))).count();
        assert!(rows > 0, "{RELIABILITY} has no row for {promise}");
    }
    for (line, span) in code_spans(&text) {
        if span.ends_with(".rs") {
            let is_file = [span.clone(), format!("tests/it/{span}")].iter().any(|path| exists(path));
            assert!(is_file, "{RELIABILITY}:{line} names {span}, which does not exist");
        }
    }
}

#[test]
fn the_reliability_page_lists_the_mutants() {
    let text = read(RELIABILITY);
    let source = read("tests/torture/mutants.rs");
    let mutants = source.lines().filter_map(|line| line.trim().strip_prefix("name: \"")?.strip_suffix("\","));
    let mutants: Vec<&str> = mutants.collect();
    let is_row_of = |line: &&str, mutant: &str| line.starts_with(&format!("| {mutant} |"));
    for mutant in &mutants {
        assert_eq!(text.lines().filter(|line| is_row_of(line, mutant)).count(), 1, "{RELIABILITY} lists {mutant}");
    }
    assert_eq!(mutants.len(), 11);
}
