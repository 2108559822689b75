//! No promise: how the program serves the web console. `scripts/test-console` tests its pages in a browser.

use annals::domain::hex::hex;
use sha2::{Digest, Sha256};

use crate::support::sources::{files, read};
use crate::support::{TestApp, TestOptions};

/// Encodes bytes as a policy names a hash (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for index in 0..4 {
            let digit = ALPHABET[((number >> (18 - 6 * index)) & 63) as usize];
            text.push(if index <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[test]
fn the_vendored_files_are_the_ones_of_their_packages() {
    let table = read("console/vendor/VENDOR.md");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    let mut listed: Vec<String> = rows.iter().map(|row| format!("console/vendor/{}", row[1])).collect();
    listed.sort();
    assert_eq!(listed, files("console/vendor", ".mjs"), "VENDOR.md lists every file");
    for row in rows {
        let content = read(&format!("console/vendor/{}", row[1]));
        assert_eq!(hex(&Sha256::digest(content.as_bytes())), row[6], "{}", row[1]);
    }
}

#[tokio::test]
async fn every_file_of_the_console_is_in_the_program() {
    let app = TestApp::start().await;
    let mut served = 0;
    for suffix in [".js", ".mjs", ".css"] {
        for file in files("console", suffix).into_iter().filter(|file| !file.starts_with("console/test/")) {
            let response = app.get(&format!("/{file}")).send().await.expect_status(200);
            assert_eq!(response.text(), read(&file), "{file}");
            let expected = if suffix == ".css" { "text/css; charset=utf-8" } else { "text/javascript; charset=utf-8" };
            assert_eq!(response.header("content-type"), Some(expected), "{file}");
            assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{file}");
            let tag = response.header("etag").expect("a tag").to_owned();
            let again = app.get(&format!("/{file}")).header("if-none-match", &tag).send().await;
            assert_eq!(again.status, 304, "{file}");
            served += 1;
        }
    }
    assert!(served >= 9, "{served}");
    let client = app.get("/console/annals.js").send().await.expect_status(200);
    assert_eq!(client.text(), read("clients/javascript/annals.js"));
}

#[tokio::test]
async fn each_page_is_the_same_document_with_the_base_of_its_depth() {
    let app = TestApp::start().await;
    for (path, base) in [
        ("/console/", "./"),
        ("/console/log?aggregate_type=Order", "./"),
        ("/console/streams/", "../"),
        ("/console/streams/Order", "../"),
        ("/console/streams/Order/ord-1?version=3", "../../"),
        // An encoded slash is a part of its segment.
        ("/console/streams/Order/ord%2F1", "../../"),
        ("/console/streams/Order/app.js", "../../"),
    ] {
        let page = app.get(path).send().await.expect_status(200);
        assert!(page.text().contains(&format!("<base href=\"{base}\">")), "{path}: {}", page.text());
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        assert_eq!(page.header("cache-control"), Some("no-cache"), "{path}");
    }
    let redirected = app.get("/console").send().await.expect_status(200);
    assert!(redirected.text().contains("<base href=\"./\">"), "the client follows the redirect to /console/");
    for path in ["/console/nothing", "/console/vendor/none.mjs", "/console/index.html", "/console/test/serve.js"] {
        app.get(path).send().await.expect_problem(404, "route_not_found");
    }
    app.call("POST", "/console/log").send().await.expect_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn the_policy_of_the_console_allows_its_import_map_and_no_other_inline_script() {
    let app = TestApp::start().await;
    let page = app.get("/console/").send().await.expect_status(200);
    let html = page.text();
    let (_, rest) = html.split_once("<script type=\"importmap\">").expect("an import map");
    let (map, rest) = rest.split_once("</script>").expect("its end");
    assert!(!rest.contains("<script>") && !html.contains("style=") && !html.contains("<style"), "{html}");
    let hash = base64(&Sha256::digest(map.as_bytes()));
    let policy = page.header("content-security-policy").expect("a policy");
    assert_eq!(
        policy,
        format!(
            "default-src 'none'; script-src 'self' 'sha256-{hash}'; style-src 'self'; img-src 'self' data:; \
             connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'"
        )
    );
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
}

#[tokio::test]
async fn a_setting_removes_the_console() {
    let with = TestApp::start().await;
    assert!(with.get("/").send().await.text().contains("href=\"console/\""));
    let mut options = TestOptions::default();
    options.settings.has_console = false;
    let without = TestApp::start_with(options).await;
    assert!(!without.get("/").send().await.text().contains("console/"));
    for path in ["/console", "/console/", "/console/log", "/console/app.js"] {
        without.get(path).send().await.expect_problem(404, "route_not_found");
    }
}
