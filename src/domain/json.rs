//! Validates JSON documents: Annals accepts those that PostgreSQL stores and that every client can read.
//!
//! JSONB accepts documents that no client can read (81 kB of `1e131071` print as a gigabyte). It silently drops
//! duplicate keys, and it rejects other documents only when a whole batch is executed. [`inspect`] finds all of these
//! when a request arrives. It checks the depth, duplicate keys, U+0000, lone surrogates and numbers, and computes the
//! size of the document as PostgreSQL prints it.
//!
//! Invariants: `jsonb` accepts every document that `inspect` accepts, and prints it in exactly
//! [`Inspected::printed_bytes`] bytes. `inspect` accepts what `jsonb` prints, so that a document can be sent again as
//! it was returned.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;

/// The deepest nesting of arrays and objects; a scalar has depth 0.
pub const DEPTH_MAX: usize = 64;
/// The largest integer that every JSON parser represents exactly (2^53 - 1). Versions and positions do not exceed it.
pub const EXACT_INTEGER_MAX: i64 = (1 << 53) - 1;
/// The largest number of significant digits of a number: from its first to its last nonzero digit.
pub const NUMBER_DIGITS_MAX: usize = 40;
/// The largest absolute value of the power of ten of a number's first nonzero digit, and of a written exponent.
pub const NUMBER_EXPONENT_MAX: i64 = 308;
/// The largest number of digits after the decimal point, trailing zeros included, as JSONB prints them.
pub const NUMBER_SCALE_MAX: usize = 347;

/// The result of [`inspect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspected {
    /// The size of the document as JSONB prints it, in bytes of UTF-8.
    pub printed_bytes: usize,
}

/// Why a document is rejected, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The RFC 6901 pointer from the root of the document to the fault.
    pub pointer: String,
    pub reason: Reason,
}

/// Why a document is rejected. The texts are part of the error that the client receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    #[error("the key occurs twice in one object")]
    DuplicateKey,
    #[error("contains U+0000, which PostgreSQL cannot store: remove it, or encode the bytes, for example in base64")]
    Nul,
    #[error("contains a lone surrogate, which is not a character: send a pair, or the character itself")]
    LoneSurrogate,
    #[error("is a number with more than {NUMBER_DIGITS_MAX} significant digits: send it as a string")]
    TooManyDigits,
    #[error("is a number with more than {NUMBER_SCALE_MAX} digits after the decimal point: send it as a string")]
    TooManyDecimals,
    #[error("is a number beyond 10^{NUMBER_EXPONENT_MAX} or below 10^-{NUMBER_EXPONENT_MAX}: send it as a string")]
    ExponentOutOfRange,
    #[error("is not valid JSON")]
    Syntax,
}

/// Validates one document. A [`RawValue`] is well-formed JSON, so [`Reason::Syntax`] is not expected.
pub fn inspect(document: &RawValue) -> Result<Inspected, Fault> {
    let mut scanner = Scanner { rest: document.get().as_bytes(), printed: 0, path: Vec::new() };
    match scanner.value(0) {
        Ok(()) => Ok(Inspected { printed_bytes: scanner.printed }),
        Err(reason) => Err(Fault { pointer: pointer(&scanner.path), reason }),
    }
}

enum Step<'d> {
    Key(Cow<'d, str>),
    Index(usize),
}

fn pointer(path: &[Step<'_>]) -> String {
    path.iter()
        .map(|step| match step {
            Step::Key(key) => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Step::Index(index) => format!("/{index}"),
        })
        .collect()
}

struct Scanner<'d> {
    rest: &'d [u8],
    printed: usize,
    /// The path to the value that is being scanned. When a fault is found, it is the path to the fault.
    path: Vec<Step<'d>>,
}

impl<'d> Scanner<'d> {
    fn value(&mut self, depth: usize) -> Result<(), Reason> {
        match self.peek()? {
            b'{' => self.object(depth + 1),
            b'[' => self.array(depth + 1),
            b'"' => self.string().map(drop),
            b't' | b'n' => self.literal(4),
            b'f' => self.literal(5),
            _ => self.number(),
        }
    }

    /// Scans an object. JSONB prints a space after each colon and comma: `{"a": 1, "b": 2}`.
    fn object(&mut self, depth: usize) -> Result<(), Reason> {
        self.open(depth)?;
        let mut keys = KeySet::default();
        while self.peek()? != b'}' {
            if !keys.is_empty() {
                self.expect(b',')?;
                self.printed += 2;
                self.peek()?;
            }
            let key = self.string()?;
            self.path.push(Step::Key(key.clone()));
            if !keys.insert(key) {
                return Err(Reason::DuplicateKey);
            }
            self.expect(b':')?;
            self.printed += 2;
            self.value(depth)?;
            self.path.pop();
        }
        self.expect(b'}')?;
        self.printed += 1;
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), Reason> {
        self.open(depth)?;
        let mut index = 0;
        while self.peek()? != b']' {
            if index > 0 {
                self.expect(b',')?;
                self.printed += 2;
            }
            self.path.push(Step::Index(index));
            self.value(depth)?;
            self.path.pop();
            index += 1;
        }
        self.expect(b']')?;
        self.printed += 1;
        Ok(())
    }

    fn open(&mut self, depth: usize) -> Result<(), Reason> {
        if depth > DEPTH_MAX {
            return Err(Reason::TooDeep);
        }
        self.rest = &self.rest[1..];
        self.printed += 1;
        Ok(())
    }

    /// Scans a string and returns it decoded. It is borrowed if it contains no escape.
    fn string(&mut self) -> Result<Cow<'d, str>, Reason> {
        self.expect(b'"')?;
        self.printed += 2;
        let plain = self.rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(Reason::Syntax)?;
        let start = self.take(plain)?;
        self.printed += plain;
        if self.rest[0] == b'"' {
            self.rest = &self.rest[1..];
            return Ok(Cow::Borrowed(start));
        }
        let mut decoded = start.to_owned();
        loop {
            let plain = self.rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(Reason::Syntax)?;
            decoded.push_str(self.take(plain)?);
            self.printed += plain;
            if self.rest[0] == b'"' {
                self.rest = &self.rest[1..];
                return Ok(Cow::Owned(decoded));
            }
            let character = self.escape()?;
            self.printed += printed_bytes(character);
            decoded.push(character);
        }
    }

    fn escape(&mut self) -> Result<char, Reason> {
        let kind = *self.rest.get(1).ok_or(Reason::Syntax)?;
        self.rest = &self.rest[2..];
        Ok(match kind {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'"' | b'\\' | b'/' => kind as char,
            b'u' => return self.unicode_escape(),
            _ => return Err(Reason::Syntax),
        })
    }

    fn unicode_escape(&mut self) -> Result<char, Reason> {
        let first = self.hex4()?;
        if first == 0 {
            return Err(Reason::Nul);
        }
        if !(0xD800..0xE000).contains(&first) {
            return char::from_u32(first).ok_or(Reason::Syntax);
        }
        if first >= 0xDC00 || !self.rest.starts_with(b"\\u") {
            return Err(Reason::LoneSurrogate);
        }
        self.rest = &self.rest[2..];
        let second = self.hex4()?;
        if !(0xDC00..0xE000).contains(&second) {
            return Err(Reason::LoneSurrogate);
        }
        char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)).ok_or(Reason::Syntax)
    }

    fn hex4(&mut self) -> Result<u32, Reason> {
        let digits = self.take(4)?;
        u32::from_str_radix(digits, 16).map_err(|_| Reason::Syntax)
    }

    fn literal(&mut self, length: usize) -> Result<(), Reason> {
        self.take(length)?;
        self.printed += length;
        Ok(())
    }

    fn number(&mut self) -> Result<(), Reason> {
        let end = self
            .rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
            .unwrap_or(self.rest.len());
        let text = self.take(end)?;
        self.printed += printed_number_bytes(text)?;
        Ok(())
    }

    fn peek(&mut self) -> Result<u8, Reason> {
        let blanks = self.rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.rest = &self.rest[blanks.ok_or(Reason::Syntax)?..];
        Ok(self.rest[0])
    }

    fn expect(&mut self, byte: u8) -> Result<(), Reason> {
        if self.peek()? != byte {
            return Err(Reason::Syntax);
        }
        self.rest = &self.rest[1..];
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&'d str, Reason> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Reason::Syntax)?;
        self.rest = rest;
        std::str::from_utf8(taken).map_err(|_| Reason::Syntax)
    }
}

/// Returns the number of bytes in which JSONB prints a character that was escaped in the request.
fn printed_bytes(character: char) -> usize {
    match character {
        '"' | '\\' | '\u{8}' | '\u{c}' | '\n' | '\r' | '\t' => 2,
        '\u{0}'..'\u{20}' => 6,
        other => other.len_utf8(),
    }
}

/// Checks a number and returns its length as PostgreSQL prints it: all digits, without an exponent.
fn printed_number_bytes(text: &str) -> Result<usize, Reason> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        // An exponent that does not fit into an i64 is out of range as well.
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().map_err(|_| Reason::ExponentOutOfRange)?),
        None => (unsigned, 0),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if exponent.abs() > NUMBER_EXPONENT_MAX {
        return Err(Reason::ExponentOutOfRange);
    }

    let is_zero = |digit: &u8| *digit == b'0';
    let leading_zeros = integer.bytes().chain(fraction.bytes()).take_while(is_zero).count();
    let trailing_zeros = fraction.bytes().rev().chain(integer.bytes().rev()).take_while(is_zero).count();
    // 0 if the number is zero.
    let digits = (integer.len() + fraction.len() - leading_zeros).saturating_sub(trailing_zeros);
    if digits > NUMBER_DIGITS_MAX {
        return Err(Reason::TooManyDigits);
    }
    // The power of ten of the first nonzero digit. If the number is zero, that of its last digit.
    let magnitude = integer.len() as i64 - leading_zeros as i64 - 1 + exponent + i64::from(digits == 0);
    if magnitude.abs() > NUMBER_EXPONENT_MAX && (digits > 0 || magnitude < 0) {
        return Err(Reason::ExponentOutOfRange);
    }

    let sign = usize::from(text.len() != unsigned.len() && digits > 0);
    let integer_digits = if digits == 0 { 1 } else { usize::try_from(magnitude + 1).unwrap_or(0).max(1) };
    let scale = usize::try_from(fraction.len() as i64 - exponent).unwrap_or(0);
    if scale > NUMBER_SCALE_MAX {
        return Err(Reason::TooManyDecimals);
    }
    Ok(sign + integer_digits + if scale > 0 { 1 + scale } else { 0 })
}

/// The keys of one object: the first 16 in a list, the others in a hash set. Most objects need only the list.
#[derive(Default)]
struct KeySet<'d> {
    few: Vec<Cow<'d, str>>,
    many: HashSet<Cow<'d, str>>,
}

impl<'d> KeySet<'d> {
    /// The capacity of the list.
    const FEW: usize = 16;

    fn is_empty(&self) -> bool {
        self.few.is_empty()
    }

    /// Adds a key. Returns whether it is new.
    fn insert(&mut self, key: Cow<'d, str>) -> bool {
        if self.few.contains(&key) {
            return false;
        }
        if self.few.len() < Self::FEW {
            self.few.push(key);
            return true;
        }
        self.many.insert(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(document: &str) -> Result<usize, (String, Reason)> {
        let raw: Box<RawValue> = serde_json::from_str(document).expect("well-formed JSON");
        inspect(&raw).map(|ok| ok.printed_bytes).map_err(|fault| (fault.pointer, fault.reason))
    }

    #[test]
    fn the_printed_size_equals_that_of_jsonb() {
        for (document, printed) in [
            ("{}", "{}"),
            ("[]", "[]"),
            (r#"{"a":1,"b":[1,2,{}]}"#, r#"{"a": 1, "b": [1, 2, {}]}"#),
            (" [ true , false , null ] ", "[true, false, null]"),
            (r#""\u00e9\/\ud83d\ude00""#, "\"é/😀\""),
            (r#""\u0001\n\t\"\\""#, r#""\u0001\n\t\"\\""#),
            ("-0", "0"),
            ("-0.0", "0.0"),
            ("0e-3", "0.000"),
            ("0e308", "0"),
            ("1e2", "100"),
            ("-1.5E-3", "-0.0015"),
            ("1.50e1", "15.0"),
            ("1.50", "1.50"),
            ("12.345e1", "123.45"),
            ("9007199254740993", "9007199254740993"),
        ] {
            assert_eq!(inspected(document), Ok(printed.len()), "{document}");
        }
        assert_eq!(inspected("1e308"), Ok(309));
        assert_eq!(inspected("1e-308"), Ok(310));
    }

    #[test]
    fn depth_is_counted_from_the_root_of_the_document() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(inspected(&nested(64)), Ok(128));
        assert_eq!(inspected(&nested(65)), Err(("/0".repeat(64), Reason::TooDeep)));
        assert!(matches!(inspected(&nested(100_000)), Err((_, Reason::TooDeep))));
    }

    #[test]
    fn a_fault_is_found_at_any_place_and_reported_with_its_pointer() {
        let many = format!("{{{}\"k3\":1}}", (0..40).map(|n| format!("\"k{n}\":{n},")).collect::<String>());
        for (document, pointer, reason) in [
            (r#"{"a":1,"a":2}"#, "/a", Reason::DuplicateKey),
            (r#"{"x":[{"a":1,"\u0061":2}]}"#, "/x/0/a", Reason::DuplicateKey),
            (many.as_str(), "/k3", Reason::DuplicateKey),
            (r#"{"a/b~c":["\u0000"]}"#, "/a~1b~0c/0", Reason::Nul),
            (r#"{"\u0000":1}"#, "", Reason::Nul),
            (r#"["\ud800"]"#, "/0", Reason::LoneSurrogate),
            (r#"["\udc00x"]"#, "/0", Reason::LoneSurrogate),
            (r#"["\ud800\ud800"]"#, "/0", Reason::LoneSurrogate),
            (r#"["\ud800\n"]"#, "/0", Reason::LoneSurrogate),
            ("[1, 1e309]", "/1", Reason::ExponentOutOfRange),
            ("1e-309", "", Reason::ExponentOutOfRange),
            ("1e131071", "", Reason::ExponentOutOfRange),
            ("1e99999999999999999999", "", Reason::ExponentOutOfRange),
            ("10e308", "", Reason::ExponentOutOfRange),
        ] {
            assert_eq!(inspected(document), Err((pointer.to_owned(), reason)), "{document}");
        }
    }

    #[test]
    fn numbers_have_at_most_forty_digits_and_a_bounded_exponent() {
        assert_eq!(inspected(&"1".repeat(40)), Ok(40));
        assert_eq!(inspected(&"1".repeat(41)), Err((String::new(), Reason::TooManyDigits)));
        assert_eq!(inspected(&format!("0.{}", "1".repeat(40))), Ok(42));
        assert_eq!(inspected(&format!("0.{}", "1".repeat(41))), Err((String::new(), Reason::TooManyDigits)));
        let tiny = |zeros: usize, last: &str| inspected(&format!("0.{}{last}", "0".repeat(zeros)));
        assert_eq!(tiny(307, "1"), Ok(310));
        assert_eq!(tiny(308, "1"), Err((String::new(), Reason::ExponentOutOfRange)));
        assert_eq!(tiny(308, ""), Ok(310));
        assert_eq!(tiny(100_000, ""), Err((String::new(), Reason::ExponentOutOfRange)));
    }
}
