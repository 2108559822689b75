//! HTML pages. They load nothing from other servers.

use axum::response::Html;

const STYLE: &str = "body{font:17px/1.6 system-ui,sans-serif;color:#1c2330;background:#fbfbf9;margin:0}\
main{max-width:44rem;margin:4rem auto;padding:0 1.5rem}h1{font-size:1.7rem;margin-bottom:.2em}\
h2{font-size:1.2rem;margin:1.6em 0 .2em}\
code,pre{font:.88em ui-monospace,monospace;background:#eef0ec;border-radius:4px}code{padding:.1em .3em}\
pre{padding:1em;overflow-x:auto}pre code{font-size:1em;padding:0;background:none}\
summary{cursor:pointer;color:#14509b}a{color:#14509b}dt{margin-top:.8em;font-weight:600}dd{margin:0 0 0 1.2em}\
.status{color:#5b6473}\
@media(prefers-color-scheme:dark){body{color:#dfe3ea;background:#14171c}code,pre{background:#22272f}a{color:#8ab8f0}\
.status{color:#99a2b0}}";

/// Returns a page with a title and a body, both in HTML.
pub fn page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    ))
}

/// Escapes text for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
