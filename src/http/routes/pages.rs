//! Pages for people: `/`, and `/problems/{code}`.

use std::sync::Arc;

use axum::Extension;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{Html, IntoResponse, Response};

use crate::http::negotiate::JSON;
use crate::http::path::PathParams;
use crate::http::problem::{Code, Problem, ProblemSchema, Refusal};
use crate::http::query::no_parameters;

/// A page of plain HTML that needs nothing from anywhere.
fn page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    ))
}

const STYLE: &str = "body{font:17px/1.6 system-ui,sans-serif;color:#1c2330;background:#fbfbf9;margin:0}\
main{max-width:44rem;margin:4rem auto;padding:0 1.5rem}h1{font-size:1.7rem;margin-bottom:.2em}\
code,pre{font:.88em ui-monospace,monospace;background:#eef0ec;border-radius:4px}code{padding:.1em .3em}\
pre{padding:1em;overflow-x:auto}summary{cursor:pointer;color:#14509b}a{color:#14509b}dt{margin-top:.8em;font-weight:600}dd{margin:0 0 0 1.2em}\
.status{color:#5b6473}\
@media(prefers-color-scheme:dark){body{color:#dfe3ea;background:#14171c}code,pre{background:#22272f}a{color:#8ab8f0}\
.status{color:#99a2b0}}";

const INDEX: &str = "<h1>Annals</h1>
<p>An event store: append events to streams over HTTP, and read back everything that ever happened.</p>
<dl>
<dt><a href=\"/docs/\">/docs</a></dt><dd>every route, to read and to try out</dd>
<dt><a href=\"/openapi.json\">/openapi.json</a></dt><dd>the same for programs (OpenAPI)</dd>
<dt><a href=\"/readyz?verbose\">/readyz?verbose</a></dt><dd>can it take requests? <a href=\"/livez\">/livez</a>: is it alive?</dd>
<dt><a href=\"/metrics\">/metrics</a></dt><dd>numbers for Prometheus</dd>
<dt>/problems/&lt;code&gt;</dt><dd>what an error means and what to do: <!-- codes --></dd>
</dl>
<p>A first event, and the stream that it begins:</p>
<pre>curl -i http://HOST/streams/Order/ord-1 \\
  -H 'Content-Type: application/json' -H 'If-None-Match: *' \\
  -d '{\"events\": [{\"event_type\": \"OrderPlaced\",
                   \"event_data\": {\"total\": 42}}]}'

curl http://HOST/streams/Order/ord-1</pre>
<details id=\"live\"><summary>Follow the log, as it happens (<code>EventSource</code>)</summary>
<p class=\"status\" id=\"state\" role=\"status\"></p>
<pre id=\"log\"></pre>
</details>
<p>The same in a terminal:</p>
<pre>curl -N -H 'Accept: text/event-stream' http://HOST/events?after=head</pre>
<script>";

/// Follows while the section is open: the last ten events, and then what happens.
const FOLLOW: &str = include_str!("follow.js");

/// `GET /`: what there is.
pub async fn index(uri: Uri, headers: HeaderMap) -> Result<Response, Refusal> {
    no_parameters(&uri)?;
    let plain = |host: &&str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).filter(plain).unwrap_or("localhost:8080");
    let codes: Vec<String> =
        Code::ALL.iter().map(|code| format!("<a href=\"/problems/{code}\">{code}</a>", code = code.as_str())).collect();
    let index = INDEX.replace("<!-- codes -->", &codes.join(", ")).replace("HOST", host);
    Ok(page("Annals", &format!("{index}\n{FOLLOW}</script>")).into_response())
}

/// `GET /openapi.json`: the routes, for programs.
pub async fn openapi_document(uri: Uri, Extension(document): Extension<Arc<str>>) -> Result<Response, Refusal> {
    no_parameters(&uri)?;
    Ok(([(header::CONTENT_TYPE, JSON)], document.to_string()).into_response())
}

/// What an error code means, and what to do
#[utoipa::path(get, path = "/problems/{code}", tag = "operations",
    params(("code" = String, Path, description = "The member `code` of a problem")),
    responses(
        (status = 200, description = "A page for people", body = String, content_type = "text/html"),
        (status = 400, description = "Unknown parameter", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 404, description = "No such code", body = ProblemSchema, content_type = "application/problem+json"),
    ))]
pub async fn problem_page(path: PathParams, uri: Uri) -> Result<Response, Refusal> {
    no_parameters(&uri)?;
    let code = path.get("code")?;
    let code = Code::parse(code)
        .ok_or_else(|| Problem::new(Code::ProblemNotFound, format!("no problem has the code {code:?}")))?;
    let body = format!(
        "<h1>{title}</h1>\n<p class=\"status\"><code>{code}</code>, status {status}</p>\n<p>{advice}</p>\n\
         <p><a href=\"/\">Annals</a></p>",
        title = code.title(),
        code = code.as_str(),
        status = code.status(),
        advice = marked_up(code.advice()),
    );
    Ok(page(code.title(), &body).into_response())
}

/// Escapes a text for HTML, with what stands in backticks as code.
fn marked_up(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let pieces = escaped.split('`').enumerate();
    pieces.map(|(n, piece)| if n % 2 == 1 { format!("<code>{piece}</code>") } else { piece.to_owned() }).collect()
}
