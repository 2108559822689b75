//! Cursors: a text that is parsed as a cursor is within the limits, and the cursor's own text is parsed as the same
//! cursor.

use annals::domain::cursor::Cursor;
use annals::domain::json::EXACT_INTEGER_MAX;

/// Checks an input.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(cursor) = text.parse::<Cursor>() else { return };
    assert!((0..=EXACT_INTEGER_MAX).contains(&cursor.position));
    assert!(cursor.epoch.is_none_or(|epoch| epoch > 0));
    assert_eq!(cursor.to_string().parse(), Ok(cursor));
}
