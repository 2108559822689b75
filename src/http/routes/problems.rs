//! `/problems/{code}`: the explanation of an error code.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::http::extract::accepts::accepted;
use crate::http::extract::path::PathParams;
use crate::http::extract::query::NoQuery;
use crate::http::html::{Page, escape};
use crate::http::markdown::to_html;
use crate::http::media_type::{HTML, MARKDOWN};
use crate::http::openapi::responses::UnknownParameter;
use crate::http::problem::code::Code;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::schema::ProblemSchema;

/// Explain an error code
#[utoipa::path(get, path = "/problems/{code}", operation_id = "read_problem", tag = "operations",
    params(("code" = String, Path, description = "The member `code` of a problem")),
    responses(
        (status = 200, description = "What happened, what to do, and an example",
            content((String = "text/html"), (String = "text/markdown"))),
        UnknownParameter,
        (status = 404, description = "No problem has this code", body = ProblemSchema,
            content_type = "application/problem+json"),
    ))]
pub async fn read_problem(_: NoQuery, path: PathParams, headers: HeaderMap) -> ApiResult<Response> {
    let code = path.get("code")?;
    let code = Code::parse(code).ok_or_else(|| ApiError::problem_not_found(code))?;
    let vary = (header::VARY, HeaderValue::from_static("accept"));
    // HTML is the default, also for a client that accepts neither: the page is for people, and is better than a 406.
    if accepted(&headers, &[HTML, MARKDOWN]).is_ok_and(|media_type| media_type == MARKDOWN) {
        let content_type = HeaderValue::from_static("text/markdown; charset=utf-8");
        return Ok(([vary, (header::CONTENT_TYPE, content_type)], code.page()).into_response());
    }
    let (title, body) = (escape(code.title()), explanation(code));
    Ok(([vary], Page { title: &title, body: &body, root: "../", script: None }).into_response())
}

/// Renders the explanation of a code as HTML, with the code below its title.
fn explanation(code: Code) -> String {
    let html = to_html(code.page());
    let (title, text) = html.split_once('\n').unwrap_or((html.as_str(), ""));
    let code = code.as_str();
    format!("{title}\n<p class=\"status\"><code>{code}</code></p>\n{text}<p><a href=\"../\">Annals</a></p>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_explanation_has_the_title_the_code_and_both_sections() {
        for code in Code::ALL {
            let html = explanation(*code);
            let start = format!(
                "<h1>{}</h1>\n<p class=\"status\"><code>{}</code></p>\n<p>Status: ",
                escape(code.title()),
                code.as_str()
            );
            assert!(html.starts_with(&start), "{html}");
            assert!(html.contains("<h2>What happened</h2>") && html.contains("<h2>What to do</h2>"), "{html}");
            assert!(!html.contains('`') && !html.contains("\n- "), "{html}");
        }
    }
}
