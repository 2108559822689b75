//! `/assets/{file}` and `/docs/`: the files of the pages, and Swagger UI. All of them are in the binary.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use sha2::{Digest, Sha256};
use utoipa_swagger_ui::Config;

use crate::domain::hex::hex;
use crate::http::cache::NO_CACHE;
use crate::http::html::docs_page;

/// The start page of Swagger UI.
const DOCS: &str = "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>Annals: the API</title>
<link rel=\"icon\" href=\"../assets/favicon.svg\" type=\"image/svg+xml\">
<link rel=\"stylesheet\" href=\"swagger-ui.css\">
<script src=\"swagger-ui-bundle.js\"></script>
<script src=\"../assets/docs.js\"></script>
</head>
<body>
<div id=\"swagger-ui\"></div>
</body>
</html>
";

/// A file: its name, its content type and its content.
pub type Asset = (&'static str, &'static str, &'static str);

const ASSETS: [Asset; 4] = [
    ("annals.css", "text/css; charset=utf-8", include_str!("../assets/annals.css")),
    ("docs.js", "text/javascript; charset=utf-8", include_str!("../assets/docs.js")),
    ("favicon.svg", "image/svg+xml", include_str!("../assets/favicon.svg")),
    ("live.js", "text/javascript; charset=utf-8", include_str!("../assets/live.js")),
];

/// The files of Swagger UI that its page loads. The package has more, like pages that no policy covers.
const SWAGGER_FILES: [&str; 2] = ["swagger-ui.css", "swagger-ui-bundle.js"];

/// The configuration of Swagger UI is in `docs.js`.
static SWAGGER_CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from("../openapi.json")));

/// `GET /assets/{file}`: a file of the pages.
pub async fn read_asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|(known, ..)| *known == name) {
        Some((_, content_type, content)) => file(&headers, content_type, content.as_bytes()),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// `GET /docs`: the page is at `/docs/`, so that it can load its files by relative links.
pub async fn redirect_to_docs() -> Redirect {
    Redirect::permanent("docs/")
}

/// `GET /docs/`: Swagger UI.
pub async fn read_docs() -> Response {
    docs_page(DOCS)
}

/// `GET /docs/{file}`: a file of Swagger UI.
pub async fn read_docs_file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let known = SWAGGER_FILES.contains(&name.as_str());
    let found = if known { utoipa_swagger_ui::serve(&name, SWAGGER_CONFIG.clone()).ok().flatten() } else { None };
    match found {
        Some(found) => file(&headers, &found.content_type, &found.bytes),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Returns a file, or 304 if the client has it. Its tag is the hash of its content.
pub fn file(headers: &HeaderMap, content_type: &str, content: &[u8]) -> Response {
    let tag = format!("\"{}\"", &hex(&Sha256::digest(content))[..32]);
    let sent = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = sent.flat_map(|tags| tags.split(',')).any(|sent| matches_tag(sent.trim(), &tag));
    let headers = [
        (header::CACHE_CONTROL, NO_CACHE),
        (header::ETAG, HeaderValue::try_from(tag).expect("a hash is a header value")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    if is_known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let content_type = HeaderValue::try_from(content_type).expect("a content type is a header value");
    (headers, [(header::CONTENT_TYPE, content_type)], Cow::<[u8]>::Owned(content.to_vec())).into_response()
}

/// Compares weakly: a proxy that compresses the file may have changed its tag.
fn matches_tag(sent: &str, tag: &str) -> bool {
    let sent = sent.strip_prefix("W/").unwrap_or(sent);
    sent == "*" || sent.starts_with(tag.trim_end_matches('"'))
}
