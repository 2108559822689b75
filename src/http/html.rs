//! HTML pages. They load nothing from other servers, have no inline script or style, and work under any path prefix.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

use crate::http::cache::NO_CACHE;

/// What a page may load (Content Security Policy, level 3).
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src \
                           'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                           require-trusted-types-for 'script'; trusted-types 'none'";
/// Swagger UI has icons in its style, sets styles in its markup, and writes markup that it has cleaned.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                           img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";
/// The console has one inline script, its import map, which the policy names by its hash. Its base is a relative path.
const CONSOLE_POLICY: &str = "default-src 'none'; script-src 'self' 'sha256-R0jCtL1dLTVHlZVietHJQyhLb0Ugs+H67/L89QcQ3LI='; style-src 'self'; \
                              img-src 'self' data:; connect-src 'self'; base-uri 'self'; form-action 'none'; \
                              frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A page, with a title and a body in HTML.
pub struct Page<'p> {
    pub title: &'p str,
    pub body: &'p str,
    /// The path from the page to the root of the service: empty, or `../`.
    pub root: &'static str,
    /// A script of the page, by its name in `/assets/`.
    pub script: Option<&'static str>,
}

impl IntoResponse for Page<'_> {
    fn into_response(self) -> Response {
        let Self { title, body, root, script } = self;
        let script = script
            .map_or(String::new(), |name| format!("<script type=\"module\" src=\"{root}assets/{name}\"></script>\n"));
        let page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <link rel=\"icon\" href=\"{root}assets/favicon.svg\" type=\"image/svg+xml\">\n\
             <link rel=\"stylesheet\" href=\"{root}assets/annals.css\">\n{script}</head>\n<body>\n<main>\n{body}\n\
             </main>\n</body>\n</html>\n"
        );
        (security_headers(PAGE_POLICY), Html(page)).into_response()
    }
}

/// Returns the page of Swagger UI, which has markup of its own.
pub fn docs_page(html: &'static str) -> Response {
    (security_headers(DOCS_POLICY), Html(html)).into_response()
}

/// Returns a page of the console.
pub fn console_page(html: String) -> Response {
    // The document names files of this release by their paths, so a cache must ask for it again.
    (security_headers(CONSOLE_POLICY), [(header::CACHE_CONTROL, NO_CACHE)], Html(html)).into_response()
}

fn security_headers(policy: &'static str) -> [(HeaderName, HeaderValue); 3] {
    [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ]
}

/// Escapes text for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
