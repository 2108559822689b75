//! Why a document does not have the expected shape, in the words of JSON.
//!
//! serde names the Rust types that it fills. A client has to know what the member must be instead.

use serde_json::error::Category;

/// Describes an error of serde_json: what the member must be, or where the text is not JSON.
pub fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (line, column) = (error.line(), error.column());
    let message = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    // The line of an import is always line 1 of its text, and the message names the line of the file.
    let place = if line > 1 { format!("line {line}, column {column}") } else { format!("column {column}") };
    match error.classify() {
        Category::Data => describe_data(message),
        Category::Syntax | Category::Eof | Category::Io => {
            format!("is not valid JSON: {} ({place})", describe_syntax(message))
        }
    }
}

fn describe_syntax(message: &str) -> &str {
    match message {
        "EOF while parsing a list" => "it ends within a list",
        "EOF while parsing an object" => "it ends within an object",
        "EOF while parsing a string" => "it ends within a string",
        "EOF while parsing a value" => "it ends where a value is expected",
        "expected ident" => "a value is misspelt",
        "trailing characters" => "more text follows after its end",
        "recursion limit exceeded" => "it is nested too deeply",
        // The words of JSON itself: a comma, a colon, a quote, a key, an escape, a control character.
        _ => message,
    }
}

fn describe_data(message: &str) -> String {
    if let Some(name) = quoted_name(message, "missing field ") {
        return format!("the member {name} is required");
    }
    if let Some(name) = quoted_name(message, "duplicate field ") {
        return format!("the member {name} occurs twice");
    }
    if let Some(name) = quoted_name(message, "unknown field ") {
        let known: Vec<_> = message.split('`').skip(3).step_by(2).collect();
        return format!("the member {name} is unknown: the members are {}", known.join(", "));
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid value: ").and_then(|rest| rest.split_once(", expected "))
        && is_integer(expected)
        && let Some(found) = describe_found(found)
    {
        return format!("is out of range: {found}");
    }
    let found =
        ["invalid type: ", "invalid value: ", "invalid length "].iter().find_map(|kind| message.strip_prefix(kind));
    match found.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => match describe_found(found) {
            Some(found) => format!("must be {}, and is {found}", describe_expected(expected)),
            None => format!("must be {}", describe_expected(expected)),
        },
        // A rule of Annals, in its own words.
        None => message.to_owned(),
    }
}

/// Returns the name in backticks after a prefix.
fn quoted_name<'m>(message: &'m str, prefix: &str) -> Option<&'m str> {
    message.strip_prefix(prefix)?.split('`').nth(1)
}

fn describe_expected(expected: &str) -> &str {
    match expected {
        "a map" => "an object",
        "a sequence" => "a list",
        "a borrowed string" => "a string",
        _ if is_integer(expected) => "a whole number",
        "f64" => "a number",
        _ if expected.starts_with("struct ") => "an object",
        // A list of a fixed length, or the words of an own visitor.
        _ => expected,
    }
}

fn is_integer(expected: &str) -> bool {
    matches!(expected, "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "usize")
}

/// Describes a value; `None` if the message has only its length.
fn describe_found(found: &str) -> Option<String> {
    let quoted = || found.split('`').nth(1);
    Some(match found {
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        "null" | "unit value" => "null".to_owned(),
        _ if found.starts_with("string ") => "a string".to_owned(),
        _ => quoted()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the errors are compared")]
    struct Order {
        id: String,
        total: i64,
        #[serde(default)]
        lines: Vec<Order>,
    }

    fn described(json: &str) -> String {
        describe(&serde_json::from_str::<Order>(json).expect_err("it is invalid"))
    }

    #[test]
    fn an_error_says_what_the_member_must_be() {
        for (json, expected) in [
            (r#"{"id":"1"}"#, "the member total is required"),
            (r#"{"id":"1","id":"2"}"#, "the member id occurs twice"),
            (r#"{"sum":1}"#, "the member sum is unknown: the members are id, total, lines"),
            (r#"{"total":1.0}"#, "must be a whole number, and is 1.0"),
            (r#"{"total":"1"}"#, "must be a whole number, and is a string"),
            (r#"{"total":null}"#, "must be a whole number, and is null"),
            (r#"{"id":true}"#, "must be a string, and is true"),
            (r#"{"id":[]}"#, "must be a string, and is a list"),
            (r#"{"lines":{}}"#, "must be a list, and is an object"),
            (r#"{"lines":[1]}"#, "must be an object, and is 1"),
            (r#"["1"]"#, "must be an object"),
            (r#"{"total":9223372036854775808}"#, "is out of range: 9223372036854775808"),
            (r#"{"id""#, "is not valid JSON: it ends within an object (column 5)"),
            ("{\n\"id\" 1}", "is not valid JSON: expected `:` (line 2, column 6)"),
        ] {
            assert_eq!(described(json), expected, "{json}");
        }
    }
}
