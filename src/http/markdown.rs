//! Renders the pages of error codes as HTML. It supports the part of Markdown that they use: headings, paragraphs,
//! lists, fenced blocks and inline code.

use std::fmt::Write;

use crate::http::html::escape;

/// Renders a page as HTML.
pub fn to_html(markdown: &str) -> String {
    let mut html = String::with_capacity(2 * markdown.len());
    let mut block = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("# ") {
            write_block(&mut html, &mut block);
            write_element(&mut html, "h1", heading);
        } else if let Some(heading) = line.strip_prefix("## ") {
            write_block(&mut html, &mut block);
            write_element(&mut html, "h2", heading);
        } else if line.starts_with("```") {
            write_block(&mut html, &mut block);
            let code: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            html.push_str("<pre><code>");
            html.push_str(&escape(&code.join("\n")));
            html.push_str("</code></pre>\n");
        } else if line.trim().is_empty() {
            write_block(&mut html, &mut block);
        } else {
            block.push(line);
        }
    }
    write_block(&mut html, &mut block);
    html
}

/// Writes the lines of a paragraph or of a list, and clears them. A line that begins with `- ` begins an item.
fn write_block(html: &mut String, lines: &mut Vec<&str>) {
    let (mut paragraph, mut items) = (Vec::new(), Vec::<String>::new());
    for line in lines.drain(..) {
        if let Some(item) = line.strip_prefix("- ") {
            items.push(item.to_owned());
        } else if let Some(item) = items.last_mut() {
            item.push('\n');
            item.push_str(line.trim());
        } else {
            paragraph.push(line);
        }
    }
    if !paragraph.is_empty() {
        write_element(html, "p", &paragraph.join("\n"));
    }
    if !items.is_empty() {
        html.push_str("<ul>\n");
        items.iter().for_each(|item| write_element(html, "li", item));
        html.push_str("</ul>\n");
    }
}

fn write_element(html: &mut String, name: &str, text: &str) {
    writeln!(html, "<{name}>{}</{name}>", inline(text)).expect("writing to a string does not fail");
}

/// Escapes a text for HTML, with the parts in backticks as code.
fn inline(text: &str) -> String {
    let escaped = escape(text);
    let parts = escaped.split('`').enumerate();
    parts.map(|(n, part)| if n % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_html() {
        let markdown = [
            "# A <title>\n\nStatus: 409\n\n## What to do\n\nSend `GET /x/<id>`\nagain:\n\n",
            "- one;\n- two, with\n  a second line.\n\n",
            "```json\n{\n  \"a\": \"<`>\"\n}\n```\n",
        ];
        let html = [
            "<h1>A &lt;title&gt;</h1>\n<p>Status: 409</p>\n<h2>What to do</h2>\n",
            "<p>Send <code>GET /x/&lt;id&gt;</code>\nagain:</p>\n",
            "<ul>\n<li>one;</li>\n<li>two, with\na second line.</li>\n</ul>\n",
            "<pre><code>{\n  \"a\": \"&lt;`&gt;\"\n}</code></pre>\n",
        ];
        assert_eq!(to_html(&markdown.concat()), html.concat());
    }

    #[test]
    fn a_list_may_follow_a_paragraph_without_an_empty_line() {
        assert_eq!(to_html("Causes:\n- one\n"), "<p>Causes:</p>\n<ul>\n<li>one</li>\n</ul>\n");
    }
}
