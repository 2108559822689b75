//! `/` and `/openapi.json`: the start page, and the OpenAPI document.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::http::base_path;
use crate::http::extract::query::NoQuery;
use crate::http::html::Page;
use crate::http::media_type::JSON;
use crate::http::problem::code::Code;

const INDEX: &str = "<h1>Annals</h1>
<p>An event store: append events to streams over HTTP, read them back, and subscribe to new ones.</p>
<dl>
<!-- console --><dt><a href=\"docs/\">/docs</a></dt><dd>the documentation of every route, with a form to try it</dd>
<dt><a href=\"openapi.json\">/openapi.json</a></dt><dd>the same as an OpenAPI document</dd>
<dt><a href=\"readyz?verbose\">/readyz?verbose</a></dt><dd>readiness, with details</dd>
<dt><a href=\"livez\">/livez</a></dt><dd>liveness</dd>
<dt><a href=\"metrics\">/metrics</a></dt><dd>metrics for Prometheus</dd>
<dt>/problems/&lt;code&gt;</dt><dd class=\"codes\">what an error means and what to do: <!-- codes --></dd>
</dl>
<p>Append a first event, and read its stream:</p>
<pre tabindex=\"0\">curl -i http://HOST/streams/Order/ord-1 \\
  -H 'Content-Type: application/json' -H 'If-None-Match: *' \\
  -d '{\"events\": [{\"event_type\": \"OrderPlaced\",
                   \"event_data\": {\"total\": 42}}]}'

curl http://HOST/streams/Order/ord-1</pre>
<details id=\"live\"><summary>Subscribe to the log</summary>
<form id=\"key-form\" hidden><label>API key <input name=\"key\" type=\"password\" autocomplete=\"off\"></label>
<button>Use the key</button></form>
<p class=\"status\" id=\"state\" role=\"status\"></p>
<pre id=\"log\" tabindex=\"0\"></pre>
</details>
<p>The same in a terminal:</p>
<pre tabindex=\"0\">curl -N -H 'Accept: text/event-stream' http://HOST/events?after=head</pre>";

/// The entry of the console, which a setting removes.
const CONSOLE: &str = "<dt><a href=\"console/\">/console</a></dt><dd>the web console: the log, streams, states at \
                       any version, projections and reducers</dd>\n";

/// `GET /`: a page with links to all other pages.
pub async fn index(State(app): State<Arc<App>>, _: NoQuery, headers: HeaderMap) -> Response {
    let is_plain = |host: &&str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).filter(is_plain);
    let codes: Vec<String> =
        Code::ALL.iter().map(|code| format!("<a href=\"problems/{code}\">{code}</a>", code = code.as_str())).collect();
    let console = if app.settings.has_console { CONSOLE } else { "" };
    let body = INDEX
        .replace("<!-- console -->", console)
        .replace("<!-- codes -->", &codes.join(", "))
        .replace("HOST", host.unwrap_or("localhost:8080"));
    Page { title: "Annals", body: &body, root: "", script: Some("live.js") }.into_response()
}

/// `GET /openapi.json`: the OpenAPI document.
pub async fn openapi_document(_: NoQuery, Extension(document): Extension<Arc<str>>) -> Response {
    let base = base_path::current();
    let document = if base.is_empty() {
        document.to_string()
    } else {
        document.replacen("\"url\": \"/\"", &format!("\"url\": \"{base}\""), 1)
    };
    ([(header::CONTENT_TYPE, JSON)], document).into_response()
}
