//! Every code is explained on a page and in the documentation, and nothing else is.

use std::collections::BTreeSet;

use annals::http::problem::Code;

use crate::support::TestApp;

#[tokio::test]
async fn every_code_has_a_page() {
    let app = TestApp::start().await;
    for code in Code::ALL {
        let page = app.get(&format!("/problems/{}", code.as_str())).send().await.expect_status(200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.text().contains(code.title()) && page.text().contains(code.as_str()), "{}", code.as_str());
    }
    app.get("/problems/nonsense").send().await.expect_problem(404, "problem_not_found");
    app.get("/problems/internal?x=1").send().await.expect_invalid("parameter", "x");
}

#[test]
fn the_documentation_lists_every_code_and_no_other() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ERRORS.md")).expect("docs/ERRORS.md");
    let documented: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let known: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(documented, known);
}

/// Where each code is reached: a test of this suite expects it by name.
#[test]
fn every_code_is_reached_by_a_test() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");
    let tests: String = std::fs::read_dir(folder)
        .expect("tests/it")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("problems.rs"))
        .map(|path| std::fs::read_to_string(path).expect("a test file"))
        .collect();
    for code in Code::ALL.iter().filter(|code| **code != Code::ProblemNotFound) {
        let reached =
            tests.contains(&format!("\"{}\")", code.as_str())) || tests.contains(&format!("\\\"{}\\\"", code.as_str()));
        assert!(reached || *code == Code::InvalidRequest, "no test expects {}", code.as_str());
    }
}
