//! JSON over several lines.

/// Formats JSON with one member or element a line. It works on the text, so that numbers keep all their digits.
pub fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    let mut characters = json.chars().filter(|character| !matches!(character, '\n' | '\r')).peekable();
    while let Some(character) = characters.next() {
        if in_string {
            out.push(character);
            match character {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match character {
            ' ' | '\t' => {}
            '{' | '[' => {
                out.push(character);
                while characters.next_if(|next| matches!(next, ' ' | '\t')).is_some() {}
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(character);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                in_string = character == '"';
                out.push(character);
            }
        }
    }
    out
}

fn break_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_digits_are_unchanged() {
        let json = r#"{"a, b: {\"": [1, 2.50, {}], "n": 12345678901234567890.5, "e": [ ], "s": "\\"}"#;
        let expected = r#"{
  "a, b: {\"": [
    1,
    2.50,
    {}
  ],
  "n": 12345678901234567890.5,
  "e": [],
  "s": "\\"
}"#;
        assert_eq!(pretty(json), expected);
        assert_eq!(pretty("42"), "42");
    }
}
