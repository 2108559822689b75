//! Numbers that JavaScript would change: handed to it as strings.
//!
//! A JSON number has as many digits as it likes; a JavaScript number has about sixteen. One that would not come out as it
//! went in, as a value, becomes a string with its digits: a reducer sees that something is there, and can keep it.

use std::borrow::Cow;

/// So many significant digits survive in any double that is not tiny.
const SAFE_DIGITS: usize = 15;

/// The document with every number in quotes that a double cannot hold.
pub fn exact(document: &str) -> Cow<'_, str> {
    let bytes = document.as_bytes();
    let mut out = String::new();
    let (mut copied, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let length = bytes[at..].iter().take_while(|byte| b"0123456789+-.eE".contains(byte)).count();
                let number = &document[at..at + length];
                if !survives(number) {
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

/// Whether the double that is nearest prints as the same value.
fn survives(number: &str) -> bool {
    let digits = number.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).filter(u8::is_ascii_digit).count();
    if digits <= SAFE_DIGITS && !number.contains(['e', 'E']) {
        return true;
    }
    let Ok(double) = number.parse::<f64>() else { return false };
    double.is_finite() && decimal(number) == decimal(&format!("{double:e}"))
}

/// A decimal number as its significant digits and the power of ten of the first one.
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
    fn numbers_that_a_double_cannot_hold_become_strings() {
        for kept in [
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
            assert_eq!(exact(kept), kept);
        }
        for (given, handed) in [
            ("9007199254740993", r#""9007199254740993""#),
            ("[1,12345678901234567890,2]", r#"[1,"12345678901234567890",2]"#),
            (r#"{"a":0.1234567890123456789,"b":-3}"#, r#"{"a":"0.1234567890123456789","b":-3}"#),
            ("1.0000000000000000001", r#""1.0000000000000000001""#),
        ] {
            assert_eq!(exact(given), handed);
        }
    }
}
