//! Passes numbers that JavaScript would change to it as strings.
//!
//! A JSON number may have any number of digits; a JavaScript number has about sixteen. A number that would change its
//! value becomes a string of its digits, so a reducer sees the exact value and can store it.

use std::borrow::Cow;

/// A double represents at least this number of significant decimal digits, unless it is tiny.
const SAFE_DIGITS: usize = 15;

/// Puts every number of a document that a double cannot represent exactly into quotes.
pub fn quote_unsafe_numbers(document: &str) -> Cow<'_, str> {
    let bytes = document.as_bytes();
    let mut out = String::new();
    let (mut copied, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let length = bytes[at..].iter().take_while(|byte| b"0123456789+-.eE".contains(byte)).count();
                let number = &document[at..at + length];
                if !is_exact(number) {
                    out.push_str(&document[copied..at]);
                    out.extend(['"', '"']);
                    out.insert_str(out.len() - 1, number);
                    copied = at + length;
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(document);
    }
    out.push_str(&document[copied..]);
    Cow::Owned(out)
}

fn end_of_string(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// Returns whether the nearest double prints as the same value.
fn is_exact(number: &str) -> bool {
    let digits = number.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).filter(u8::is_ascii_digit).count();
    if digits <= SAFE_DIGITS && !number.contains(['e', 'E']) {
        return true;
    }
    let Ok(double) = number.parse::<f64>() else { return false };
    double.is_finite() && decimal(number) == decimal(&format!("{double:e}"))
}

/// Returns the sign, the significant digits, and the power of ten of the first digit of a decimal number.
fn decimal(number: &str) -> (bool, String, i64) {
    let (negative, number) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all: String = [whole, fraction].concat();
    let leading = all.bytes().take_while(|byte| *byte == b'0').count();
    let digits = all[leading..].trim_end_matches('0').to_owned();
    if digits.is_empty() {
        return (false, digits, 0);
    }
    let exponent: i64 = exponent.parse().unwrap_or(i64::MAX / 2);
    (negative, digits, whole.len() as i64 - leading as i64 + exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_a_double_cannot_represent_become_strings() {
        for unchanged in [
            "0",
            "-1",
            "42.50",
            "0.1",
            "9007199254740991",
            "9007199254740992",
            "0.30000000000000004",
            "1e300",
            "100000000000000000000",
            "123456789012345",
            r#"{"a": [1.10, "9007199254740993", "\"12345678901234567890\\"]}"#,
        ] {
            assert_eq!(quote_unsafe_numbers(unchanged), unchanged);
        }
        for (number, passed) in [
            ("9007199254740993", r#""9007199254740993""#),
            ("[1,12345678901234567890,2]", r#"[1,"12345678901234567890",2]"#),
            (r#"{"a":0.1234567890123456789,"b":-3}"#, r#"{"a":"0.1234567890123456789","b":-3}"#),
            ("1.0000000000000000001", r#""1.0000000000000000001""#),
        ] {
            assert_eq!(quote_unsafe_numbers(number), passed);
        }
    }
}
