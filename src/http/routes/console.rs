//! `/console/`: the web console. Its files are in the binary, and its pages are one document that reads the path.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};

use crate::http::html::console_page;
use crate::http::routes::assets::{Asset, file};

/// The document of every page. `BASE` becomes the path from the page to `/console/`.
const SHELL: &str = include_str!("../../../console/index.html");

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Returns an entry of [`FILES`], with its path below `console/` in the URL and in the repository.
macro_rules! console_file {
    ($path:literal, $content_type:expr) => {
        ($path, $content_type, include_str!(concat!("../../../console/", $path)))
    };
}

/// The files of the console. The JavaScript client reads the API for it.
const FILES: [Asset; 10] = [
    console_file!("console.css", CSS),
    console_file!("app.js", JAVASCRIPT),
    console_file!("base.js", JAVASCRIPT),
    console_file!("pages/events.js", JAVASCRIPT),
    console_file!("pages/operations.js", JAVASCRIPT),
    console_file!("pages/streams.js", JAVASCRIPT),
    console_file!("vendor/preact.mjs", JAVASCRIPT),
    console_file!("vendor/hooks.mjs", JAVASCRIPT),
    console_file!("vendor/htm.mjs", JAVASCRIPT),
    ("annals.js", JAVASCRIPT, include_str!("../../../clients/javascript/annals.js")),
];

/// The first segments of the paths of pages.
const PAGES: [&str; 9] =
    ["log", "streams", "events", "positions", "correlations", "projections", "groups", "reducers", "operations"];

/// `GET /console`: the console is at `/console/`, so that it can load its files by relative links.
pub async fn redirect_to_console() -> Redirect {
    Redirect::permanent("console/")
}

/// `GET /console/`: the first page.
pub async fn read_console() -> Response {
    shell(0)
}

/// `GET /console/{path}`: a file, or a page.
pub async fn read_console_path(Path(path): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    if let Some((_, content_type, content)) = FILES.iter().find(|(known, ..)| *known == path) {
        return file(&headers, content_type, content.as_bytes());
    }
    let first = path.split('/').next().unwrap_or_default();
    if !PAGES.contains(&first) {
        return StatusCode::NOT_FOUND.into_response();
    }
    // The raw path counts: a browser resolves links by its slashes, and an encoded one is not one of them.
    let segments = uri.path().bytes().filter(|byte| *byte == b'/').count();
    shell(segments.saturating_sub(2))
}

/// Returns the document for a page that is a number of folders below `/console/`. Its base is relative, so the console
/// works under any prefix of a proxy.
fn shell(depth: usize) -> Response {
    let base = if depth == 0 { "./".to_owned() } else { "../".repeat(depth) };
    console_page(SHELL.replacen("BASE", &base, 1))
}
